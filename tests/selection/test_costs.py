"""What frames cost, and how far a budget goes, against sums read box by box."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.pool.pool import Pool
from cval_torch.selection import costs
from cval_torch.selection.costs import estimated_boxes, largest_fitting, total, within

FRAMES = st.lists(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 2)), max_size=7), max_size=8)


def pool_of(frames: list[list[tuple[float, int]]], *, scores: bool = True) -> Pool:
    boxes = [box for frame in frames for box in frame]
    return Pool(
        [f"{row}" for row in range(len(frames))],
        torch.tensor([0, *(len(frame) for frame in frames)]).cumsum(0),
        scores=torch.tensor([score for score, _ in boxes]) if scores else None,
        labels=torch.tensor([label for _, label in boxes], dtype=torch.int64),
    )


@given(
    frames=FRAMES, label=st.sampled_from([None, 0, 1, 5]), scores=st.booleans(), chunk=st.sampled_from([1, 3, 2**22])
)
@settings(max_examples=100, deadline=None)
def test_a_frame_costs_the_sum_of_its_scores_or_its_boxes(
    frames: list[list[tuple[float, int]]], label: int | None, scores: bool, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "_CHUNK_BOXES", chunk)
        pool = pool_of(frames, scores=scores)
        got = estimated_boxes(pool, label=label)
        some = torch.arange(len(pool) - 1, -1, -2)
        assert torch.equal(estimated_boxes(pool, rows=some, label=label), got[some])
    assert got.dtype == torch.float64
    expected = [[score if scores else 1.0 for score, own in frame if label in (None, own)] for frame in frames]
    assert got.tolist() == pytest.approx([math.fsum(boxes) for boxes in expected], abs=1e-12)


def test_half_precision_is_added_up_in_float64() -> None:
    pool = Pool(["a"], torch.tensor([0, 5000]), scores=torch.full((5000,), 0.5, dtype=torch.float16))
    assert estimated_boxes(pool).tolist() == [2500]


def test_a_sum_of_float32_is_within_its_decimal() -> None:
    scores = estimated_boxes(Pool(["a"], torch.tensor([0, 10]), scores=torch.full((10,), 0.1)))
    assert total(scores) > 1
    assert within(scores, 1)
    assert not within(scores, 0.999)


@given(limit=st.integers(0, 120), most=st.integers(1, 100), guess=st.integers(-5, 200))
@settings(max_examples=300, deadline=None)
def test_the_largest_that_fits(limit: int, most: int, guess: int) -> None:
    asked: list[int] = []

    def fits(n: int) -> bool:
        asked.append(n)
        return n <= limit

    assert largest_fitting(fits, most, guess=guess) == max(min(limit, most), 1)
    assert all(1 <= n <= most for n in asked)
    assert len(set(asked)) == len(asked) <= 16


@given(fitting=st.lists(st.booleans(), min_size=1, max_size=40), guess=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_of_costs_that_rise_and_fall_it_is_one_whose_next_does_not_fit(fitting: list[bool], guess: int) -> None:
    n = largest_fitting(lambda n: fitting[n - 1], len(fitting), guess=guess)
    assert fitting[n - 1] or n == 1
    assert n == len(fitting) or not fitting[n] or not fitting[0]


def test_near_a_good_guess_few_are_asked() -> None:
    asked: list[int] = []
    assert largest_fitting(lambda n: asked.append(n) or n <= 1040, 10**6, guess=1000) == 1040
    assert len(asked) <= 9
    assert max(asked) <= 1125
