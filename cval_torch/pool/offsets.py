"""Arithmetic of ragged columns: where the rows of each frame lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_CHUNK_BOXES = 2**22


def offsets_of(counts: Tensor) -> Tensor:
    """Where frames begin and the last one ends, (F+1,) int64, given how many rows each has."""
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def places_of(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where what belongs to some frames lies, and the offsets of these frames by themselves.

    Args:
        offsets: (F+1,) int64 of all frames.
        rows: (n,) int64, the frames, in the order wanted.

    >>> places_of(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0]))
    (tensor([2, 3, 4, 0, 1]), tensor([0, 3, 5]))
    """
    counts = offsets[rows + 1] - offsets[rows]
    theirs = offsets_of(counts)
    # the start of each one's frame, less where that begins among these, plus its number among these
    shifts = (offsets[rows] - theirs[:-1]).repeat_interleave(counts)
    return shifts + torch.arange(len(shifts), device=shifts.device), theirs


def offsets_among(offsets: Tensor, marks: Tensor) -> Tensor:
    """Where frames begin and the last one ends, (F+1,) int64, if only the rows that are marked count.

    Args:
        offsets: (F+1,) int64 of all rows.
        marks: (B,) bool.

    >>> offsets_among(torch.tensor([0, 2, 2, 5]), torch.tensor([True, False, True, True, False]))
    tensor([0, 1, 1, 3])
    """
    counted = torch.zeros_like(offsets)
    for begin, end in chunks(offsets, boxes=_CHUNK_BOXES):  # marks may be mapped from the disk, and many
        own = offsets[begin : end + 1]
        counted[begin + 1 : end + 1] = offsets_of(marks[own[0] : own[-1]])[own[1:] - own[0]] + counted[begin]
    return counted


def rows_in_parts(rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Where rows of a whole lie in the parts that make it up, one after another.

    Args:
        rows: (n,) int64, rising.
        sizes: the rows of each part.

    >>> [part.tolist() for part in rows_in_parts(torch.tensor([0, 3, 4]), [2, 1, 2])]
    [[0], [], [0, 1]]
    """
    ends = torch.tensor(list(itertools.accumulate(sizes, initial=0)), dtype=torch.int64, device=rows.device)
    cuts = torch.searchsorted(rows, ends).tolist()
    begins = ends.tolist()
    return [rows[first:last] - begin for (first, last), begin in zip(itertools.pairwise(cuts), begins, strict=False)]


def chunks(offsets: Tensor, *, boxes: int) -> Iterator[tuple[int, int]]:
    """Ranges `begin, end` of frames that together are all, in order.

    A range holds fewer than `2 * boxes` boxes, but for the frames that alone hold more than `boxes`.

    >>> list(chunks(torch.tensor([0, 2, 2, 4, 5]), boxes=2))
    [(0, 2), (2, 3), (3, 4)]
    """
    frames = len(offsets) - 1
    targets = torch.tensor(range(boxes, int(offsets[-1]), boxes), dtype=torch.int64, device=offsets.device)
    holding = torch.searchsorted(offsets, targets, right=True).sub_(1)  # the frame that holds each target box
    yield from itertools.pairwise(sorted({*holding.clamp_min_(1).tolist(), 0, frames}))
