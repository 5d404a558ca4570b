"""Rough scores of boxes are as near to the exact ones as they promise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.pool.pool import Activation, Pool
from cval_torch.selection import rough_scores as module
from cval_torch.selection.rough_scores import Workspace, largest, rough_scores, row_sums, two_largest

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
STRATEGIES = ["least", "margin", "ratio", "entropy"]

entries = st.one_of(
    st.floats(0, 1, width=32),
    st.sampled_from([0.0, 1.0, 0.5, 1e-45, 1e-38, 1e-30, 1e-20, 1 - 2**-24, 0.5 + 2**-24, 0.5 - 2**-25]),
)


def naive(strategy: str, row: Sequence[float]) -> float:
    """The definitions of Munro (2021), chapter 3, in Python floats."""
    total = math.fsum(row)
    shares = [p / total for p in row] if total > 0 else [1 / len(row)] * len(row)
    *_, second, first = sorted(shares)
    if strategy == "least":
        return (1 - first) * len(row) / (len(row) - 1)
    if strategy == "margin":
        return 1 - (first - second)
    if strategy == "ratio":
        return second / first
    return -math.fsum(p * math.log2(p) for p in shares if p > 0) / math.log2(len(row))


def distribution(row: Sequence[float], activation: str) -> list[float]:
    if activation == "softmax":
        return list(row)
    odds = [p / max(1 - p, 1e-12) for p in row]
    return [o / (1 + math.fsum(odds)) for o in [*odds, 1.0]]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), outcomes=st.integers(2, 11))
@settings(max_examples=25, deadline=None)
def test_class_vectors_are_within_the_radius(
    strategy: str, activation: Activation, dtype: torch.dtype, data: st.DataObject, outcomes: int
) -> None:
    rows = data.draw(st.lists(st.lists(entries, min_size=outcomes, max_size=outcomes), min_size=1, max_size=6))
    column = torch.tensor(rows, dtype=torch.float64).to(dtype)
    offsets = torch.tensor([0, len(rows)])
    rough = rough_scores(Pool(["a"], offsets, probabilities=column, activation=activation), strategy, extreme=False)
    assert rough is not None
    got = rough.function(column)
    for values, score in zip(column.tolist(), got.tolist(), strict=True):
        assert abs(score - naive(strategy, distribution(values, activation))) <= rough.radius


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", DTYPES)
@given(values=st.lists(entries, min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_confidences_are_within_the_radius(strategy: str, dtype: torch.dtype, values: list[float]) -> None:
    column = torch.tensor(values, dtype=torch.float64).to(dtype)
    rough = rough_scores(Pool(["a"], torch.tensor([0, len(values)]), scores=column), strategy, extreme=False)
    assert rough is not None
    for value, score in zip(column.tolist(), rough.function(column).tolist(), strict=True):
        exact = naive(strategy, [value, 1 - value]) * rough.null  # a score of 1, on the scale of rough ones
        assert abs(score - exact) <= rough.radius


def test_the_fit_of_the_entropy_is_as_near_as_it_says() -> None:
    """Both rise with y = 4 s (1 - s), so between two entries of a table they differ no more than crosswise."""
    doubts = np.concatenate([np.geomspace(1e-300, 1e-7, 20_000), np.linspace(1e-7, 0.5, 400_000)])
    doubts[0] = 0
    y = 4 * doubts * (1 - doubts)
    fit = module._FIT_D + module._FIT_A * y + module._FIT_B / (y + module._FIT_C)
    assert module._FIT_A > 0 > module._FIT_B, "the fit rises"
    entropy = np.array([0 if m == 0 else -m * math.log2(m) - (1 - m) * math.log2(1 - m) for m in doubts])
    assert (entropy[1:] - fit[:-1]).max() <= module._FIT_RADIUS
    assert (fit[1:] - entropy[:-1]).max() <= module._FIT_RADIUS


@given(data=st.data(), outcomes=st.integers(1, 23), rows=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_the_two_largest(data: st.DataObject, outcomes: int, rows: int) -> None:
    values = data.draw(
        st.lists(
            st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e-45]) | entries, min_size=outcomes, max_size=outcomes),
            min_size=rows,
            max_size=rows,
        )
    )
    table, work = np.array(values, np.float32), Workspace()
    work.floats("lanes", 999)[:] = np.nan  # what an earlier block left behind
    expected = np.sort(np.concatenate([np.zeros((rows, 1), np.float32), table], 1), 1)
    assert largest(table, work).tolist() == expected[:, -1].tolist()
    first, second = two_largest(table, work)
    assert first.tolist() == expected[:, -1].tolist()
    assert second.tolist() == expected[:, -2].tolist()


@pytest.mark.parametrize("precise", [True, False])
def test_row_sums(precise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_products_are_precise", lambda: precise)
    values = torch.rand(50, 7, generator=torch.Generator().manual_seed(0))
    got = np.empty(50, np.float32)
    row_sums(values.numpy(), Workspace(), out=got)
    assert got.tolist() == pytest.approx([math.fsum(row) for row in values.tolist()], rel=1e-6)


def test_products_are_not_precise_where_the_user_says_so() -> None:
    before = torch.get_float32_matmul_precision()  # some packages set it when they are imported
    try:
        torch.set_float32_matmul_precision("highest")
        assert module._products_are_precise()
        torch.set_float32_matmul_precision("medium")
        assert not module._products_are_precise()
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_has_no_cheap_way() -> None:
    one = Pool(["a"], torch.tensor([0, 1]), probabilities=torch.ones(1, 1), activation="softmax")
    assert rough_scores(one, "margin", extreme=True) is None, "one class leaves nothing to be uncertain of"


def test_columns_that_are_views_are_read_as_they_are() -> None:
    table = torch.rand(6, 30, generator=torch.Generator().manual_seed(0))
    pool = Pool(["a"], torch.tensor([0, 30]), probabilities=table.T, activation="softmax")
    rough = rough_scores(pool, "ratio", extreme=False)
    assert rough is not None
    expected = [naive("ratio", row) for row in table.T.double().tolist()]
    assert rough.function(table.T).tolist() == pytest.approx(expected, abs=rough.radius)
