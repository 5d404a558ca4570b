"""What the columns of a pool must be like: their shapes, types and devices, and the ids of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH

FRAME_COLUMNS = ("indices", "frame_embeddings")
"""The columns with a row a frame."""
BOX_COLUMNS = ("boxes", "labels", "scores", "probabilities", "box_embeddings")
"""The columns of boxes: all have a row a box, but `box_embeddings` has one a box that is `embedded`."""
COLUMNS = ("offsets", *FRAME_COLUMNS, *BOX_COLUMNS, "embedded")
_INTEGER_COLUMNS = ("indices", "labels")
_WIDTHS = {"boxes": 4}
_VECTOR_COLUMNS = ("indices", "labels", "scores", "embedded")


T = TypeVar("T")


def rows_of(name: str, *, frames: T, boxes: T, embedded: T) -> T:
    """Of three things, the one that goes with the rows of a column: those of frames, of boxes or of embedded boxes.

    >>> rows_of("labels", frames=2, boxes=9, embedded=4), rows_of("box_embeddings", frames=2, boxes=9, embedded=4)
    (9, 4)
    """
    if name in FRAME_COLUMNS:
        return frames
    return embedded if name == "box_embeddings" else boxes


def check_frame_ids(frame_ids: Sequence[str]) -> None:
    """Raise an `InvalidInputError` if ids are no distinct strings of a length that is allowed."""
    seen: set[str] = set()
    for row, frame_id in enumerate(frame_ids):
        if not isinstance(frame_id, str) or not 1 <= len(frame_id) <= MAX_FRAME_ID_LENGTH:
            raise InvalidInputError(
                f"`frame_ids` must be strings of 1 to {MAX_FRAME_ID_LENGTH} characters; got {frame_id!r} in row {row}"
            )
        if frame_id in seen:
            raise InvalidInputError(f"`frame_ids` must be distinct; got {frame_id!r} again in row {row}")
        seen.add(frame_id)


def check_offsets(offsets: Tensor, frames: int) -> None:
    """Raise an `InvalidInputError` if offsets are not (frames + 1,) int64 that begin at 0 and never fall."""
    if not isinstance(offsets, Tensor) or offsets.dtype != torch.int64:
        got = offsets.dtype if isinstance(offsets, Tensor) else type(offsets).__name__
        raise InvalidInputError(f"`offsets` must be an int64 tensor; got {got}")
    if offsets.shape != (frames + 1,):
        raise InvalidInputError(f"`offsets` must be (F+1,) with F={frames} frame ids; got {tuple(offsets.shape)}")
    if int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()):
        raise InvalidInputError("`offsets` must start at 0 and never fall")


def check_column(name: str, column: Tensor, *, rows: int, device: torch.device, marked: bool = False) -> None:
    """Raise an `InvalidInputError` if a column has not so many `rows`, or another shape, type or device.

    Args:
        name: of the column.
        column: its values.
        rows: how many there must be.
        device: where it must be.
        marked: whether only some boxes are embedded, which `box_embeddings` then has its rows for.
    """
    if not isinstance(column, Tensor):
        raise InvalidInputError(f"`{name}` must be a tensor; got {type(column).__name__}")
    letter = rows_of(name, frames="F", boxes="B", embedded="K" if marked else "B")
    what = {"F": f"F={rows} frame ids", "B": f"B={rows} boxes from `offsets`", "K": f"K={rows} boxes `embedded`"}[
        letter
    ]
    width = _WIDTHS.get(name)
    if name in _VECTOR_COLUMNS:
        fits, expected = column.shape == (rows,), f"({letter},)"
    else:
        fits = column.ndim == 2 and column.shape[0] == rows and column.shape[1] == (width or column.shape[1])
        expected = f"({letter}, {width or {'probabilities': 'C', 'box_embeddings': 'E'}.get(name, 'D')})"
    if not fits:
        raise InvalidInputError(f"`{name}` must be {expected} with {what}; got {tuple(column.shape)}")
    if name in _INTEGER_COLUMNS:
        if column.dtype != torch.int64:
            raise InvalidInputError(f"`{name}` must be int64; got {column.dtype}")
    elif name == "embedded":
        if column.dtype != torch.bool:
            raise InvalidInputError(f"`{name}` must be bool; got {column.dtype}")
    elif not column.is_floating_point():
        raise InvalidInputError(f"`{name}` must be floating point; got {column.dtype}")
    if column.device != device:
        raise InvalidInputError(f"`{name}` must be on {device}, where `offsets` is; got {column.device}")


def as_rows(rows: Sequence[int] | Tensor, frames: int, device: torch.device) -> Tensor:
    """(n,) int64 positions, each in [0, frames) and at most once. Raises InvalidInputError for anything else."""
    picked = torch.as_tensor(rows, device=device)
    if picked.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    if picked.ndim != 1 or picked.is_floating_point() or picked.dtype == torch.bool:
        raise InvalidInputError(f"`rows` must be a vector of integers; got {tuple(picked.shape)} of {picked.dtype}")
    picked = picked.to(torch.int64)
    low, high = torch.aminmax(picked)
    if int(low) < 0 or int(high) >= frames:
        raise InvalidInputError(f"`rows` must be in [0, {frames}); got {int(low)} to {int(high)}")
    if bool((picked.sort().values.diff() == 0).any()):
        raise InvalidInputError("`rows` must not hold a row twice")
    return picked
