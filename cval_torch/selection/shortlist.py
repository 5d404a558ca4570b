"""A cheap first look at a large pool: which frames can be among the best at all.

The exact score of a frame costs a logarithm for every number of its boxes. When few of many frames are wanted, most
are ruled out by something cheaper that is never wrong by more than a known radius, and only the rest is scored. The
choice is the same as without: a frame is dropped only if `n` others are surely better.

Two looks are to be had:

- of confidences under `min` or `max`: the reduced `doubt`, of which all four uncertainties are rising functions;
- of the entropy of class vectors: a logarithm read from the bits of the floats. For `p = 2^e (1 + m)` these are, as an
  integer, `2^23 (e + 127 + m)`, and `e + m <= log2 p <= e + m + 0.0861`, since `log2(1 + m)` is concave
  (Mitchell 1962). Half of that either way, over `log2 n`, is the radius.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cval_torch.pool.offsets import chunks
from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.reduce import REDUCTIONS
from cval_torch.strategies.registry import find_strategy
from cval_torch.strategies.scores import class_distribution, doubt, entropy

# Fewer frames than this, or more wanted than one in so many, and a first look saves nothing.
_FEWEST_FRAMES = 10_000
_ONE_IN = 8

# log2(1 + m) - m is at most 0.08607, at m = 1 / ln 2 - 1: the middle of the range, and its half with room for rounding
_MITCHELL_MIDDLE = 0.04304
_MITCHELL_RADIUS = 0.0441
# Below this the sum of a row has lost digits, and the row is scored exactly.
_SMALLEST_SUM = 1e-30
# Doubts nearer than this can have one uncertainty in float64: they must not be told apart before ids are compared.
_DOUBT_RADIUS = 5e-7

_CHUNK_ELEMENTS = 2**18


def shortlist(pool: Pool, stage: DetectionSampling, n: int, *, among: Tensor | None = None) -> Tensor | None:
    """Rows that surely hold the `n` best frames by `stage`, or None where a first look saves nothing.

    Args:
        pool: F frames with the columns that the stage needs.
        stage: a scoring stage.
        n: frames wanted.
        among: (M,) rows to choose among; None is all.

    Returns:
        (m,) int64 rows in the order of `among`, at most half of the pool; None for other stages than those above, on
        a GPU, and where frames are few or as good as equal.
    """
    if pool.device.type != "cpu" or len(pool) < _FEWEST_FRAMES or n * _ONE_IN > len(pool) or pool.num_boxes == 0:
        return None
    policy = stage.bbox_selection_policy or "max"
    if not isinstance(policy, str) or find_strategy(stage.selection_strategy).sees != "distributions":
        return None
    if stage.probs_weights is not None or stage.class_weights is not None:
        return None
    if pool.probabilities is not None:
        if stage.selection_strategy != "entropy" or pool.probabilities.shape[1] < 2:
            return None
        rough, radius = _rough_entropies(pool, policy)
    elif policy in ("min", "max"):
        rough, radius = _doubts(pool, policy), torch.tensor(_DOUBT_RADIUS)
    else:
        return None
    keys = rough.neg_() if stage.descending else rough
    if among is not None:
        keys, radius = keys[among], radius[among] if radius.ndim else radius
    # n frames are surely no worse than `limit`; a frame that cannot be as good is out
    limit = kth_smallest(keys + radius, n) if radius.ndim else kth_smallest(keys, n) + radius
    possible: Tensor = (keys - radius <= limit if radius.ndim else keys <= limit + radius).nonzero().squeeze(1)
    if 2 * len(possible) > len(pool):
        return None
    return possible if among is None else among[possible]


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of (N,) values, 1 <= k <= N; through numpy on a CPU, whose partition is many times faster."""
    if values.device.type == "cpu":
        return values.new_tensor(np.partition(values.numpy(), k - 1)[k - 1])
    kth: Tensor = values.kthvalue(k).values
    return kth


def rough_entropy(distribution: Tensor) -> Tensor:
    """The entropy of (B, n) rows, n > 1, over `log2 n`, to within `rough_radius(n)`; (B,) float32.

    Sums are taken as products with a vector of ones, which is fast, and whose last bits depend on a row's place: good
    enough for a first look, and for nothing else.
    """
    outcomes = distribution.shape[1]
    ones = torch.ones(outcomes)
    total, terms = torch.empty(2, len(distribution))
    for begin in range(0, len(distribution), max(_CHUNK_ELEMENTS // outcomes, 1)):
        block = slice(begin, begin + max(_CHUNK_ELEMENTS // outcomes, 1))
        values = distribution[block].float().contiguous()
        torch.mv(values, ones, out=total[block])
        torch.mv(values.view(torch.int32).float().mul_(values), ones, out=terms[block])
    # sum p log2 p, with log2 p read as bits / 2^23 - 127
    terms.div_(2**23).sub_(total, alpha=127)
    rough: Tensor = (total.log2() - _MITCHELL_MIDDLE).sub_(terms.div_(total)).div_(math.log2(outcomes))
    small = (total < _SMALLEST_SUM).nonzero().squeeze(1)
    if len(small):
        rough[small] = entropy(distribution[small]).float()
    return rough


def rough_radius(outcomes: int) -> float:
    """How far `rough_entropy` may be from the entropy."""
    return _MITCHELL_RADIUS / math.log2(outcomes)


def _doubts(pool: Pool, policy: str) -> Tensor:
    if pool.scores is None:
        return torch.full((len(pool),), 0.5)
    reduced = torch.empty(len(pool), dtype=torch.promote_types(pool.scores.dtype, torch.float32))
    for begin, end in chunks(pool.offsets, boxes=_CHUNK_ELEMENTS):
        offsets = pool.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        reduced[begin:end] = REDUCTIONS[policy](doubt(pool.scores[first:last]), offsets - first)
    return reduced.nan_to_num_(0.5)  # a frame without boxes


def _rough_entropies(pool: Pool, policy: str) -> tuple[Tensor, Tensor]:
    """(F,) rough frame scores and their radius: one for all, or, for sums, one for each box."""
    reduced = torch.empty(len(pool), dtype=torch.float64 if policy == "sum" else torch.float32)
    probabilities, activation = pool.probabilities, pool.activation
    if probabilities is None or activation is None:
        return reduced, reduced
    outcomes = probabilities.shape[1] + (activation == "sigmoid")
    for begin, end in chunks(pool.offsets, boxes=_CHUNK_ELEMENTS):
        offsets = pool.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        rough = rough_entropy(class_distribution(probabilities[first:last], activation))
        reduced[begin:end] = REDUCTIONS[policy](rough, offsets - first)
    counts = pool.counts
    reduced.masked_fill_(counts == 0, 1)
    radius = torch.tensor(rough_radius(outcomes), dtype=torch.float64)
    return reduced, radius * counts if policy == "sum" else radius
