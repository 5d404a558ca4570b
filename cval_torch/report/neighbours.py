"""Which annotated or chosen frame is nearest to a chosen one, and which frames of the pool it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.strategies.descriptor import Descriptors, beside
from cval_torch.strategies.nearest import squared_distances

NEAR = 0.25
"""Frames are near-duplicates within this share of the median distance between two frames of the pool."""

_BLOCK = 1024
_MEDIAN_FRAMES = 1000


@dataclass(frozen=True)
class Near:
    """A frame near another one.

    Attributes:
        distance: Euclidean, between `frame_descriptors`.
        row: in the pool of annotated frames, or in that of the frames chosen from.
        is_annotated: whether it is an annotated frame.
    """

    distance: float
    row: int
    is_annotated: bool = False


class Places:
    """Where the frames of a pool and the annotated ones lie.

    Args:
        pool: F frames, with embeddings.
        annotated: L annotated frames, by the same model; None: none are known.

    Raises:
        InvalidInputError: there are no embeddings, or those of the two differ.
    """

    def __init__(self, pool: Pool, annotated: Pool | None) -> None:
        theirs = None if annotated is None else Descriptors.of(annotated, part=True)
        self.ours, self.theirs = beside(Descriptors.of(pool), theirs)
        self._frame_ids = pool.frame_ids

    def median_distance(self) -> float:
        """Between two frames of the pool, of at most 1,000 drawn by the order of their ids; 0 for fewer than two."""
        rows = torch.tensor(sorted(range(len(self.ours)), key=self._frame_ids.__getitem__), dtype=torch.int64)
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:_MEDIAN_FRAMES]]
        return float(torch.pdist(self.ours[rows].double()).median()) if len(rows) > 1 else 0.0

    def nearest_before(self, chosen: Tensor) -> list[Near | None]:
        """Of each of (n,) chosen rows the nearest frame that was annotated, or chosen before it; None for no frame."""
        points = self.ours[chosen].double()
        distances = squared_distances(points, points)
        later = torch.ones_like(distances, dtype=torch.bool).triu()
        best, places = distances.masked_fill(later, torch.inf).min(1)
        is_annotated = torch.zeros(len(chosen), dtype=torch.bool)
        rows = chosen[places].clone()
        if self.theirs is not None:
            for begin in range(0, len(self.theirs), _BLOCK):
                found, where = squared_distances(points, self.theirs[begin : begin + _BLOCK].double()).min(1)
                nearer = found < best
                best, rows = torch.where(nearer, found, best), torch.where(nearer, where + begin, rows)
                is_annotated |= nearer
        return [
            None if value == torch.inf else Near(value**0.5, row, annotated)
            for value, row, annotated in zip(best.tolist(), rows.tolist(), is_annotated.tolist(), strict=True)
        ]

    def stands_for(self, chosen: Tensor, radius: float) -> list[list[Near]]:
        """Of each of (n,) chosen rows the frames not chosen within `radius` that are nearest to it, nearest first.

        A frame is listed once, under the chosen frame that is nearest to it.
        """
        points = self.ours[chosen].double()
        is_chosen = torch.zeros(len(self.ours), dtype=torch.bool)
        is_chosen[chosen] = True
        found: list[list[Near]] = [[] for _ in range(len(chosen))]
        for begin in range(0, len(self.ours), _BLOCK):
            rows = torch.arange(begin, min(begin + _BLOCK, len(self.ours)))
            rows = rows[~is_chosen[rows]]
            block = self.ours[rows].double()
            best, owners = squared_distances(block, points, (block * block).sum(1)).min(1)
            for place in (best <= radius**2).nonzero().squeeze(1).tolist():
                found[int(owners[place])].append(Near(float(best[place]) ** 0.5, int(rows[place])))
        return [sorted(each, key=lambda near: (near.distance, self._frame_ids[near.row])) for each in found]

    def vectors(self, rows: Tensor, annotated: Sequence[int]) -> Tensor:
        """(r + a, D) float64: some frames of the pool, and after them some annotated ones."""
        parts = [self.ours[rows].double()]
        if self.theirs is not None and annotated:
            parts.append(self.theirs[list(annotated)].double())
        return torch.cat(parts)
