"""Uncertainties against Munro's definitions, computed by naive loops in Python floats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_names import UNCERTAINTIES
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.strategies.scores import class_distribution, distribution_weights, doubt, entropy

NAMES = sorted(UNCERTAINTIES)
unit = st.floats(0, 1, width=32)


def naive(row: list[float], name: str, weights: list[float] | None = None) -> float:
    """The definition, on a row that is first made to sum to 1."""
    total = math.fsum(row)
    p = [value / total for value in row] if total > 0 else [1 / len(row)] * len(row)
    n = len(p)
    if n == 1:
        return 0.0
    ordered = sorted(p, reverse=True)
    if name == "least":
        return (1 - ordered[0]) * n / (n - 1)
    if name == "margin":
        return 1 - (ordered[0] - ordered[1])
    if name == "ratio":
        return ordered[1] / ordered[0]
    weights = weights or [1.0] * n
    return -math.fsum(w * q * math.log2(q) for w, q in zip(weights, p, strict=True) if q > 0) / math.log2(n)


def rows_of(classes: int) -> st.SearchStrategy[list[list[float]]]:
    value = st.one_of(unit, st.just(0.0), st.just(1.0), st.sampled_from([1e-30, 1e-7, 0.25]))
    return st.lists(st.lists(value, min_size=classes, max_size=classes), min_size=1, max_size=7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data(), classes=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_of_vectors(name: str, dtype: torch.dtype, data: st.DataObject, classes: int) -> None:
    table = torch.tensor(data.draw(rows_of(classes)), dtype=dtype)
    got = UNCERTAINTIES[name](table)
    assert got.dtype == dtype
    expected = [naive(row, name) for row in table.tolist()]
    assert got.tolist() == pytest.approx(expected, abs=1e-6 if dtype == torch.float32 else 1e-12)
    assert bool(((got >= 0) & (got <= 1 + 1e-6)).all())


@pytest.mark.parametrize("name", NAMES)
@given(scores=st.lists(unit, min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_of_confidences(name: str, scores: list[float]) -> None:
    got = UNCERTAINTIES[name](torch.tensor(scores, dtype=torch.float64))
    assert got.tolist() == pytest.approx([naive([s, 1 - s], name) for s in scores], abs=1e-12)


def test_published_figures() -> None:
    """The worked example of Munro 2021, chapter 3: the softmax of 1, 4, 2, 3."""
    row = torch.tensor([[0.0321, 0.6439, 0.0871, 0.2369]], dtype=torch.float64)
    figures = {"least": 0.4748, "margin": 0.593, "ratio": 0.3679, "entropy": 0.684}
    for name, figure in figures.items():
        assert UNCERTAINTIES[name](row).item() == pytest.approx(figure, abs=5e-4), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 3, 81])
def test_the_ends_of_the_range(name: str, n: int) -> None:
    assert UNCERTAINTIES[name](torch.full((1, n), 1 / n)).item() == pytest.approx(1, abs=1e-6)
    assert UNCERTAINTIES[name](torch.eye(n)[:1]).item() == 0
    assert UNCERTAINTIES[name](torch.zeros(1, n)).item() == 1, "zeros say nothing: uniform"
    assert UNCERTAINTIES[name](torch.zeros(0, n)).shape == (0,)
    assert UNCERTAINTIES[name](torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 5, 21, 91])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_box_does_not_depend_on_its_neighbours(name: str, classes: int, sigmoid: bool) -> None:
    table = torch.rand(300, classes, generator=torch.Generator().manual_seed(classes)).pow(3)

    def score(rows: Tensor) -> Tensor:
        return UNCERTAINTIES[name](class_distribution(rows, "sigmoid" if sigmoid else "softmax"))

    whole = score(table)
    for begin, end in [(0, 1), (1, 8), (5, 300), (299, 300), (64, 97)]:
        assert torch.equal(score(table[begin:end]), whole[begin:end])
    assert torch.equal(score(table.flip(0)).flip(0), whole)


@pytest.mark.parametrize("name", ["least", "margin", "ratio"])
def test_nearly_certain_boxes_keep_their_digits(name: str) -> None:
    """Formed as 1 - p1 in float32, these would be 0 or 6e-8."""
    row = torch.tensor([[1.0, 3e-9, 1e-9]])
    expected = {"least": 4e-9 * 1.5, "margin": 7e-9, "ratio": 3e-9}[name]
    assert UNCERTAINTIES[name](row).item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    table = torch.softmax(torch.randn(50, 20, generator=torch.Generator().manual_seed(0)), 1).half()
    for name in NAMES:
        got = UNCERTAINTIES[name](table)
        assert got.dtype == torch.float32
        assert got.tolist() == pytest.approx([naive(row, name) for row in table.tolist()], abs=1e-6)


@given(scores=st.lists(unit, min_size=1, max_size=20))
def test_doubt_is_exact(scores: list[float]) -> None:
    column = torch.tensor(scores, dtype=torch.float32)
    assert doubt(column).tolist() == [min(s, 1 - s) for s in column.tolist()]


@given(data=st.data(), classes=st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_weights_multiply_the_terms(data: st.DataObject, classes: int) -> None:
    table = data.draw(rows_of(classes))
    weights = data.draw(st.lists(st.floats(0, 10), min_size=classes, max_size=classes).filter(any))
    got = entropy(torch.tensor(table, dtype=torch.float64), weights=torch.tensor(weights))
    expected = [naive(row, "entropy", weights) for row in torch.tensor(table, dtype=torch.float32).tolist()]
    assert got.tolist() == pytest.approx(expected, abs=1e-5)


def test_weights_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(InvalidInputError, match=r"\(3,\).*got \(2,\)"):
        entropy(torch.rand(4, 3), weights=torch.ones(2))
    with pytest.raises(InvalidInputError, match="probabilities"):
        entropy(torch.rand(4), weights=torch.ones(2))


def test_no_columns_are_refused() -> None:
    for name in NAMES:
        with pytest.raises(InvalidInputError, match=r"n >= 1; got \(4, 0\)"):
            UNCERTAINTIES[name](torch.rand(4, 0))


@given(data=st.data(), classes=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_sigmoids_become_a_distribution_by_their_odds(data: st.DataObject, classes: int) -> None:
    table = data.draw(st.lists(st.lists(st.floats(0, 0.999), min_size=classes, max_size=classes), min_size=1))
    got = class_distribution(torch.tensor(table, dtype=torch.float64), "sigmoid")
    for row, values in zip(got.tolist(), table, strict=True):
        odds = [p / (1 - p) for p in values] + [1.0]
        assert row == pytest.approx([o / math.fsum(odds) for o in odds], abs=1e-12)


@given(scores=st.lists(unit, min_size=1, max_size=20))
def test_one_sigmoid_is_a_confidence(scores: list[float]) -> None:
    column = torch.tensor(scores)
    got = class_distribution(column[:, None], "sigmoid")
    assert torch.allclose(got, torch.stack([column, 1 - column], 1), atol=1e-7)


def test_saturated_sigmoids_share() -> None:
    got = class_distribution(torch.tensor([[1.0, 1.0, 0.5], [1.0, 0.0, 0.0]]), "sigmoid")
    assert got.tolist() == [pytest.approx([0.5, 0.5, 0, 0]), pytest.approx([1, 0, 0, 0])]


def test_a_softmax_is_left_alone() -> None:
    table = torch.rand(3, 4)
    assert class_distribution(table, "softmax") is table


def test_class_weights_are_as_long_as_the_distribution() -> None:
    assert distribution_weights([1, 2], 2, "softmax") == [1, 2]
    assert distribution_weights([3, 2], 2, "sigmoid") == [3, 2, 1]
    assert distribution_weights([3, 2, 0], 2, "sigmoid") == [3, 2, 0]
    for weights, activation in [([1.0], "softmax"), ([1.0] * 3, "softmax"), ([1.0] * 4, "sigmoid")]:
        with pytest.raises(InvalidInputError, match=rf"C=2.*got {len(weights)}"):
            distribution_weights(weights, 2, activation)
