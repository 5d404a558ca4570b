"""A cheap first look at a large pool: which frames can be among the best at all.

The exact score of a frame costs many operations for every number of its boxes. When few of many frames are wanted, most
are ruled out by something cheaper that is never wrong by more than a known radius (`rough_scores`), and only the rest
is scored. The choice is the same as without: a frame is dropped only if `n` others are surely better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.selection.rough_frames import rough_frames
from cval_torch.selection.rough_scores import rough_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.registry import find_strategy

# Fewer frames than this, or more wanted than one in so many, and a first look saves nothing.
_FEWEST_FRAMES = 10_000
_ONE_IN = 8

# Of large arrays, one value in so many tells about where the smallest ones end.
_SAMPLED_ONE_IN = 64
_FEWEST_SAMPLED = 2**10


def shortlist(pool: Pool, stage: DetectionSampling, n: int, *, among: Tensor | None = None) -> Tensor | None:
    """Rows that surely hold the `n` best frames by `stage`, or None where a first look saves nothing.

    Args:
        pool: F frames with the columns that the stage needs.
        stage: a scoring stage.
        n: frames wanted.
        among: (M,) rows to choose among; None is all.

    Returns:
        (m,) int64 rows in the order of `among`, at most half of the pool; None with weights or a callable, on a GPU,
        and where frames are few or as good as equal.
    """
    if pool.device.type != "cpu" or len(pool) < _FEWEST_FRAMES or n * _ONE_IN > len(pool) or pool.num_boxes == 0:
        return None
    policy = stage.bbox_selection_policy or "max"
    if not isinstance(policy, str) or not find_strategy(stage.selection_strategy).scores_boxes:
        return None
    if stage.probs_weights is not None or stage.class_weights is not None:
        return None
    boxes = rough_scores(pool, str(stage.selection_strategy), extreme=policy in ("min", "max"))
    if boxes is None:
        return None
    keys, radius = rough_frames(pool, boxes, policy)
    if stage.descending:
        np.negative(keys, out=keys)
    if among is not None:
        chosen = among.numpy()
        keys, radius = keys[chosen], radius if isinstance(radius, float) else radius[chosen]
    # n frames are surely no worse than this; a frame that cannot be as good is out
    if isinstance(radius, float):
        possible = np.flatnonzero(keys <= np.float32(_kth(keys, n) + 2 * radius))
    else:
        possible = np.flatnonzero(keys - radius <= _kth(keys + radius, n))
    if 2 * len(possible) > len(pool):
        return None
    rows = torch.from_numpy(possible)
    return rows if among is None else among[rows]


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of (N,) values, 1 <= k <= N; through numpy on a CPU, whose partition is many times faster."""
    if values.device.type != "cpu":
        kth: Tensor = values.kthvalue(k).values
        return kth
    numbers: npt.NDArray[Any] = values.numpy()
    sample = numbers[::_SAMPLED_ONE_IN]
    if len(sample) >= _FEWEST_SAMPLED and k * _ONE_IN < len(numbers):
        # a value that somewhat more than k are likely to reach; if k do, the k-th smallest is among them
        place = int(k / _SAMPLED_ONE_IN + 4 * (k / _SAMPLED_ONE_IN) ** 0.5 + 8)
        below = numbers[numbers <= np.partition(sample, place)[place]]
        numbers = below if len(below) >= k else numbers
    return values.new_tensor(np.partition(numbers, k - 1)[k - 1])


def _kth(values: npt.NDArray[np.float32], k: int) -> np.float32:
    found: np.float32 = np.float32(kth_smallest(torch.from_numpy(values), k).item())
    return found
