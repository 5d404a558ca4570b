"""Aggregation against naive loops, and its independence of everything outside the frame."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import columns, frames_of_boxes

from cval_torch.errors import InvalidInputError
from cval_torch.strategies.reduce import REDUCTIONS

NAIVE = {"min": min, "max": max, "mean": statistics.fmean, "sum": math.fsum}


def assert_same(got: list[float], expected: list[float]) -> None:
    assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("policy", sorted(REDUCTIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(frames=frames_of_boxes)
@settings(max_examples=25, deadline=None)
def test_against_a_loop(policy: str, dtype: torch.dtype, frames: list[list[float]]) -> None:
    got = REDUCTIONS[policy](*columns(frames, dtype))
    assert got.dtype == (dtype if policy in ("min", "max") else torch.float64)
    for value, frame in zip(got.tolist(), frames, strict=True):
        if frame:
            assert value == pytest.approx(NAIVE[policy](frame), rel=1e-12, abs=1e-8)
        else:
            assert value == 0 if policy == "sum" else math.isnan(value)


@pytest.mark.parametrize("policy", sorted(REDUCTIONS))
@given(frames=frames_of_boxes, data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_frame_does_not_depend_on_the_others(policy: str, frames: list[list[float]], data: st.DataObject) -> None:
    """Bit for bit: alone, among others, and in any order of frames."""
    whole = REDUCTIONS[policy](*columns(frames)).tolist()
    for frame, value in zip(frames, whole, strict=True):
        assert_same([REDUCTIONS[policy](*columns([frame])).item()], [value])
    order = data.draw(st.permutations(range(len(frames))))
    moved = REDUCTIONS[policy](*columns([frames[row] for row in order])).tolist()
    assert_same(moved, [whole[row] for row in order])


@pytest.mark.parametrize("policy", sorted(REDUCTIONS))
@pytest.mark.parametrize("count", [1, 2, 3, 4, 20, 31, 32, 33])
def test_frames_of_one_size(policy: str, count: int) -> None:
    values = torch.rand(7 * count, generator=torch.Generator().manual_seed(count))
    got = REDUCTIONS[policy](values, torch.arange(0, len(values) + 1, count))
    expected = [NAIVE[policy](values[i : i + count].tolist()) for i in range(0, len(values), count)]
    assert got.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("policy", sorted(REDUCTIONS))
def test_one_huge_frame_among_small_ones(policy: str) -> None:
    frames = [[1.0], list(torch.rand(5001, generator=torch.Generator().manual_seed(0)).tolist()), [], [2.0, 3.0]]
    got = REDUCTIONS[policy](*columns(frames, torch.float64))
    for value, frame in zip(got.tolist(), frames, strict=True):
        if frame:
            assert value == pytest.approx(NAIVE[policy](frame), rel=1e-12)


@pytest.mark.parametrize("policy", sorted(REDUCTIONS))
def test_no_boxes_at_all(policy: str) -> None:
    got = REDUCTIONS[policy](torch.empty(0), torch.zeros(4, dtype=torch.int64))
    assert got.shape == (3,)


def test_sums_are_float64() -> None:
    """In float32 the small ones would be lost."""
    values = torch.tensor([1e8] + [0.25] * 400)
    assert REDUCTIONS["sum"](values, torch.tensor([0, 401])).item() == 1e8 + 100


@pytest.mark.parametrize("policy", sorted(REDUCTIONS))
@pytest.mark.parametrize("values", [torch.rand(3), torch.rand(5), torch.tensor(1.0)])
def test_values_must_fit_the_offsets(policy: str, values: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError, match=r"got \("):
        REDUCTIONS[policy](values, torch.tensor([0, 4]))


@given(counts=st.lists(st.integers(0, 37), min_size=1, max_size=9), same=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_each_number_of_a_vector_is_added_up_as_if_alone(counts: list[int], same: bool, seed: int) -> None:
    """Bit for bit."""
    offsets = torch.tensor([0, *(counts[:1] * len(counts) if same else counts)]).cumsum(0)
    values = torch.randn(int(offsets[-1]), 3, generator=torch.Generator().manual_seed(seed))
    alone = [REDUCTIONS["sum"](column, offsets) for column in values.unbind(1)]
    assert torch.equal(REDUCTIONS["sum"](values, offsets), torch.stack(alone, 1))


def test_vectors_are_added_up_but_have_no_extreme() -> None:
    values, offsets = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 4, 6])
    expected = torch.stack([values[:4].double().sum(0), torch.zeros(3), values[4:].double().sum(0)])
    assert torch.allclose(REDUCTIONS["sum"](values, offsets), expected)
    for policy in ("min", "max"):
        with pytest.raises(InvalidInputError, match=r"\(B,\); got \(6, 3\)"):
            REDUCTIONS[policy](values, offsets)


@given(count=st.integers(1, 9), frames=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("policy", sorted(REDUCTIONS))
def test_frames_of_one_size_give_the_bits_that_they_give_among_others(
    policy: str, count: int, frames: int, seed: int
) -> None:
    """The short cut for equal sizes must not be seen."""
    values = torch.randn(count * frames + 1, generator=torch.Generator().manual_seed(seed)) * 10**8
    offsets = torch.arange(0, count * frames + 1, count)
    alike = REDUCTIONS[policy](values[:-1], offsets)
    mixed = REDUCTIONS[policy](torch.cat([values, values]), torch.cat([offsets, torch.tensor([2 * len(values)])]))
    assert torch.equal(alike, mixed[:-1])
