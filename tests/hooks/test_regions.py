"""Means over frames and boxes beside loops over cells, and pixels beside torchvision's own resizing."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import clip_boxes_to_image

from cval_torch.hooks.regions import FrameSizes, box_means, deepest_level, frame_means

SIZES = FrameSizes(original=[(100, 150), (333, 77)], resized=[(48, 72), (96, 22)], padded=(96, 96))


def some_boxes(count: int, limit: float = 120.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, 2, generator=generator).mul(limit).sub(10)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_boxes_go_to_original_pixels_as_torchvision_takes_them(dtype):
    boxes, frames = some_boxes(40).to(dtype), torch.arange(40) % 2
    found = SIZES.in_original(SIZES.clipped(boxes, frames), frames)
    for frame in range(2):
        own = clip_boxes_to_image(boxes[frames == frame], SIZES.resized[frame])
        expected = resize_boxes(own, SIZES.resized[frame], SIZES.original[frame])
        torch.testing.assert_close(found[frames == frame], expected, rtol=0, atol=0)
    back = SIZES.in_padded(found, frames)
    tolerance = 1e-4 if dtype != torch.bfloat16 else 1.0
    torch.testing.assert_close(back, SIZES.clipped(boxes, frames).float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("cells", "height"), [(6, 16), (7, 96 / 7), (1, 96)])
def test_frame_means_beside_a_loop(cells, height):
    feature_map = torch.randn(2, 3, cells, cells)
    found = frame_means(feature_map, SIZES)
    for frame, (rows, columns) in enumerate(SIZES.resized):
        inside = [
            feature_map[frame, :, row, column]
            for row in range(cells)
            for column in range(cells)
            if row * height < rows and column * height < columns
        ]
        torch.testing.assert_close(found[frame], torch.stack(inside).mean(0))
    assert frame_means(feature_map.bfloat16(), SIZES).dtype == torch.float32


def bilinear(cells: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """(D,) of (D, h, w) at a point, cell centres on whole numbers; the border goes on outside."""
    height, width = cells.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(math.floor(y), height - 2), min(math.floor(x), width - 2)
    down, right = y - top, x - left
    upper = cells[:, top, left] * (1 - right) + cells[:, top, left + 1] * right
    lower = cells[:, top + 1, left] * (1 - right) + cells[:, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def sampled(cells: torch.Tensor, box: list[float], padded: tuple[int, int]) -> torch.Tensor:
    height, width = cells.shape[1:]
    x0, x1 = (value * width / padded[1] for value in box[0::2])
    y0, y1 = (value * height / padded[0] for value in box[1::2])
    points = [(y0 + (y1 - y0) * j, x0 + (x1 - x0) * i) for j in (0.25, 0.75) for i in (0.25, 0.75)]
    return torch.stack([bilinear(cells, y - 0.5, x - 0.5) for y, x in points]).mean(0)


@pytest.mark.parametrize("leveled", [True, False])
def test_box_means_beside_a_loop(leveled):
    maps = [torch.randn(2, 3, 12, 12), torch.randn(2, 3, 5, 7), torch.randn(2, 3, 2, 2)]
    boxes, frames = some_boxes(30, limit=90.0).clamp(min=0), torch.arange(30) % 2
    levels = torch.arange(30) // 3 % 3 if leveled else None
    found = box_means(maps, levels, frames, boxes, (96, 96))
    for place in range(30):
        cells = maps[int(levels[place]) if leveled else 0][frames[place]]
        torch.testing.assert_close(found[place], sampled(cells, boxes[place].tolist(), (96, 96)), rtol=1e-4, atol=1e-5)


def test_no_boxes():
    none = torch.zeros(0, dtype=torch.int64)
    for levels in (none, None):
        assert box_means([torch.zeros(1, 3, 4, 4)], levels, none, torch.zeros(0, 4), (64, 64)).shape == (0, 3)


@pytest.mark.parametrize(
    ("heights", "padded", "stride", "expected"),
    [
        ([200, 100, 50, 25, 13], 800, 32, 3),
        ([100, 50, 25, 13, 7], 800, 32, 2),
        ([38, 19, 10, 5, 3, 1], 300, 32, 2),
        ([38, 19, 10, 5, 3, 1], 300, 16, 1),
        ([20, 10, 5, 3, 2, 1], 320, 16, 0),
        ([5, 3], 320, 32, 0),
        ([3, 5], 320, 32, 1),
    ],
)
def test_the_deepest_map_that_is_fine_enough(heights, padded, stride, expected):
    maps = [torch.empty(1, 1, height, height) for height in heights]
    assert deepest_level(maps, (padded, padded), stride=stride) == expected
