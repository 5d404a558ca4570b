"""Which query of a DETR-like detector each of its output's rows came from.

The output of such a detector has logits and boxes, one row a query. A forward hook or a subclass may sort or filter
these rows, while what the decoder knows of the queries stays in its order. So a row is paired with its query by its
logits: they are equal, number by number, to those that the class head returned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cval_torch.errors import HookError


def states_of(states: Tensor, recorded: Tensor, logits: Tensor, frames: Tensor, rows: Tensor) -> Tensor:
    """The decoder's states of some rows of the detector's output.

    Queries of one frame with the same logits are handed out in their order.

    Args:
        states: (N, Q, D), what the class head was given.
        recorded: (N, Q, C), the logits it returned.
        logits: (N, R, C) of the detector's output.
        frames: (B,) int64, the frame of each row that is wanted.
        rows: (B,) int64, its place among the R.

    Returns:
        (B, D).

    Raises:
        HookError: a row has the logits of no query, or two rows are one query's.
    """
    if torch.equal(recorded, logits):
        return states[frames, rows]
    if recorded.shape[0] != logits.shape[0] or recorded.shape[2] != logits.shape[2]:
        raise HookError(
            f"the class head returned logits {tuple(recorded.shape)}, and the detector's output has logits "
            f"{tuple(logits.shape)}: these are of other frames or classes. Remove what changes the detector's output, "
            "or read it by an adapter of your own (`adapter=`)"
        )
    queries = torch.empty_like(rows)
    for frame in sorted(set(frames.tolist())):
        of_frame = frames == frame
        queries[of_frame] = _queries(recorded[frame], logits[frame, rows[of_frame]], frame, rows[of_frame].tolist())
    return states[frames, queries]


def _queries(recorded: Tensor, wanted: Tensor, frame: int, rows: Sequence[int]) -> Tensor:
    """(K,) the query of each of K vectors `wanted (K, C)` among `recorded (Q, C)`."""
    free = torch.ones(len(recorded), dtype=torch.bool, device=recorded.device)
    queries = []
    for vector, row in zip(wanted, rows, strict=True):
        fitting = ((recorded == vector).all(1) & free).nonzero()
        if not len(fitting):
            raise HookError(
                f"row {row} of the detector's output for image {frame} of the batch has the logits of no query: "
                "something changed or repeated them after the class head, such as a forward hook or a subclass. "
                "Remove it, or read the output by an adapter of your own (`adapter=`)"
            )
        queries.append(fitting[0, 0])
        free[queries[-1]] = False
    return torch.stack(queries)
