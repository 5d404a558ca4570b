"""`Spacing`: frames of a pool that keep a distance, in memory of their descriptors and little more."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.strategies.descriptor import classes_of, frame_descriptors, in_one_space

_BLOCK_FRAMES = 1024


class Spacing:
    """Takes frames one after another, and passes over those that are nearer than `distance` to one taken before.

    Distances are Euclidean, between `frame_descriptors`, and computed in float64: right to some 1e-7.

    Args:
        pool: F frames with the columns that descriptors need.
        distance: frames that are nearer than this are too near.
        labeled: frames that are as good as taken.
    """

    def __init__(self, pool: Pool, distance: float, *, labeled: Pool | None = None) -> None:
        if labeled is None or len(labeled) == 0:
            labeled, self._classes = None, classes_of(pool)
        else:
            (pool, labeled), self._classes = in_one_space(pool, labeled)
        self._pool, self._limit = pool, distance**2 * (1 - 1e-9)  # just the distance is not nearer, however it rounds
        self._taken: list[Tensor] = []  # (n, E), of at most two blocks each
        self._fresh: list[Tensor] = []  # (1, E), those taken since
        if labeled is not None:
            for rows in torch.split(torch.arange(len(labeled), device=labeled.device), _BLOCK_FRAMES):
                self._taken.append(self._describe(labeled, rows))

    def take(self, rows: Tensor) -> None:
        """Take all of (n,) rows, whatever is near them."""
        self._taken += [self._describe(self._pool, block) for block in torch.split(rows, _BLOCK_FRAMES)]

    def pass_over(self, rows: Tensor) -> Iterator[int]:
        """Those of (n,) `rows` that are far enough from all before them, in order; what is yielded is taken.

        Frames are described and compared a block at a time, as far as the iterator is drawn from.
        """
        for block in torch.split(rows, _BLOCK_FRAMES):
            points = self._describe(self._pool, block)
            far = ~self._is_near_taken(points)
            points = points[far]
            near = self._near(points, points).cpu().numpy()
            blocked = np.zeros(len(points), dtype=bool)
            for place, row in enumerate(block[far].tolist()):
                if not blocked[place]:
                    blocked |= near[place]
                    self._fresh.append(points[place : place + 1])
                    yield row

    def _describe(self, pool: Pool, rows: Tensor) -> Tensor:
        return frame_descriptors(pool.take(rows), classes=self._classes, part=True)

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
