"""From rough scores of boxes to rough scores of frames: `min`, `max`, `mean` and `sum` at little more than a read.

Unlike the reductions of `strategies.reduce`, additions are made in float32 and in any order. What that may cost is part
of the radius.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cval_torch.pool.offsets import chunks
from cval_torch.pool.pool import Pool
from cval_torch.selection.rough_scores import Floats, RoughScores, Workspace, row_sums

# Elements of a column that are worked on at a time: what is made of them stays in the caches of a CPU, and the cost
# of the calls hardly matters.
_CHUNK_ELEMENTS = 2**19
# In frames with more boxes than this, scores are added up in float64.
_MANY_BOXES = 4096

_PAIRWISE: dict[str, np.ufunc] = {"min": np.minimum, "max": np.maximum}


def rough_frames(pool: Pool, boxes: RoughScores, policy: str) -> tuple[Floats, Floats | float]:
    """Rough scores of frames.

    Args:
        pool: F frames, on the CPU.
        boxes: how their boxes are scored.
        policy: the `bbox_selection_policy`, a name.

    Returns:
        (F,) rough scores, on the scale of those of `boxes`; and how far each may be from the exact one, a number for
        all frames or (F,).
    """
    counts: npt.NDArray[np.int64] = pool.counts.numpy()
    least, most = int(counts.min()), int(counts.max())
    width = 1 if boxes.column.ndim == 1 else boxes.column.shape[1]
    offsets: npt.NDArray[np.int64] = pool.offsets.numpy()
    work, reduced = Workspace(), np.empty(len(pool), np.float32)
    for begin, end in chunks(pool.offsets, boxes=max(_CHUNK_ELEMENTS // width, 1)):
        first, out = offsets[begin], reduced[begin:end]
        values = boxes.function(boxes.column[first : offsets[end]])
        if least == most <= _MANY_BOXES:
            _reduce_every(most, policy, values, work, out=out)
        else:
            _reduce_ragged(policy, values, offsets[begin:end] - first, out=out, wide=most > _MANY_BOXES)
    sizes: Any = np.maximum(counts, 1).astype(np.float32) if least < most else float(most)
    if policy == "mean":
        np.divide(reduced, sizes, out=reduced)
    if least == 0:
        reduced[counts == 0] = boxes.null
    if policy in _PAIRWISE:
        return reduced, boxes.radius
    # each addition, and what follows, rounds a sum of numbers of at most 1
    each = boxes.radius + (min(most, _MANY_BOXES) + 8) * 2.0**-23
    if policy == "mean":
        return reduced, each
    return reduced, sizes * each


def _reduce_every(count: int, policy: str, values: Floats, work: Workspace, *, out: Floats) -> None:
    """Every `count` values to one; sums for `mean` too."""
    if policy not in _PAIRWISE:
        row_sums(values.reshape(-1, count), work, out=out)
        return
    pairwise, window, width = _PAIRWISE[policy], values, 1  # window[i] is the extreme of values[i : i + width]
    while 2 * width <= count:
        into = work.floats(f"window {width.bit_length() % 2}", len(window) - width)
        window, width = pairwise(window[:-width], window[width:], out=into), 2 * width
    # two windows that overlap cover a frame
    pairwise(window[::count][: len(out)], window[count - width :: count][: len(out)], out=out)


def _reduce_ragged(policy: str, values: Floats, starts: npt.NDArray[np.int64], *, out: Floats, wide: bool) -> None:
    """From where each frame's values start, to one number a frame; of frames without boxes, to any."""
    within = int(np.searchsorted(starts, len(values)))  # frames without boxes at the end start where values end
    out[within:] = 0
    if within:
        dtype = np.float64 if wide and policy not in _PAIRWISE else np.float32
        _PAIRWISE.get(policy, np.add).reduceat(values, starts[:within], dtype=dtype, out=out[:within])
