"""`Spacing`: frames of a pool that keep a distance, in memory of their descriptors and little more."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.selection.labeled import Labeled, vectors_of
from cval_torch.strategies.columns import DESCRIBED
from cval_torch.strategies.descriptor import Descriptors, beside, classes_of
from cval_torch.strategies.points import blocks_of

_BLOCK_FRAMES = 1024


class Spacing:
    """Takes frames one after another, and passes over those that are nearer than `distance` to one taken before.

    Distances are Euclidean, between `frame_descriptors`, and computed in float64: right to some 1e-7.

    Args:
        points: (F, D), where the frames lie.
        distance: frames that are nearer than this are too near.
        labeled: (L, D), where frames lie that are as good as taken.
    """

    def __init__(
        self, points: Descriptors | _Described, distance: float, *, labeled: Descriptors | None = None
    ) -> None:
        self._points, self._limit = points, distance**2 * (1 - 1e-9)  # just the distance is not nearer, rounded or not
        self._taken: list[Tensor] = []  # (n, E), of at most two blocks each
        self._fresh: list[Tensor] = []  # (1, E), those taken since
        if labeled is not None:
            self._taken += [block for _, block in blocks_of(labeled, _BLOCK_FRAMES)]

    @classmethod
    def of(cls, pool: Pool, distance: float, *, labeled: Pool | Labeled | None = None) -> Spacing:
        """Of the frames of a pool with the columns that descriptors need; they are described when they are asked for.

        Raises:
            InvalidInputError: there are none; or `labeled` has other columns or widths.
        """
        pool = pool.only(DESCRIBED).embedded_boxes()
        with_boxes = (~pool.is_empty).nonzero().squeeze(1)[:1]
        told = Descriptors.of(pool.take(with_boxes), classes=classes_of(pool), part=True)
        ours, theirs = beside(told, vectors_of(labeled))
        return cls(_Described(pool, ours), distance, labeled=theirs)

    def take(self, rows: Tensor) -> None:
        """Take all of (n,) rows, whatever is near them."""
        self._taken += [self._points[block] for block in torch.split(rows, _BLOCK_FRAMES)]

    def pass_over(self, rows: Tensor) -> Iterator[int]:
        """Those of (n,) `rows` that are far enough from all before them, in order; what is yielded is taken.

        Frames are described and compared a block at a time, as far as the iterator is drawn from.
        """
        for block in torch.split(rows, _BLOCK_FRAMES):
            points = self._points[block]
            far = ~self._is_near_taken(points)
            points = points[far]
            near = self._near(points, points).cpu().numpy()
            blocked = np.zeros(len(points), dtype=bool)
            for place, row in enumerate(block[far].tolist()):
                if not blocked[place]:
                    blocked |= near[place]
                    self._fresh.append(points[place : place + 1])
                    yield row

    def _is_near_taken(self, points: Tensor) -> Tensor:
        """(n,) bool."""
        if self._fresh:
            if self._taken and len(self._taken[-1]) < _BLOCK_FRAMES:
                self._fresh.insert(0, self._taken.pop())
            self._taken.append(torch.cat(self._fresh))
            self._fresh = []
        near = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        for block in self._taken:
            near |= self._near(points, block).any(1)
        return near

    def _near(self, points: Tensor, others: Tensor) -> Tensor:
        """(n, m) bool, whether two are nearer than the distance. Of unit vectors float64 keeps seven digits of it."""
        points, others = points.double(), others.double()
        squares = (points * points).sum(1)[:, None] + (others * others).sum(1)
        return torch.addmm(squares, points, others.T, alpha=-2) < self._limit


class _Described:
    """The frames of a pool in the space of `like`, described when they are asked for."""

    def __init__(self, pool: Pool, like: Descriptors) -> None:
        self._pool, self._like = pool, like

    def __getitem__(self, rows: Tensor) -> Tensor:
        return Descriptors.of(self._pool.take(rows), part=True).like(self._like)[:]
