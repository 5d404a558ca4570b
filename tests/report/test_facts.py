"""What can be said, and what has to be passed for the rest."""

from __future__ import annotations

import pytest
import torch
from reported import choice, described, stage

from cval_torch.pool.pool import Pool
from cval_torch.report.annotated import part_pool
from cval_torch.report.facts import facts_of
from cval_torch.selection.class_weights import class_counts
from cval_torch.selection.ranking import frame_scores

POOL = described(50)
LABELED = described(8, seed=4, prefix="labeled")


def facts_for(selected, pool=None, labeled=None, **options):
    annotated, candidates = part_pool(pool, labeled, selected.frame_ids)
    return facts_of(selected, annotated, candidates, **{"shown": 5, "seed": 0, **options})


def test_with_nothing_but_the_choice_every_gap_says_what_to_pass() -> None:
    facts = facts_for(choice(POOL, stage("entropy")))
    assert set(facts.missing) == {"counts", "scores", "below", "others", "places"}
    assert all("Pass `pool=`" in facts.missing[name] for name in ("scores", "below", "others", "places"))
    assert "Pass `labeled=`" in facts.missing["counts"]


def test_with_everything_nothing_is_missing() -> None:
    how = stage("entropy")
    facts = facts_for(choice(POOL, how), POOL, LABELED)
    assert facts.missing == {}
    assert torch.allclose(facts.scores, frame_scores(POOL, how))
    assert [POOL.frame_ids[row] for row in facts.chosen_rows] == list(choice(POOL, how).frame_ids)
    assert facts.counts == class_counts(LABELED)
    assert facts.below_said == "The next ones that entropy would choose, in this order."
    assert len(facts.nearest) == len(facts.groups) == 5
    rows = [*facts.chosen_rows.tolist(), *facts.below.tolist(), *facts.others.tolist()]
    assert len(rows) == len(set(rows)) == 5 + 12 + 12


def test_a_radius_is_the_distance_asked_for_or_a_quarter_of_the_median() -> None:
    asked = facts_for(choice(POOL, stage("entropy", min_distance=0.7)), POOL)
    assert asked.radius == 0.7
    assert "`min_distance`" in asked.radius_said
    plain = facts_for(choice(POOL, stage("entropy")), POOL)
    assert plain.radius == pytest.approx(plain.places.median_distance() / 4)


def test_strategies_without_scores_say_so() -> None:
    facts = facts_for(choice(POOL, stage("auto"), labeled=LABELED), POOL, LABELED)
    assert facts.scores is None
    assert facts.missing["scores"] == "No stage scored single frames: auto chose without scores, so there is no cut."
    assert len(facts.below) == 12


def test_of_a_clustering_the_best_scores_that_were_left() -> None:
    selected = choice(POOL, stage("entropy", 20), stage("clustering", 4))
    facts = facts_for(selected, POOL, [])
    assert facts.below_said == "Those with the best entropy that were not chosen."
    best = sorted(range(50), key=lambda row: (-float(facts.scores[row]), POOL.frame_ids[row]))
    left = [row for row in best if POOL.frame_ids[row] not in selected.frame_ids]
    assert facts.below.tolist() == left[:12]
    alone = facts_for(choice(POOL, stage("clustering", 4)), POOL)
    assert "What clustering would choose next cannot be told" in alone.missing["below"]
    assert "Pass `labeled=`" in alone.missing["below"]


def test_scores_of_another_pool_are_not_shown() -> None:
    selected = choice(POOL, stage("entropy"))
    other = described(50, seed=9)
    facts = facts_for(selected, other)
    assert facts.scores is None
    assert "score otherwise in `pool`" in facts.missing["scores"]
    assert "cannot be told" in facts.missing["below"]


def test_balanced_classes_need_the_annotated_frames() -> None:
    how = stage("entropy", class_weights="balanced")
    selected = choice(POOL, how, labeled=LABELED)
    assert "balanced" in facts_for(selected, POOL).missing["scores"]
    assert facts_for(selected, POOL, LABELED).missing == {}


def test_pools_without_columns() -> None:
    bare = POOL.only(("scores", "labels", "boxes"))
    facts = facts_for(choice(bare, stage("entropy")), bare, LABELED.only(("scores",)))
    assert set(facts.missing) == {"places", "counts"}
    assert "embeddings" in facts.missing["places"]
    assert "labels" in facts.missing["counts"]


def test_everything_was_chosen() -> None:
    facts = facts_for(choice(POOL, stage("entropy", 50)), POOL)
    assert facts.missing["below"] == "All frames of the pool were chosen."
    assert len(facts.others) == 0


def test_one_frame() -> None:
    one = POOL.take([7])
    facts = facts_for(choice(one, stage("entropy", 1)), one, [])
    assert facts.nearest == [None]
    assert facts.groups == [[]]
    assert isinstance(facts.pool, Pool)
