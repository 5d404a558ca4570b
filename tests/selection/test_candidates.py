"""Frames that can still be chosen, whatever comes: against all choices that may follow."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tied_frames import make_tied_pool

from cval_torch.errors import CvalError, InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection import candidates
from cval_torch.selection.candidates import Candidates, Predicted, still_possible
from cval_torch.selection.scored import Scored, choose_frames, score_frames
from cval_torch.selection.stage import DetectionSampling


def random_stage(generator: random.Random) -> DetectionSampling:
    budget = generator.choice([None, None, 1.5, 6.0])
    options: dict[str, Any] = {
        "selection_strategy": generator.choice(["entropy", "probability", "least"]),
        "bbox_selection_policy": generator.choice(["max", "mean", "sum"]),
        "num_of_samples": None if budget is not None and generator.random() < 0.4 else generator.choice([1, 3, 8]),
        "num_of_boxes": budget,
        "num_of_minutes": generator.choice([None, None, 1.1, 4.0]),
        "class_quotas": generator.choice([None, {0: 2, 3: 1}, {1: 30}]),
        "null_policy": generator.choice(["protocol", "skip", "last", "sample"]),
        "sort_strategy": generator.choice([None, "ascending", "descending"]),
    }
    return DetectionSampling(**options)


@given(counts=st.lists(st.sampled_from([0, 1, 2, 4]), min_size=2, max_size=25), number=st.integers(0, 10**6))
@settings(max_examples=300, deadline=None)
def test_what_is_chosen_later_was_possible_all_the_time(counts: list[int], number: int) -> None:
    generator = random.Random(number)
    pool, stage = make_tied_pool(counts, seed=number % 89), random_stage(generator)
    scored = score_frames(pool, stage)
    cut = generator.randrange(1, len(pool))
    possible = set(still_possible(scored.take(torch.arange(cut)), stage).tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            chosen = choose_frames(scored, stage).rows.tolist()
        except InvalidInputError:  # nothing but frames without boxes
            return
    assert {row for row in chosen if row < cut} <= possible


def test_few_frames_are_possible() -> None:
    pool = make_tied_pool([2] * 300)
    for options, most in (
        ({"num_of_samples": 4}, 4),
        ({"num_of_samples": 4, "class_quotas": {0: 3, 1: 2}}, 9),
        ({"num_of_samples": None, "num_of_boxes": 5.0}, 40),
        ({"num_of_samples": 4, "num_of_boxes": 1000.0}, 4),
        ({"num_of_samples": None, "num_of_minutes": 3.0, "seconds_per_frame": 4.5, "seconds_per_box": 0}, 41),
    ):
        stage = DetectionSampling(selection_strategy="entropy", **options)  # type: ignore[arg-type]
        assert 1 <= len(still_possible(score_frames(pool, stage), stage)) <= most


def held_by(stage: DetectionSampling, pool: Pool, size: int) -> tuple[Candidates, list[int]]:
    """All of a pool given in batches, and how many frames were held after each."""
    found, held = Candidates(stage), []
    for begin in range(0, len(pool), size):
        part = pool.take(range(begin, min(begin + size, len(pool))))
        found.add(score_frames(part, stage), lambda part=part: Predicted(part))  # type: ignore[misc]
        held.append(found._held)
    return found, held


def test_others_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_SPARE", 20)
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=5, null_policy="skip")
    pool = make_tied_pool([2, 0, 1, 3, 1] * 60)
    found, held = held_by(stage, pool, 7)
    assert max(held) <= 2 * 5 + 20 + 7
    rows = choose_frames(score_frames(pool, stage), stage).rows
    taken = found.take(rows).pool
    assert taken.frame_ids == tuple(pool.frame_ids[row] for row in rows.tolist())
    assert torch.equal(taken.scores, pool.take(rows).scores)  # type: ignore[arg-type]
    assert found.most_bytes(300) > found.most_bytes(10) > 0


def test_a_frame_that_was_let_go_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_SPARE", 0)
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=1)
    pool = make_tied_pool([2, 1, 3, 1] * 5)
    found, _ = held_by(stage, pool, 4)
    best = int(choose_frames(score_frames(pool, stage), stage).rows)
    with pytest.raises(CvalError, match="was let go"):
        found.take(torch.tensor([(best + 1) % len(pool), best]))


def test_nothing_has_come() -> None:
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=1)
    with pytest.raises(InvalidInputError, match="at least one frame"):
        Candidates(stage).take(torch.tensor([0]))
    assert Candidates(stage).most_bytes(10) == 0
    empty = Candidates(stage)
    empty.add(Scored([], torch.empty(0, dtype=torch.bool), torch.empty(0)), lambda: Predicted(make_tied_pool([])))
    assert empty.most_bytes(10) == 0
