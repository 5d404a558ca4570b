"""`Points`: N vectors as the vector strategies see them, in memory, on the disk, or made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

# Numbers of points that are held at a time.
_BLOCK_ELEMENTS = 2**20


@runtime_checkable
class Points(Protocol):
    """N vectors of D numbers. A (N, D) tensor is one, also of half precision, or mapped from the disk.

    The strategies hold some rows at a time, and never a copy of all. So any object will do that gives these.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the rows that it gives are."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """(r, D) float, the vectors at (r,) int64 `rows` or of a slice."""
        ...


def blocks_of(points: Points, rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """All points in order, some at a time.

    Args:
        points: (N, D).
        rows: so many at a time; None: as many as make a block of bounded size.

    Yields:
        Which rows, and the (r, D) vectors.
    """
    step = max(_BLOCK_ELEMENTS // max(points.shape[1], 1), 1) if rows is None else rows
    for begin in range(0, len(points), step):
        block = slice(begin, min(begin + step, len(points)))
        yield block, points[block]


class Joined:
    """Points, and after them a few others that are in memory, as one.

    Attributes:
        points: (N, D).
        others: (M, D).
    """

    def __init__(self, points: Points, others: Tensor) -> None:
        self.points, self.others = points, others

    def __len__(self) -> int:
        return len(self.points) + len(self.others)

    @property
    def shape(self) -> tuple[int, int]:
        """(N + M, D)."""
        return len(self), self.points.shape[1]

    @property
    def device(self) -> torch.device:
        """That of the points."""
        return self.points.device

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        known = len(self.points)
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self))
            if step == 1 and end <= known:
                return self.points[rows].float()
            rows = torch.arange(begin, end, step, device=self.device)
        result = torch.empty(len(rows), self.shape[1], device=self.device)
        ours = rows < known
        result[ours] = self.points[rows[ours]].float()
        result[~ours] = self.others[rows[~ours] - known].to(result)
        return result


class Taken:
    """Some rows of other points, in any order, as points of their own."""

    def __init__(self, points: Points, rows: Tensor) -> None:
        self.points, self.rows = points, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(how many rows, D)."""
        return len(self), self.points.shape[1]

    @property
    def device(self) -> torch.device:
        """That of the points."""
        return self.points.device

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return self.points[self.rows[rows]]
