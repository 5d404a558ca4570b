"""How an image is cut into overlapping tiles of one size, and which of their boxes are of one and the same object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

_NEAR_EDGE = 0.02  # of a tile's side; detectors do not put the edge of a cut object to the pixel


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

    def _in_several(self, boxes: Tensor, tiles: Tensor) -> Tensor:
        """(B,) bool, whether boxes reach into a part of their tile that another tile has too."""
        shared = torch.zeros(len(boxes), dtype=torch.bool)
        places = (tiles % len(self.lefts), tiles // len(self.lefts))
        for axis, (place, starts) in enumerate(zip(places, (self.lefts, self.tops), strict=True)):
            side = self.tile[1 - axis]
            ends_before = torch.tensor([-torch.inf, *(start + side for start in starts[:-1])])
            begins_behind = torch.tensor([*starts[1:], torch.inf])
            shared |= (boxes[:, axis] < ends_before[place]) | (boxes[:, axis + 2] > begins_behind[place])
        return shared

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
        alive = torch.ones(len(order), dtype=torch.bool)
        shared = order[self._in_several(boxes, tiles)[order]]
        for label in sorted(set(labels[shared].tolist())):
            rows = shared[labels[shared] == label]
            alive[rows] = _first_ones(_drops(boxes[rows], tiles[rows], cut[rows], iou))
        return by_score[alive[by_score]]


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


def _drops(boxes: Tensor, tiles: Tensor, cut: Tensor, iou: float) -> Tensor:
    """(B, B) bool, whether box i drops box j, which comes behind it."""
    overlap = box_iou(boxes, boxes)
    corners = (
        torch.maximum(boxes[:, None, :2], boxes[None, :, :2]),
        torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]),
    )
    inside = (corners[1] - corners[0]).clamp_min(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-9).prod(1)
    overlap = torch.where(cut[None], torch.maximum(overlap, inside / areas[None]), overlap)
    return ((overlap > iou) & (tiles[:, None] != tiles[None])).triu(1)


def _first_ones(drops: Tensor) -> Tensor:
    """(B,) bool, what is left when each box that is left drops others, in order."""
    alive = torch.ones(len(drops), dtype=torch.bool)
    for row in drops.any(1).nonzero().flatten().tolist():
        if alive[row]:
            alive &= ~drops[row]
    return alive
