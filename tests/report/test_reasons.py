"""Why frames were chosen, beside naive loops over their boxes."""

from __future__ import annotations

import math

import pytest
import torch
from reported import described, stage

from cval_torch.pool.pool import Pool
from cval_torch.report.reasons import Reasons, box_scores, scoring_stage
from cval_torch.report.wording import ClassNames
from cval_torch.selection.ranking import frame_scores
from cval_torch.strategies.class_gain import class_gain

POOL = described(30)
NAMES = ClassNames(["ant", "bee", "cow", "dog"])


def entropy_of(row: torch.Tensor) -> float:
    return -sum(p * math.log2(p) for p in row.double().tolist() if p > 0) / math.log2(len(row))


def reasons_for(how, pool: Pool = POOL, **options) -> Reasons:
    scores = frame_scores(pool, how) if scoring_stage([how]) else torch.full((len(pool),), torch.nan)
    return Reasons(pool, scores.double(), [how], NAMES, **{"counts": None, **options})


def text_of(reasons: Reasons, row: int, title: str) -> str:
    return (
        next(each.text for each in reasons.of(row) if each.title == title).replace("\u2068", "").replace("\u2069", "")
    )


def test_box_scores_are_those_of_frames_of_one_box() -> None:
    weighed = stage("entropy", class_weights={1: 0.5, 2: 3.0}, bbox_selection_policy="sum")
    found = box_scores(POOL, weighed).tolist()
    weights = {1: 0.5, 2: 3.0}
    for box, score in enumerate(found):
        expected = entropy_of(POOL.probabilities[box]) * weights.get(int(POOL.labels[box]), 1.0)
        assert score == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("policy", ["max", "min"])
def test_the_decisive_box_is_the_one_with_the_score_of_its_frame(policy: str) -> None:
    reasons = reasons_for(stage("entropy", bbox_selection_policy=policy))
    pick = max if policy == "max" else min
    for row in range(len(POOL)):
        own = [entropy_of(POOL.probabilities[box]) for box in range(int(POOL.offsets[row]), int(POOL.offsets[row + 1]))]
        assert reasons.decisive(row) == (own.index(pick(own)) if own else None)
        if len(own) > 1:
            box = int(POOL.offsets[row]) + own.index(pick(own))
            name = ["ant", "bee", "cow", "dog"][int(POOL.labels[box])]
            told = text_of(reasons, row, "Score")
            assert f"Decided by {name} ({float(POOL.scores[box]):.2f}): its entropy of {pick(own):.3f}" in told
            assert ("highest" if policy == "max" else "lowest") in told


def test_no_box_decides_a_mean_or_a_sum() -> None:
    for policy in ("mean", "sum"):
        reasons = reasons_for(stage("least", bbox_selection_policy=policy))
        row = int((POOL.counts > 2).nonzero()[0])
        assert reasons.decisive(row) is None
        assert text_of(reasons, row, "Score").startswith(f"The {policy} of the least of {int(POOL.counts[row])} boxes")


def test_weights_of_classes_are_told() -> None:
    reasons = reasons_for(stage("entropy", class_weights={0: 2.5, 1: 2.5, 2: 2.5, 3: 2.5}))
    assert "weighs 2.50." in text_of(reasons, int((POOL.counts > 1).nonzero()[0]), "Score")


def test_balanced_weights_need_counts_and_decide_nothing_without_them() -> None:
    how = stage("entropy", class_weights="balanced")
    scores = torch.rand(len(POOL), dtype=torch.float64)
    row = int((POOL.counts > 1).nonzero()[0])
    unknown = Reasons(POOL, scores, [how], NAMES, counts=None)
    assert unknown.decisive(row) is None
    assert text_of(unknown, row, "Score") == (
        f"The max of the entropy of its {int(POOL.counts[row])} boxes is {float(scores[row]):.3f}."
    )
    assert Reasons(POOL, scores, [how], NAMES, counts={1: 40, 2: 1}).decisive(row) is not None


def test_frames_without_boxes_say_how_they_came_in() -> None:
    row = int(POOL.is_empty.nonzero()[0])
    assert "such a frame scores 1.000" in text_of(reasons_for(stage("entropy")), row, "Score")
    apart = Reasons(POOL, torch.full((30,), torch.nan), [stage(null_policy="sample")], NAMES, counts=None)
    assert "the null policy `sample` set it apart" in text_of(apart, row, "Score")
    assert apart.decisive(row) is None


def test_functions_are_named() -> None:
    def by_size(pool: Pool) -> torch.Tensor:
        return pool.counts.double()

    assert "by_size gives the frame" in text_of(reasons_for(stage(by_size)), 0, "Score")


def test_chance_is_called_chance() -> None:
    assert text_of(reasons_for(stage("random", seed=7)), 0, "Chance") == "Drawn at random, with seed 7."


def test_scarce_classes_are_those_of_the_naive_gain() -> None:
    counts = {0: 12.0, 1: 0.5, 2: 30.0}
    order = class_gain(POOL, 10, seed=0)
    pool = POOL.take(order)
    reasons = Reasons(pool, torch.full((10,), torch.nan), [stage("auto")], NAMES, counts={}, expected=counts)
    known = dict.fromkeys(range(4), 0.0) | counts
    for row in range(10):
        boxes = range(int(pool.offsets[row]), int(pool.offsets[row + 1]))
        objects = dict.fromkeys(range(4), 0.0)
        for box in boxes:
            objects[int(pool.labels[box])] += float(pool.scores[box]) ** 2
        label = max(objects, key=lambda each: objects[each] / (known[each] + 1))
        told = text_of(reasons, row, "Scarce class")
        assert f"most of {['ant', 'bee', 'cow', 'dog'][label]}: about {objects[label]:.2f} objects here" in told
        assert f"{known[label]:.1f} expected" in told
        assert int(pool.labels[boxes[reasons.decisive(row)]]) == label
        for box in boxes:
            known[int(pool.labels[box])] += float(pool.scores[box]) ** 2


def test_what_was_annotated_has_to_be_known_to_call_a_class_scarce() -> None:
    unknown = reasons_for(stage("auto"))
    assert [each.title for each in unknown.of(1)] == []
    others = reasons_for(stage("auto"), counts={}, in_order=False)
    assert others.of(1) == ()


def test_pools_without_columns_tell_less() -> None:
    bare = POOL.only(())
    assert Reasons(bare, torch.zeros(30), [stage("entropy")], NAMES, counts={}).decisive(1) is None
    assert Reasons(bare, torch.full((30,), torch.nan), [stage("auto")], NAMES, counts={}).of(1) == ()
