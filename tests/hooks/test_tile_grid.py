"""Where tiles lie, what they stand for, and which of their boxes are of one object, against loops over pixels."""

from __future__ import annotations

import itertools

import pytest
import torch
from torchvision.ops import box_iou

from cval_torch.hooks.tile_grid import TileGrid, begins


@pytest.mark.parametrize(
    ("side", "tile", "overlap", "expected"),
    [
        (100, 100, 20, (0,)),
        (99, 100, 20, (0,)),
        (101, 100, 20, (0, 1)),
        (180, 100, 20, (0, 80)),
        (181, 100, 20, (0, 80, 81)),
        (250, 100, 0, (0, 100, 150)),
        (1, 1, 0, (0,)),
        (3, 1, 0, (0, 1, 2)),
    ],
)
def test_where_tiles_begin(side: int, tile: int, overlap: int, expected: tuple[int, ...]) -> None:
    assert begins(side, tile, overlap) == expected


@pytest.mark.parametrize("height", [1, 63, 64, 65, 150, 201])
@pytest.mark.parametrize("overlap", [0, 10, 40, 63])
def test_tiles_are_whole_cover_the_image_and_overlap(height: int, overlap: int) -> None:
    grid = TileGrid.over(height, 130, 64, overlap)
    covered = torch.zeros(height, 130, dtype=torch.int64)
    for top, left in grid.corners:
        assert 0 <= top <= height - grid.tile[0]
        assert 0 <= left <= 130 - grid.tile[1]
        covered[top : top + grid.tile[0], left : left + grid.tile[1]] += 1
    assert grid.tile == (min(64, height), 64)
    assert len(grid) == len(grid.corners)
    assert covered.min() >= 1
    for starts in (grid.tops, grid.lefts):
        assert all(64 - (after - before) >= overlap for before, after in itertools.pairwise(starts))
    naive = []
    for top, left in grid.corners:
        part = covered[top : top + grid.tile[0], left : left + grid.tile[1]]
        naive.append(float((1 / part.double()).sum()) / (height * 130))
    torch.testing.assert_close(grid.shares(), torch.tensor(naive, dtype=torch.float64))
    assert float(grid.shares().sum()) == pytest.approx(1)


def naive_rows(grid: TileGrid, boxes, labels, scores, tiles, iou: float) -> list[int]:
    """The rule of `kept_rows`, box by box."""
    cut = []
    for box, tile in zip(boxes.tolist(), tiles.tolist(), strict=True):
        top, left = grid.corners[tile]
        bottom, right = top + grid.tile[0], left + grid.tile[1]
        near_y, near_x = 0.02 * grid.tile[0], 0.02 * grid.tile[1]
        cut.append(
            (left > 0 and box[0] <= left + near_x)
            or (top > 0 and box[1] <= top + near_y)
            or (right < grid.size[1] and box[2] >= right - near_x)
            or (bottom < grid.size[0] and box[3] >= bottom - near_y)
        )
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda row: (cut[row], -float(scores[row]), row)):
        for other in kept:
            if labels[other] != labels[row] or tiles[other] == tiles[row]:
                continue
            overlap = float(box_iou(boxes[[other]], boxes[[row]]))
            if cut[row]:
                x1, y1 = torch.maximum(boxes[other, :2], boxes[row, :2]).tolist()
                x2, y2 = torch.minimum(boxes[other, 2:], boxes[row, 2:]).tolist()
                own = float((boxes[row, 2:] - boxes[row, :2]).prod())
                overlap = max(overlap, max(x2 - x1, 0) * max(y2 - y1, 0) / own)
            if overlap > iou:
                break
        else:
            kept.append(row)
    return sorted(kept, key=lambda row: (-float(scores[row]), row))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("overlap", [30, 80])
def test_boxes_of_one_object_are_told_as_by_a_loop(seed: int, overlap: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    grid = TileGrid.over(250, 330, 100, overlap)
    objects = torch.rand(60, 2, generator=generator) * torch.tensor([300.0, 220.0])
    objects = torch.cat([objects, objects + 10 + 40 * torch.rand(60, 2, generator=generator)], dim=1)
    rows = []
    for tile, (top, left) in enumerate(grid.corners):
        low, high = torch.tensor([left, top] * 2), torch.tensor([left + 100, top + 100] * 2)
        noisy = objects + torch.randn(60, 4, generator=generator)
        inside = torch.minimum(torch.maximum(noisy, low), high)
        large = (inside[:, 2:] - inside[:, :2]).min(1).values > 4
        rows += [(box, number % 2, tile) for number, box in enumerate(inside) if large[number]]
    boxes = torch.stack([row[0] for row in rows])
    labels, tiles = torch.tensor([row[1] for row in rows]), torch.tensor([row[2] for row in rows])
    scores = torch.rand(len(rows), generator=generator)
    kept = grid.kept_rows(boxes, labels, scores, tiles, 0.5)
    assert kept.tolist() == naive_rows(grid, boxes, labels, scores, tiles, 0.5)
    assert 20 < len(kept) < len(rows)
    assert scores[kept].diff().max() <= 0


def test_boxes_of_one_tile_never_suppress_each_other() -> None:
    grid = TileGrid.over(100, 180, 100, 20)
    boxes = torch.tensor([[82.0, 10, 97, 30], [82.0, 10, 97, 31], [82.0, 10, 97, 32]])
    scores, labels = torch.tensor([0.5, 0.9, 0.7]), torch.zeros(3, dtype=torch.int64)
    assert grid.kept_rows(boxes, labels, scores, torch.tensor([0, 0, 0]), 0.5).tolist() == [1, 2, 0]
    assert grid.kept_rows(boxes, labels, scores, torch.tensor([0, 0, 1]), 0.5).tolist() == [1, 0]
    assert grid.kept_rows(boxes, torch.tensor([0, 0, 1]), scores, torch.tensor([0, 0, 1]), 0.5).tolist() == [1, 2, 0]


def test_no_boxes() -> None:
    grid = TileGrid.over(100, 180, 100, 20)
    none = torch.zeros(0, dtype=torch.int64)
    assert grid.kept_rows(torch.zeros(0, 4), none, torch.zeros(0), none, 0.5).tolist() == []
