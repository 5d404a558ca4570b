"""Frames that come next, and some others."""

from __future__ import annotations

import pytest
import torch
from reported import described, stage

from cval_torch.report.below_cut import best_of_rest, next_choices, some_others
from cval_torch.selection.local import LocalBackend

POOL = described(60)
LABELED = described(10, seed=5, prefix="labeled")


@pytest.mark.parametrize(
    "stages",
    [
        [stage("entropy", 10)],
        [stage("least", 10, bbox_selection_policy="mean")],
        [stage("random", 10, seed=3)],
        [stage("auto", 10)],
        [stage("k_center", 10)],
        [stage("entropy", 40), stage("k_center", 10)],
        [stage("margin", 10, num_of_boxes=25.0)],
    ],
    ids=lambda stages: "-".join(each.name for each in stages),
)
def test_the_next_ones_are_those_of_a_longer_choice(stages) -> None:
    chosen = LocalBackend(labeled=LABELED).select(POOL, stages).frame_ids
    found = next_choices(POOL, chosen, stages, 5, labeled=LABELED)
    longer = [*stages[:-1], stages[-1].model_copy(update={"num_of_samples": len(chosen) + 5, "num_of_boxes": None})]
    expected = LocalBackend(labeled=LABELED).select(POOL, longer).frame_ids
    assert found is not None
    assert [POOL.frame_ids[row] for row in found.tolist()] == list(expected[len(chosen) :])
    assert len(found) == 5


def test_there_are_no_next_ones_of_a_choice_that_cannot_be_made_again() -> None:
    greedy, whole = [stage("auto", 10)], [stage("clustering", 10)]
    chosen = LocalBackend(labeled=LABELED).select(POOL, greedy).frame_ids
    assert next_choices(POOL, chosen, greedy, 5, labeled=None) is None  # it knew of annotated frames
    assert next_choices(POOL.only(("scores",)), chosen, greedy, 5, labeled=None) is None
    assert next_choices(POOL, LocalBackend().select(POOL, whole).frame_ids, whole, 5, labeled=None) is None


def test_a_pool_may_have_fewer() -> None:
    stages = [stage("entropy", 58)]
    chosen = LocalBackend().select(POOL, stages).frame_ids
    found = next_choices(POOL, chosen, stages, 5, labeled=None)
    assert found is not None
    assert {POOL.frame_ids[row] for row in found.tolist()} == set(POOL.frame_ids) - set(chosen)


@pytest.mark.parametrize("descending", [True, False])
def test_the_best_of_the_rest(descending: bool) -> None:
    scores = torch.tensor([0.5, torch.nan, 0.9, 0.1, 0.9, 0.7, *[0.3] * 54], dtype=torch.float64)
    found = best_of_rest(POOL, torch.tensor([5]), scores, 3, descending=descending)
    assert found.tolist() == ([2, 4, 0] if descending else [3, 6, 7])
    assert len(best_of_rest(POOL, torch.arange(60), scores, 3, descending=True)) == 0


def test_others_are_drawn_by_seed_and_id_and_not_by_order() -> None:
    without = torch.arange(10)
    found = [POOL.frame_ids[row] for row in some_others(POOL, without, 8, seed=1).tolist()]
    turned = POOL.take(list(range(59, -1, -1)))
    again = [turned.frame_ids[row] for row in some_others(turned, 59 - without, 8, seed=1).tolist()]
    assert found == again
    assert not set(found) & set(POOL.frame_ids[:10])
    assert found != [POOL.frame_ids[row] for row in some_others(POOL, without, 8, seed=2).tolist()]
    assert len(some_others(POOL, torch.arange(57), 8, seed=1)) == 3
