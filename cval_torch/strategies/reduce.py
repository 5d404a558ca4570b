"""From boxes to frames: `(B,)` scores and offsets to one number a frame.

Each result depends on the frame's own boxes, in their order, and on nothing else, in the last bit either: no atomic
additions, and no differences of running sums. Values are read through windows that double in width, which costs
`log2(boxes of the largest frame)` elementwise passes on any device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError


def min(values: Tensor, offsets: Tensor) -> Tensor:  # noqa: A001 - named as on the wire
    """The least of each frame's values.

    Args:
        values: (B,) float.
        offsets: (F+1,) int64; frame i owns `values[offsets[i]:offsets[i+1]]`.

    Returns:
        (F,) as `values`; NaN for a frame without boxes.

    >>> min(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 2, 3])).tolist()
    [1.0, 2.0]
    """
    return _extreme(torch.minimum, values, offsets)


def max(values: Tensor, offsets: Tensor) -> Tensor:  # noqa: A001 - named as on the wire
    """The greatest of each frame's values; otherwise as `min`."""
    return _extreme(torch.maximum, values, offsets)


def mean(values: Tensor, offsets: Tensor) -> Tensor:
    """The mean of each frame's values, in float64; NaN for a frame without boxes. Otherwise as `min`."""
    return sum(values, offsets) / offsets.diff()


def sum(values: Tensor, offsets: Tensor) -> Tensor:  # noqa: A001 - named as on the wire
    """The sum of each frame's values, in float64; 0 for a frame without boxes. Favours crowded frames.

    A frame of 20 boxes is a window of 4 and one of 16: its sum is a tree over its own values alone.
    Vectors, (B, E) to (F, E), are added up too.
    """
    starts, counts, uniform = _frames_of(values, offsets)
    total = torch.zeros(len(counts), *values.shape[1:], dtype=torch.float64, device=values.device)
    if len(values) == 0:
        return total
    if values.ndim > 1:
        return _sum_vectors(values, starts, counts, uniform)
    largest = uniform or int(counts.max())
    position, place = starts.clone(), 0
    window, width = values.double(), 1  # window[i] is the sum of values[i : i + width]
    while True:
        if not uniform:
            rows = ((counts & width) != 0).nonzero().squeeze(1)
            total[rows] += window[position[rows]]
            position[rows] += width
        elif uniform & width:
            total += _every(window, uniform, place, len(counts))
            place += width
        if 2 * width > largest:
            return total
        window = window[:-width] + window[width:]
        width *= 2


def _sum_vectors(values: Tensor, starts: Tensor, counts: Tensor, uniform: int) -> Tensor:
    """The same sums of (B, E) vectors, added in the same order, and read once: windows of vectors would take longer."""
    total = torch.zeros(len(counts), *values.shape[1:], dtype=torch.float64, device=values.device)
    largest, place, width = uniform or int(counts.max()), 0, 1
    position = starts.clone()
    while width <= largest:
        if uniform & width:
            total += _sum_of_tree(values.view(-1, uniform, *values.shape[1:])[:, place : place + width])
            place += width
        elif not uniform:
            rows = ((counts & width) != 0).nonzero().squeeze(1)
            places = position[rows, None] + torch.arange(width, device=values.device)
            total[rows] += _sum_of_tree(values[places])
            position[rows] += width
        width *= 2
    return total


def _sum_of_tree(block: Tensor) -> Tensor:
    """(F, E) float64, of (F, w, E) with w a power of two: neighbours first."""
    block = block.double()
    while block.shape[1] > 1:
        block = block[:, ::2] + block[:, 1::2]
    return block.squeeze(1)


REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"min": min, "max": max, "mean": mean, "sum": sum}
"""By wire name (`bbox_selection_policy`)."""


def _extreme(pairwise: Callable[[Tensor, Tensor], Tensor], values: Tensor, offsets: Tensor) -> Tensor:
    if values.ndim != 1:
        raise InvalidInputError(f"`values` must be (B,); got {tuple(values.shape)}")
    starts, counts, uniform = _frames_of(values, offsets)
    result = values.new_full((len(counts),), torch.nan)
    if len(values) == 0:
        return result
    largest = uniform or int(counts.max())
    window, width = values, 1  # window[i] is the extreme of values[i : i + width]
    while True:
        # two windows that overlap cover the frame: an extreme may count a value twice
        if not uniform:
            rows = ((counts >= width) & (counts < 2 * width)).nonzero().squeeze(1)
            first = starts[rows]
            result[rows] = pairwise(window[first], window[first + counts[rows] - width])
        if 2 * width > largest:
            break
        window = pairwise(window[:-width], window[width:])
        width *= 2
    if uniform:
        frames = len(counts)
        return pairwise(_every(window, uniform, 0, frames), _every(window, uniform, uniform - width, frames))
    return result


def _frames_of(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, int]:
    """Where frames start, how many values each has, and that number if it is the same for all, else 0."""
    if values.ndim == 0 or int(offsets[-1]) != len(values):
        raise InvalidInputError(
            f"`values` must be (B,) with B={int(offsets[-1])} boxes from `offsets`; got {tuple(values.shape)}"
        )
    counts = offsets.diff()
    # many detectors keep a fixed number of boxes: then strided views do instead of gathering
    uniform = int(counts[0]) if len(counts) and bool((counts == counts[0]).all()) else 0
    return offsets[:-1], counts, uniform


def _every(window: Tensor, step: int, begin: int, frames: int) -> Tensor:
    """The windows that start at place `begin` of each frame of `step` values."""
    return window[begin::step][:frames]
