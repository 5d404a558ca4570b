"""`max_zscore`: against the statistics module, frame by frame."""

from __future__ import annotations

import pickle
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.signals import max_zscore
from cval_torch.selection.stage import DetectionSampling, describe_stage

EMPTY = torch.zeros(1, dtype=torch.int64)


def stage(strategy: Any, n: int = 5, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def make_pool(seed: int = 0, frames: int = 20) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 5, (frames,), generator=generator)
    boxes = int(counts.sum())
    return Pool(
        [f"{row:03}" for row in torch.randperm(frames, generator=generator).tolist()],
        torch.cat([EMPTY, counts.cumsum(0)]),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(0, 3, (boxes,), generator=generator),
    )


def crowded(pool: Pool) -> torch.Tensor:
    return pool.counts


def wrong(pool: Pool) -> list[int]:
    return [1]


def naive(values: list[float], sample: list[float]) -> list[float]:
    sd = statistics.pstdev(sample)
    return [0.0 if sd < 1e-12 else (value - statistics.fmean(sample)) / sd for value in values]


@given(seed=st.integers(0, 10**6), frames=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_it_is_the_greatest_z_of_each_frame(seed: int, frames: int) -> None:
    pool = make_pool(seed, frames)
    weighed = stage("margin", bbox_selection_policy="mean", class_weights={1: 3.0})
    strategy = max_zscore("entropy", ("least", "sum"), "probability", weighed, crowded)
    seen = [row for row in range(frames) if pool.counts[row] > 0] or list(range(frames))
    signals = [
        frame_scores(pool, stage("entropy")).tolist(),
        frame_scores(pool, stage("least", bbox_selection_policy="sum")).tolist(),
        (-frame_scores(pool, stage("probability"))).tolist(),
        frame_scores(pool, weighed).tolist(),
    ]
    columns = [naive(values, [values[row] for row in seen]) for values in signals]
    columns.append(naive(pool.counts.tolist(), pool.counts.tolist()))
    got = strategy(pool)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx([max(zs) for zs in zip(*columns, strict=True)], abs=1e-6)


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20),
    scale=st.floats(1e-3, 1e6),
    shift=st.floats(-1e3, 1e3),
)
@settings(max_examples=60, deadline=None)
def test_units_do_not_matter(values: list[float], scale: float, shift: float) -> None:
    if max(values) - min(values) < 1e-2:
        return
    pool = Pool([f"{row:02}" for row in range(len(values))], torch.zeros(len(values) + 1, dtype=torch.int64))
    plain = max_zscore(lambda pool: values)(pool)
    moved = max_zscore(lambda pool: [scale * value + shift for value in values])(pool)
    assert moved.tolist() == pytest.approx(plain.tolist(), abs=1e-3)
    assert plain.tolist() == pytest.approx(naive(values, values), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e300, 1e-300, 5e-324])
def test_a_constant_signal_says_nothing(value: float) -> None:
    pool = make_pool()
    alone = max_zscore(lambda pool: [value] * len(pool))(pool)
    assert alone.tolist() == [0.0] * len(pool)
    beside = max_zscore(lambda pool: [value] * len(pool), crowded)(pool)
    assert beside.tolist() == max_zscore(crowded)(pool).clamp_min(0).tolist()


def test_a_signal_that_is_constant_but_for_rounding_says_nothing() -> None:
    pool = Pool(list("abc"), torch.zeros(4, dtype=torch.int64))
    assert max_zscore(lambda pool: [0.3, 0.1 + 0.2, 0.3])(pool).tolist() == [0, 0, 0]
    assert max_zscore(lambda pool: [0.3, 0.3 + 1e-9, 0.3])(pool).tolist() == pytest.approx(
        [-(0.5**0.5), 2**0.5, -(0.5**0.5)]
    )


def test_huge_numbers_do_not_overflow() -> None:
    pool = Pool(list("abc"), torch.zeros(4, dtype=torch.int64))
    assert max_zscore(lambda pool: [-1.5e308, 0, 1.5e308])(pool).tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])


def test_frames_without_boxes_do_not_move_the_mean() -> None:
    scores = torch.tensor([0.9, 0.8, 0.6])
    full = Pool(list("abc"), torch.arange(4), scores=scores)
    more = Pool(list("abcde"), torch.tensor([0, 1, 2, 3, 3, 3]), scores=scores)
    strategy = max_zscore("margin")
    assert torch.equal(strategy(more)[:3], strategy(full))
    assert strategy(more)[3] > strategy(more)[2], "they have the score of the protocol, 1"


def test_an_ascending_signal_is_turned_round() -> None:
    pool = make_pool()
    up, down = (max_zscore(stage("entropy", sort_strategy=way))(pool) for way in ("ascending", "descending"))
    torch.testing.assert_close(up, -down)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_order_of_frames_changes_nothing(seed: int) -> None:
    pool = make_pool(seed)
    shuffled = pool.take(torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)))
    one = stage(max_zscore("entropy", ("margin", "sum"), crowded), 20, null_policy="last")
    first, second = LocalBackend().select(pool, one), LocalBackend().select(shuffled, one)
    assert first.frame_ids == second.frame_ids
    torch.testing.assert_close(first.scores, second.scores, rtol=0, atol=0, equal_nan=True)


def test_it_travels_and_has_a_name() -> None:
    strategy = max_zscore(("entropy", "sum"), crowded, stage("margin", class_weights={1: 2.0}))
    again = pickle.loads(pickle.dumps(strategy))
    assert torch.equal(again(make_pool()), strategy(make_pool()))
    name = (
        "max_zscore(('entropy', 'sum'), crowded, DetectionSampling(selection_strategy='margin', "
        "class_weights={1: 2.0}))"
    )
    assert repr(strategy) == repr(again) == name
    assert describe_stage(stage(strategy))["selection_strategy"] == f"cval_torch.selection.signals.{name}"


def test_errors_name_the_signal() -> None:
    pool = make_pool()
    with pytest.raises(InvalidInputError, match=r"the selection_strategy 'wrong' must return \(F,\)"):
        max_zscore("entropy", wrong)(pool)
    with pytest.raises(InvalidInputError, match="give LocalBackend"):
        max_zscore(stage("entropy", class_weights="balanced"))(pool)


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ((), "at least one; got none"),
        (("clustering",), "must score frames: least.*got 'clustering'"),
        (("entropi",), "got 'entropi'"),
        ((stage("random"),), "got 'random'"),
        ((3,), r"a signal must be.*got 3"),
        ((("entropy", "median"),), r"a signal must be.*got \('entropy', 'median'\)"),
        ((("entropy", "sum", 1),), "a signal must be"),
    ],
)
def test_what_is_no_signal(signals: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        max_zscore(*signals)
