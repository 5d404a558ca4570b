"""Uncertainty of boxes: from a confidence or a class distribution to one number a box, higher = more uncertain.

Definitions follow Munro, *Human-in-the-Loop Machine Learning* (2021), chapter 3, as the cval.ai protocol has them.
For a distribution `p` over `n` outcomes, `p1 >= p2` its two largest entries:

========  ==================================  ==========================================
name      distribution                        confidence `s` alone, that is `(s, 1 - s)`
========  ==================================  ==========================================
least     `(1 - p1) * n / (n - 1)`            `2 m`, with `m = min(s, 1 - s)`
margin    `1 - (p1 - p2)`                     `2 m`
ratio     `p2 / p1`                           `m / (1 - m)`
entropy   `-sum(p * log2 p) / log2 n`         `-m log2 m - (1 - m) log2(1 - m)`
========  ==================================  ==========================================

All lie in [0, 1], 1 for a uniform distribution. A softmax's background column is one of the `n` outcomes.
A row of non-negative numbers that does not sum to 1 is divided by its sum; a row of zeros says nothing, so it is taken
as uniform. A distribution over one outcome has nothing to be uncertain of: 0.

Work is done in the precision of the column, at least float32, and every box by itself: its number does not depend,
in the last bit either, on which boxes stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Activation, Pool

_LEAST_DOUBT = 1e-12  # floor of 1 - p in the odds p / (1 - p): keeps a saturated p = 1 finite


def least(probabilities: Tensor) -> Tensor:
    """Least confidence: how far the largest probability is from certainty.

    Args:
        probabilities: (B, n) non-negative, or (B,) confidences in [0, 1].

    Returns:
        (B,) in [0, 1], higher = more uncertain.

    >>> least(torch.tensor([[0.7, 0.2, 0.1]]))
    tensor([0.4500])
    """
    if probabilities.ndim == 1:
        return 2 * doubt(probabilities)
    first, _, rest = _ladder(probabilities)
    outcomes = max(probabilities.shape[1], 2)
    return _uniform_if_zero(probabilities, first, rest / (first + rest) * (outcomes / (outcomes - 1)))


def margin(probabilities: Tensor) -> Tensor:
    """Margin of confidence: how close the second largest probability comes to the largest.

    Args:
        probabilities: (B, n) non-negative, or (B,) confidences in [0, 1].

    Returns:
        (B,) in [0, 1], higher = more uncertain.

    >>> margin(torch.tensor([[0.7, 0.2, 0.1]]))
    tensor([0.5000])
    """
    if probabilities.ndim == 1:
        return 2 * doubt(probabilities)
    first, second, rest = _ladder(probabilities)
    # 1 - (p1 - p2) with 1 = p1 + rest: no cancellation when p1 is nearly 1
    return _uniform_if_zero(probabilities, first, (rest + second) / (first + rest))


def ratio(probabilities: Tensor) -> Tensor:
    """Ratio of confidence: the second largest probability over the largest.

    Args:
        probabilities: (B, n) non-negative, or (B,) confidences in [0, 1].

    Returns:
        (B,) in [0, 1], higher = more uncertain.

    >>> ratio(torch.tensor([[0.8, 0.2, 0.0]]))
    tensor([0.2500])
    """
    if probabilities.ndim == 1:
        unsure = doubt(probabilities)
        return unsure / (1 - unsure)
    first, second, _ = _ladder(probabilities)
    return _uniform_if_zero(probabilities, first, second / first)


def entropy(probabilities: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Entropy in units of its maximum, `log2 n` bits; 0 log 0 = 0.

    Args:
        probabilities: (B, n) non-negative, or (B,) confidences in [0, 1].
        weights: (n,) non-negative, a factor for the term of each outcome. The result is then no longer bounded by 1.

    Returns:
        (B,) in [0, 1] without weights, higher = more uncertain.

    Raises:
        InvalidInputError: `weights` with confidences only, or of another length than n.

    >>> entropy(torch.tensor([[0.5, 0.5, 0.0, 0.0]]))
    tensor([0.5000])
    """
    if probabilities.ndim == 1:
        if weights is not None:
            raise InvalidInputError("`weights` of the entropy need (B, n) probabilities; got (B,) confidences")
        unsure = doubt(probabilities)
        return _surprise(unsure).add_(_surprise(1 - unsure))
    values = _matrix(probabilities)
    outcomes = values.shape[1]
    if weights is not None and weights.shape != (outcomes,):
        raise InvalidInputError(f"`weights` must be ({outcomes},), one for each outcome; got {tuple(weights.shape)}")
    if outcomes == 1:
        return torch.zeros_like(values[:, 0])
    total = values.sum(1, keepdim=True)
    shares = values / total
    if not bool((total > 0).all()):
        shares = torch.where(total > 0, shares, 1 / outcomes)
    terms = _surprise(shares)
    if weights is not None:
        return terms.mul_(weights.to(terms)).sum(1).div_(math.log2(outcomes))
    return terms.sum(1).div_(math.log2(outcomes)).clamp_(0, 1)


def box_evidence(pool: Pool, first: int, last: int, *, distributions: bool = True) -> Tensor:
    """What the uncertainty of some boxes of a pool is computed from.

    Args:
        pool: with the columns `probabilities` or `scores`; without both there must be no boxes.
        first: the first box.
        last: the one after the last.
        distributions: whether class distributions are wanted, where the pool has them.

    Returns:
        (last - first, n) class distributions, or (last - first,) confidences.
    """
    if distributions and pool.probabilities is not None and pool.activation is not None:
        return class_distribution(pool.probabilities[first:last], pool.activation)
    return torch.empty(0, device=pool.device) if pool.scores is None else pool.scores[first:last]


def doubt(confidences: Tensor) -> Tensor:
    """`min(s, 1 - s)`: (B,) in [0, 0.5]. All four uncertainties of a confidence are rising functions of it.

    Both branches are exact in floating point where they are taken, so what is rising in it can be applied after a
    min or a max: `f(max m) = max f(m)`.
    """
    values = _working(confidences)
    return torch.minimum(values, 1 - values)


def class_distribution(probabilities: Tensor, activation: Activation) -> Tensor:
    """One distribution a box, whichever way the detector activates its classes.

    Softmax rows are returned as they are. Independent sigmoids say of each class alone whether it is there; given
    that a box holds one class or none, class c has probability `o_c / (1 + sum o)` and "none" `1 / (1 + sum o)`, with
    the odds `o = p / (1 - p)`. With one class this is `(s, 1 - s)`.

    Args:
        probabilities: (B, C) in [0, 1].
        activation: how they came to be.

    Returns:
        (B, C) for softmax; (B, C + 1) for sigmoid, the class columns first, then "none".

    >>> class_distribution(torch.tensor([[0.25]]), "sigmoid")
    tensor([[0.2500, 0.7500]])
    """
    if activation == "softmax":
        return probabilities
    values = _working(probabilities)
    rows, classes = values.shape
    odds = torch.ones(rows, classes + 1, dtype=values.dtype, device=values.device)
    torch.div(values, (1 - values).clamp_min_(_LEAST_DOUBT), out=odds[:, :classes])
    return odds.div_(odds.sum(1, keepdim=True))


def distribution_weights(weights: Sequence[float], classes: int, activation: Activation) -> list[float]:
    """`probs_weights` as long as `class_distribution` is wide: the "none" column of sigmoids weighs 1 unless given.

    Args:
        weights: one a class; for sigmoids one more, for "none", may follow.
        classes: C, the columns of `probabilities`.
        activation: of the probabilities.

    Raises:
        InvalidInputError: another length; the message names both.
    """
    if len(weights) == classes:
        return [*weights, 1.0] if activation == "sigmoid" else list(weights)
    if activation == "sigmoid" and len(weights) == classes + 1:
        return list(weights)
    raise InvalidInputError(
        f"`probs_weights` must have one weight for each of the C={classes} columns of `probabilities`; "
        f"got {len(weights)}"
    )


def _working(values: Tensor) -> Tensor:
    """At least float32: half precision has too few digits to add up, and is slow on a CPU."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _matrix(probabilities: Tensor) -> Tensor:
    if probabilities.ndim != 2 or probabilities.shape[1] == 0:
        raise InvalidInputError(f"`probabilities` must be (B, n) with n >= 1; got {tuple(probabilities.shape)}")
    return _working(probabilities)


def _surprise(shares: Tensor) -> Tensor:
    """`-p log2 p`, elementwise, 0 at 0; a new tensor."""
    # the smallest normal number stands in for 0, and is then multiplied by 0
    return shares.clamp_min(torch.finfo(shares.dtype).tiny).log2_().mul_(shares).neg_()


def _ladder(probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest and second largest entry of each row, and the sum of all but the largest, each (B,).

    The second largest is the greatest of those that were ever the lower of two. The sum is never formed by subtracting
    from a total, so it keeps its digits where the largest entry is nearly everything.
    """
    columns = _matrix(probabilities).detach().T.contiguous()  # each is gone through apart, so they must be contiguous
    first, rest, lower = columns[0].clone(), torch.zeros_like(columns[0]), torch.empty_like(columns[1:])
    # on the CPU the same by numpy, whose calls cost a third: of few boxes with many classes, they are all the cost
    library: Any = np if columns.device.type == "cpu" else torch
    top, total, others, lowest = (t.numpy() if library is np else t for t in (first, rest, columns[1:], lower))
    for column, low in zip(others, lowest, strict=True):
        library.minimum(top, column, out=low)
        library.add(total, low, out=total)
        library.maximum(top, column, out=top)
    return first, lower.amax(0) if len(lower) else torch.zeros_like(first), rest


def _uniform_if_zero(probabilities: Tensor, first: Tensor, uncertainty: Tensor) -> Tensor:
    """`uncertainty`, but that of a uniform row where the row was zero, and its largest entry `first` with it."""
    uniform = 0.0 if probabilities.shape[1] == 1 else 1.0
    return torch.where(first > 0, uncertainty, uniform)
