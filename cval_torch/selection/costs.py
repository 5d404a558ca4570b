"""What frames cost to annotate, in boxes or minutes, and how far budgets go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cval_torch.pool.offsets import chunks, places_of
from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.reduce import sum as sum_of_frames

SHOWN = 0.5
"""A frame shows a class of which at least so many objects are expected in it."""

# Scores are float32 as a rule: 0.1 and 0.2 and 0.7 come to a little more than 1.
_ROUNDING = 1e-6

_CHUNK_BOXES = 2**22


def estimated_boxes(pool: Pool, *, rows: Tensor | None = None, label: int | None = None) -> Tensor:
    """The boxes that an annotator may be expected to draw in each frame.

    The sum of the scores of a frame's boxes: if a box of score 0.7 is right seven times in ten, as of a calibrated
    detector, it is the expected number of objects found. A low score threshold hardly changes it, which adds many
    boxes of small scores, where the number of boxes would rise without end.

    Args:
        pool: F frames. Without `scores` every box counts as 1.
        rows: (n,) int64, only these frames; None is all.
        label: only boxes of this class; needs `labels`, unless there are no boxes.

    Returns:
        (F,) or (n,) float64, 0 or more; 0 for a frame without boxes.

    >>> pool = Pool(["a", "b"], torch.tensor([0, 2, 3]), scores=torch.tensor([0.5, 0.25, 1.0]))
    >>> estimated_boxes(pool).tolist()
    [0.75, 1.0]
    """
    scores, labels, all_offsets = pool.scores, pool.labels, pool.offsets
    if rows is not None:
        boxes, all_offsets = places_of(pool.offsets, rows)
        scores, labels = (None if column is None else column[boxes] for column in (scores, labels))
    costs = torch.zeros(len(all_offsets) - 1, dtype=torch.float64, device=pool.device)
    for begin, end in chunks(all_offsets, boxes=_CHUNK_BOXES):
        offsets = all_offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        values = costs.new_ones(last - first) if scores is None else scores[first:last].double()
        if label is not None and labels is not None:
            values = values.masked_fill(labels[first:last] != label, 0)
        costs[begin:end] = sum_of_frames(values, offsets - first)
    return costs


def total(costs: Tensor) -> float:
    """The sum of (n,) costs, to the last bit the same in any order."""
    return math.fsum(costs.tolist())


def within(costs: Tensor, budget: float) -> bool:
    """Whether frames of (n,) costs together cost no more than `budget`, but for rounding (one in a million)."""
    return total(costs) <= budget * (1 + _ROUNDING)


def budgets(stage: DetectionSampling, boxes: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Each budget of a stage: what frames cost of it, and how much there is.

    Args:
        stage: says how many boxes and minutes there are, and what takes how long.
        boxes: (n,) the boxes to be expected in each frame.

    Yields:
        (n,) costs, 0 or more, and the budget in the same unit.

    >>> stage = DetectionSampling(selection_strategy="auto", num_of_minutes=9, seconds_per_frame=15, seconds_per_box=15)
    >>> [(costs.tolist(), budget) for costs, budget in budgets(stage, torch.tensor([0.0, 2.0]))]
    [([0.25, 0.75], 9.0)]
    """
    if stage.num_of_boxes is not None:
        yield boxes, stage.num_of_boxes
    if stage.num_of_minutes is not None:
        none, one = stage.minutes(0, frames=1), stage.minutes(1, frames=0)
        yield none + one * boxes, stage.num_of_minutes


def affordable(stage: DetectionSampling, boxes: Tensor) -> bool:
    """Whether frames with (n,) `boxes` together keep every budget of a stage."""
    return all(within(costs, budget) for costs, budget in budgets(stage, boxes))


def largest_fitting(fits: Callable[[int], bool], most: int, *, guess: int) -> int:
    """A number n for which `fits(n)` and not `fits(n + 1)`: the largest that fits, if all below it fit too.

    Args:
        fits: is asked near `guess` first, then in steps that double, then by bisection: about `log2(guess)` times.
        most: n is at most this, and `fits(most + 1)` is not asked.
        guess: where to begin.

    Returns:
        1 to `most`; 1 if none was met that fits.

    >>> largest_fitting(lambda n: n * n <= 50, 100, guess=30)
    7
    """
    low, high = 0, most + 1
    n, step = min(max(guess, 1), most), max(guess // 8, 1)
    while high - low > 1:
        if fits(n):
            low = n
        else:
            high = n
        if high > most:
            n = min(low + step, most)
        elif low == 0:
            n = max(high - step, 1)
        else:
            n = (low + high) // 2
        step *= 2
    return max(low, 1)
