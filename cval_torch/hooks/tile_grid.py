"""How an image is cut into overlapping tiles of one size, and which of their boxes are of one and the same object."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_NEAR_EDGE = 0.02  # of a tile's side; detectors do not put the edge of a cut object to the pixel


class _Found(NamedTuple):
    """The boxes of all tiles: whether their tile cuts them, and their places in the order in which they are taken."""

    boxes: Tensor
    labels: Tensor
    tiles: Tensor
    cut: Tensor
    places: Tensor


@dataclass(frozen=True)
class TileGrid:
    """The tiles of one image, row by row.

    Attributes:
        size: (height, width) of the image.
        tile: (height, width) of every tile.
        tops, lefts: where tiles begin, in pixels, increasing.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @classmethod
    def over(cls, height: int, width: int, tile: int, overlap: int) -> TileGrid:
        """Tiles of `tile` pixels, or of the image's side where that is smaller, which overlap by `overlap` or more.

        The last tile of a row or column is moved inwards, so that it is whole.

        >>> TileGrid.over(100, 250, 100, 20).lefts
        (0, 80, 150)
        """
        tops, lefts = begins(height, tile, overlap), begins(width, tile, overlap)
        return cls((height, width), (min(tile, height), min(tile, width)), tops, lefts)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def corners(self) -> list[tuple[int, int]]:
        """(top, left) of each tile."""
        return [(top, left) for top in self.tops for left in self.lefts]

    def shares(self) -> Tensor:
        """(T,) float64, how much of the image each tile stands for; they sum to 1.

        A pixel in several tiles belongs to each of them in equal parts.
        """
        down = _shares(self.size[0], self.tile[0], self.tops)
        across = _shares(self.size[1], self.tile[1], self.lefts)
        return (down[:, None] * across[None]).flatten()

    def is_cut(self, boxes: Tensor, tiles: Tensor) -> Tensor:
        """(B,) bool, whether boxes reach the edge of their tile where the image goes on behind it.

        Args:
            boxes: (B, 4) xyxy in pixels of the image.
            tiles: (B,) int64, the tile of each.
        """
        begin = torch.tensor([(left, top) for top, left in self.corners], dtype=boxes.dtype)[tiles]
        sides = torch.tensor(self.tile[::-1], dtype=boxes.dtype)
        end, image = begin + sides, torch.tensor(self.size[::-1], dtype=boxes.dtype)
        margin = _NEAR_EDGE * sides
        before = (boxes[:, :2] <= begin + margin) & (begin > 0)
        behind = (boxes[:, 2:] >= end - margin) & (end < image)
        return (before | behind).any(1)

    def kept_rows(self, boxes: Tensor, labels: Tensor, scores: Tensor, tiles: Tensor, iou: float) -> Tensor:
        """The boxes that are left of all tiles, the highest score first; each object is meant to be there once.

        A box is compared with boxes of the same class of other tiles alone, because of its own tile the detector has
        suppressed what it would. Boxes that their tile does not cut come first, those with higher scores before
        others. A box is dropped if one that is kept overlaps it by more than `iou`. Of a box that is cut, also if so
        much of its own area lies in the other: it is a part of an object that the other tile has whole.

        Args:
            boxes: (B, 4) xyxy in pixels of the image.
            labels: (B,) int64.
            scores: (B,).
            tiles: (B,) int64, the tile of each, increasing.
            iou: in (0, 1].

        Returns:
            (K,) int64 rows, on the CPU.
        """
        boxes, labels, scores, tiles = boxes.cpu().float(), labels.cpu(), scores.cpu(), tiles.cpu()
        by_score = scores.argsort(descending=True, stable=True)
        cut = self.is_cut(boxes, tiles)
        order = by_score[cut[by_score].long().argsort(stable=True)]
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order))
        alive = torch.ones(len(order), dtype=torch.bool)
        found = _Found(boxes, labels, tiles, cut, places)
        drops = [self._drops(pair, found, iou) for pair in self._neighbours()]
        for place, dropped in sorted(drop for of_pair in drops for drop in of_pair):
            if alive[order[place]]:
                alive[order[dropped]] = False
        return by_score[alive[by_score]]

    def _neighbours(self) -> list[tuple[int, int]]:
        """Pairs of tiles that share pixels, the lower number first."""
        down, across = self.tile
        return [
            (one, other)
            for (one, (top, left)), (other, (top_2, left_2)) in itertools.combinations(enumerate(self.corners), 2)
            if abs(top - top_2) < down and abs(left - left_2) < across
        ]

    def _drops(self, pair: tuple[int, int], found: _Found, iou: float) -> list[tuple[int, int]]:
        """Which box of two tiles drops which, if it is kept itself: the place of each in the order."""
        boxes, labels, tiles, cut, places = found
        one, other = (self._reaching(boxes, tiles, mine, into) for mine, into in (pair, pair[::-1]))
        corner = torch.maximum(boxes[one, None, :2], boxes[other, :2])
        shared = (torch.minimum(boxes[one, None, 2:], boxes[other, 2:]) - corner).clamp_min(0).prod(2)
        areas = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-6).prod(1)
        overlap = shared / (areas[one, None] + areas[other] - shared)
        is_first = places[one, None] < places[other]
        of_cut = torch.where(
            is_first, (shared / areas[other]).where(cut[other], 0), (shared / areas[one, None]).where(cut[one, None], 0)
        )
        pairs = ((torch.maximum(overlap, of_cut) > iou) & (labels[one, None] == labels[other])).nonzero()
        rows = torch.stack([places[one[pairs[:, 0]]], places[other[pairs[:, 1]]]], dim=1).sort(dim=1).values
        return [(first, second) for first, second in rows.tolist()]

    def _reaching(self, boxes: Tensor, tiles: Tensor, mine: int, into: int) -> Tensor:
        """The rows of the boxes of one tile that reach into another."""
        top, left = self.corners[into]
        bottom, right = top + self.tile[0], left + self.tile[1]
        begin, end = torch.tensor([left, top]), torch.tensor([right, bottom])
        rows = (tiles == mine).nonzero().flatten()
        return rows[((boxes[rows, :2] < end) & (boxes[rows, 2:] > begin)).all(1)]


def begins(side: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Where tiles begin along a side, in pixels."""
    last = max(side - tile, 0)
    step = tile - overlap
    return (*range(0, last, step), last)


def _shares(side: int, tile: int, starts: tuple[int, ...]) -> Tensor:
    covered = torch.zeros(side, dtype=torch.float64)
    for start in starts:
        covered[start : start + tile] += 1
    return torch.stack([(1 / covered[start : start + tile]).sum() / side for start in starts])
