"""Scores of boxes, roughly: cheap numbers that are never further from the exact ones than a known radius.

Everything here is for a first look (see `shortlist`) at blocks of boxes that fit into a CPU's cache. It works in
float32, in memory that is used again for the next block, and what a box gets may depend in its last bits on the boxes
beside it. The radii hold for float64 and half precision columns too.

What is rough about each number:

- `doubt` of a confidence, by which `least` and `margin` rank too, and the confidence itself: float32.
- `ratio` of a confidence, and `least`, `margin`, `ratio` of a class vector: float32, and sums in any order.
- `entropy` of a confidence: with `y = 4 s (1 - s)`, `D + A y + B / (y + C)`, fitted so that the greatest error is the
  least. Both rise with y, so that a table of both bounds the error between its entries too; a test does that.
- `entropy` of a class vector: a logarithm read from the bits of the floats. For `p = 2^e (1 + m)` these are, as an
  integer, `2^23 (e + 127 + m)`, and `e + m <= log2 p <= e + m + 0.0861`, since `log2(1 + m)` is concave
  (Mitchell 1962). Half of that either way, over `log2 n`, is the radius.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cval_torch.pool.pool import Activation, Pool
from cval_torch.strategies.registry import find_strategy
from cval_torch.strategies.scores import class_distribution, entropy

Floats = npt.NDArray[np.float32]

# log2(1 + m) - m is at most 0.08607, at m = 1 / ln 2 - 1: the middle of the range
_MITCHELL_MIDDLE = 0.04304
# The fit of the entropy of a confidence, and its greatest error: 0.00395, with room for rounding.
_FIT_D, _FIT_A, _FIT_B, _FIT_C = 0.40360565, 0.6930379, -0.12086964, 0.30186232
_FIT_RADIUS = 0.0040
# Above this the digits of a row of float32 are those of the column; below, the row is scored exactly.
_SMALLEST = 1e-30
# Doubts nearer than this can have one uncertainty in float64: they must not be told apart before ids are compared.
_DOUBT_RADIUS = 5e-7
# Rounding in float32 of a few operations on numbers of at most 1, in the exact score or in the rough one.
_ROUNDING = 2e-6


class Workspace:
    """Memory that is used again, block after block: fresh pages cost more than the arithmetic on them."""

    def __init__(self) -> None:
        self._held: dict[str, Floats] = {}
        self._ones = torch.ones(1)
        self.precise = _products_are_precise()

    def floats(self, name: str, number: int) -> Floats:
        """(number,) float32 of any values, the same memory at each call with this name."""
        held = self._held.get(name)
        if held is None or len(held) < number:
            held = self._held[name] = np.empty(number, np.float32)
        return held[:number]

    def ones(self, number: int) -> Tensor:
        """(number,) float32 of ones."""
        if len(self._ones) < number:
            self._ones = torch.ones(number)
        return self._ones[:number]


@dataclass(frozen=True, eq=False)
class RoughScores:
    """How boxes are scored roughly.

    Attributes:
        column: (B,) or (B, C), what the scores are made of.
        function: from rows of the column to as many rough scores, which are overwritten at the next call.
        radius: how far a rough score may be from the exact one, if that is taken to the same scale.
        null: the score of the one box that a frame without boxes counts as, on that scale.
    """

    column: Tensor
    function: Callable[[Tensor], Floats]
    radius: float
    null: float


def rough_scores(pool: Pool, strategy: str, *, extreme: bool) -> RoughScores | None:
    """How the boxes of a pool are scored roughly by a strategy that scores boxes; None if there is no cheap way.

    Args:
        pool: on the CPU, with boxes and the columns that the strategy needs.
        strategy: its name.
        extreme: whether frames take the least or the greatest score of their boxes. Scores on another scale with the
            same order do then.
    """
    work, record = Workspace(), find_strategy(strategy)
    if record.reads_probabilities and pool.probabilities is not None and pool.activation is not None:
        return _of_classes(pool.probabilities, pool.activation, strategy, work)
    if pool.scores is None:
        return None
    if record.sees == "confidences":
        return RoughScores(pool.scores, _floats, _DOUBT_RADIUS, 0.0)
    if extreme or strategy in ("least", "margin"):
        return RoughScores(pool.scores, lambda values: _doubts(_floats(values), work), _DOUBT_RADIUS, 0.5)
    if strategy == "ratio":
        return RoughScores(pool.scores, lambda values: _ratios(_floats(values), work), _ROUNDING, 1.0)
    scale = 1 / (4 * _FIT_A)
    radius = (_FIT_RADIUS + 10 * _ROUNDING) * scale  # near y = 0 the fit is steep
    return RoughScores(pool.scores, lambda values: _fitted_entropies(_floats(values), work), radius, scale)


@np.errstate(divide="ignore", invalid="ignore")  # of rows of zeros, which are then scored in another way
def rough_entropy(distribution: Tensor, work: Workspace | None = None) -> Floats:
    """The entropy of (B, n) rows, n > 1, over `log2 n`, to within `rough_radius(n)`; (B,)."""
    values, work = _floats(distribution), work or Workspace()
    rows, outcomes = values.shape
    total, terms, rough = (work.floats(name, rows) for name in ("total", "terms", "rough"))
    products = work.floats("products", values.size).reshape(rows, outcomes)
    np.copyto(products, values.view(np.int32), casting="unsafe")
    np.multiply(products, values, out=products)
    row_sums(values, work, out=total)
    row_sums(products, work, out=terms)
    # sum p log2 p, with log2 p read as bits / 2^23 - 127, and the sum p over itself is 1
    np.divide(terms, total, out=terms)
    np.multiply(terms, -(2.0**-23) / math.log2(outcomes), out=terms)
    torch.log2(torch.from_numpy(total), out=torch.from_numpy(rough))
    np.multiply(rough, 1 / math.log2(outcomes), out=rough)
    np.add(rough, terms, out=rough)
    np.add(rough, (127 - _MITCHELL_MIDDLE) / math.log2(outcomes), out=rough)
    return _but_small(rough, total, distribution, entropy)


def rough_radius(outcomes: int) -> float:
    """How far `rough_entropy` may be from the entropy: half of Mitchell's range, and float32."""
    # the bits are as large as 2^7 once divided, and rounded in the product and at each of the additions
    return (_MITCHELL_MIDDLE + 1e-4 + outcomes * 2.0**-16) / math.log2(outcomes)


def row_sums(values: Floats, work: Workspace, *, out: Floats) -> None:
    """The sum of each row of (B, n) values, into (B,) `out`.

    A product with a vector of ones is the fastest way, unless the user lets products be less precise than float32.
    """
    matrix, sums = torch.from_numpy(values), torch.from_numpy(out)
    if work.precise:
        torch.mv(matrix, work.ones(matrix.shape[1]), out=sums)
    else:
        torch.sum(matrix, 1, out=sums)


def largest(values: Floats, work: Workspace) -> Floats:
    """The largest entry of each row, exactly.

    Args:
        values: (B, n) contiguous, at least 0.
        work: where it is written, (B,).
    """
    first, *others = _lanes(values, work)
    for column in others:
        np.maximum(first, column, out=first)
    pairs = np.maximum(first[:-1], first[1:], out=work.floats("pairs", len(first) - 1))
    return np.maximum(pairs[0::4], pairs[2::4], out=work.floats("largest", len(values)))


def two_largest(values: Floats, work: Workspace) -> tuple[Floats, Floats]:
    """The largest and second largest entry of each row, exactly, as `largest`; of one column, the second is 0."""
    rows = len(values)
    first, *others = _lanes(values, work)
    second, lower, pairs, runners = (work.floats(name, len(first)) for name in ("second", "lower", "pairs", "runners"))
    if not others:
        second[:] = 0
    for number, column in enumerate(others):
        np.minimum(first, column, out=lower if number else second)
        if number:
            np.maximum(second, lower, out=second)
        np.maximum(first, column, out=first)
    # of each four, the neighbours: places 0 and 2 then stand for two columns each
    np.maximum(first[:-1], first[1:], out=pairs[:-1])
    np.minimum(first[:-1], first[1:], out=lower[:-1])
    np.maximum(second[:-1], second[1:], out=runners[:-1])
    np.maximum(runners[:-1], lower[:-1], out=runners[:-1])
    most, next_most, lower = (work.floats(name, rows) for name in ("largest", "next", "lower"))
    np.maximum(pairs[0::4], pairs[2::4], out=most)
    np.minimum(pairs[0::4], pairs[2::4], out=next_most)
    np.maximum(runners[0::4], runners[2::4], out=lower)
    np.maximum(next_most, lower, out=next_most)
    return most, next_most


def _lanes(values: Floats, work: Workspace) -> list[Floats]:
    """Four columns each of (B, n) `values`, (4 B,), the four of a row side by side; 0 where columns run out.

    Numpy copies 16 bytes at a time about as fast as it reads them; all that follows is elementwise.
    """
    rows, outcomes = values.shape
    groups, rest = divmod(outcomes, 4)
    lanes = work.floats("lanes", (groups + bool(rest)) * rows * 4).reshape(-1, rows * 4)
    if groups:
        theirs = np.ndarray((groups, rows), "V16", buffer=values, strides=(16, 4 * outcomes))
        np.copyto(lanes[:groups].view("V16"), theirs)
    if rest:
        lanes[groups] = 0
        for column in range(rest):
            np.copyto(lanes[groups, column::4], values[:, 4 * groups + column])
    return list(lanes)


def _of_classes(probabilities: Tensor, activation: Activation, strategy: str, work: Workspace) -> RoughScores | None:
    if probabilities.shape[1] < 2:
        return None
    outcomes = probabilities.shape[1] + (activation == "sigmoid")

    def function(rows: Tensor) -> Floats:
        distribution = class_distribution(rows, activation)
        return rough_entropy(distribution, work) if strategy == "entropy" else _by_rank(distribution, strategy, work)

    # a sum of n terms is off by n roundings in the exact score and n in the rough one
    radius = rough_radius(outcomes) if strategy == "entropy" else (outcomes + 16) * 2.0**-22
    return RoughScores(probabilities, function, radius, 1.0)


@np.errstate(divide="ignore", invalid="ignore")
def _by_rank(distribution: Tensor, strategy: str, work: Workspace) -> Floats:
    """`least`, `margin` or `ratio`, of the two largest entries and the sum of each row."""
    values = _floats(distribution)
    outcomes, total = values.shape[1], work.floats("total", len(values))
    if strategy != "ratio":
        row_sums(values, work, out=total)
    first, second = (largest(values, work), total) if strategy == "least" else two_largest(values, work)
    rough = work.floats("rough", len(values))
    if strategy == "ratio":
        np.divide(second, first, out=rough)
    else:
        lead = np.subtract(first, second, out=second) if strategy == "margin" else first
        np.divide(lead, total, out=rough)
        np.subtract(1, rough, out=rough)
        if strategy == "least":
            np.multiply(rough, outcomes / (outcomes - 1), out=rough)
    return _but_small(rough, first, distribution, find_strategy(strategy).box_scores)


def _but_small(rough: Floats, sizes: Floats, distribution: Tensor, exact: Callable[[Tensor], Tensor]) -> Floats:
    """The rough scores, but exact ones where float32 has too few digits for the size of a row."""
    if len(sizes) and sizes.min() < _SMALLEST:
        small = np.flatnonzero(sizes < _SMALLEST)
        rough[small] = exact(distribution[torch.from_numpy(small)]).float().numpy()
    return rough


def _products_are_precise() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # a precision was set by newer names, which this one does not tell
        return False


def _floats(values: Tensor) -> Floats:
    return values.detach().float().contiguous().numpy()


def _doubts(values: Floats, work: Workspace) -> Floats:
    result = np.subtract(1, values, out=work.floats("doubts", len(values)))
    return np.minimum(result, values, out=result)


def _ratios(values: Floats, work: Workspace) -> Floats:
    doubts = _doubts(values, work)
    return np.divide(doubts, np.subtract(1, doubts, out=work.floats("sureness", len(values))), out=doubts)


def _fitted_entropies(values: Floats, work: Workspace) -> Floats:
    """The fitted entropies over `4 A`: with `w = (y + C) / 4`, `w + B / (16 A w) + (D - A C) / (4 A)`."""
    shifted, result = work.floats("shifted", len(values)), work.floats("result", len(values))
    np.subtract(values, 0.5, out=shifted)
    np.multiply(shifted, shifted, out=shifted)
    np.subtract((1 + _FIT_C) / 4, shifted, out=shifted)
    np.divide(_FIT_B / (16 * _FIT_A), shifted, out=result)
    np.add(result, shifted, out=result)
    return np.add(result, (_FIT_D - _FIT_A * _FIT_C) / (4 * _FIT_A), out=result)
