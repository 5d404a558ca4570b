"""Embeddings of torchvision's detectors: which map a box is read from, and where on it, against naive loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from carried_rows import Truth, carry_rows
from tiny_torchvision import Cells, class_layers, spread_logits
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cval_torch.hooks.base import FrameBatch
from cval_torch.hooks.finding import find_adapter
from cval_torch.hooks.recorder import Recorder
from cval_torch.hooks.regions import FrameSizes
from cval_torch.hooks.torchvision import (
    BOX_STRIDE,
    FRAME_STRIDE,
    FCOSAdapter,
    RetinaNetAdapter,
    SSDAdapter,
    _frame_embeddings,
)

SIZES = [(96, 64), (30, 41), (150, 70)]  # larger and smaller than what the model looks at


def pyramid(kind: type[nn.Module], *, size: int = 64) -> nn.Module:
    """A detector whose one head reads maps with cells of 16 and 32 pixels; it finds boxes on both."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Cells(levels=2)
        backbone.out_channels = 32
        anchors = AnchorGenerator(((12,), (24,)), ((1.0,), (1.0,)))
        model = kind(backbone, 4, anchor_generator=anchors, min_size=size, max_size=size, detections_per_img=30,
                     score_thresh=0.0, nms_thresh=0.9)  # fmt: skip
        for layer in class_layers(model):
            nn.init.normal_(layer.weight, std=0.5)
        with torch.no_grad():
            spread_logits(model.eval())
    return model


def read(model: nn.Module, batch: list[Tensor]) -> tuple[FrameBatch, Truth, list[Tensor], Any]:
    """What the adapter read, the row of each box by a postprocessing that carries rows, the maps, and the sizes."""
    adapter = find_adapter(model)
    maps: list[Tensor] = []
    sizes: list[Any] = []
    hooks = [
        model.head.register_forward_pre_hook(lambda _, args: maps.extend(args[0])),  # type: ignore[union-attr]
        model.transform.register_forward_hook(lambda *call: sizes.append(call[2][0])),  # type: ignore[union-attr]
    ]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), Recorder(adapter.modules(model)) as recorder:
        truth = carry_rows(model, patch)
        frames = adapter.read(model, recorder.recording, adapter.forward(model, batch)).settle()
    for hook in hooks:
        hook.remove()
    return frames, truth, maps, sizes[0]


def at(feature_map: Tensor, y: float, x: float) -> Tensor:
    """(D,) of a (D, h, w) map between its cells' middles, which lie at whole numbers; 0 further than a cell outside."""
    height, width = feature_map.shape[1:]
    if y < -1 or x < -1 or y > height or x > width:
        return torch.zeros(len(feature_map))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = (1 - dx) * feature_map[:, top, left] + dx * feature_map[:, top, right]
    below = (1 - dx) * feature_map[:, bottom, left] + dx * feature_map[:, bottom, right]
    return (1 - dy) * above + dy * below


def naive_embedding(feature_map: Tensor, box: list[float], padded: tuple[int, int]) -> Tensor:
    """The mean of four samples, at the quarters of a box in pixels of the padded images."""
    down, across = feature_map.shape[1] / padded[0], feature_map.shape[2] / padded[1]
    x0, y0, x1, y1 = box
    points = [
        at(feature_map, (y0 + v * (y1 - y0)) * down - 0.5, (x0 + u * (x1 - x0)) * across - 0.5)
        for v in (0.25, 0.75)
        for u in (0.25, 0.75)
    ]
    return torch.stack(points).mean(0)


@pytest.mark.parametrize("kind", [RetinaNet, FCOS])
def test_a_box_is_read_from_the_map_that_it_was_seen_on(kind: type[nn.Module]) -> None:
    generator = torch.Generator().manual_seed(3)
    batch = [torch.rand(3, *size, generator=generator) for size in SIZES]
    frames, truth, maps, sizes = read(pyramid(kind), batch)
    padded = tuple(sizes.tensors.shape[-2:])
    cells = maps[0].shape[-2] * maps[0].shape[-1]
    levels, number = [], 0
    assert frames.box_embeddings is not None
    for frame, rows in enumerate(truth.rows):
        down, across = (
            resized / original for resized, original in zip(sizes.image_sizes[frame], SIZES[frame], strict=True)
        )
        for row in rows.tolist():
            level = 0 if row < cells else 1  # one anchor a cell, the finer map first
            x0, y0, x1, y1 = frames.boxes[number].tolist()
            box = [x0 * across, y0 * down, x1 * across, y1 * down]
            expected = naive_embedding(maps[level][frame], box, padded)  # type: ignore[arg-type]
            torch.testing.assert_close(frames.box_embeddings[number], expected, atol=1e-4, rtol=1e-4)
            levels.append(level)
            number += 1
    assert number == len(frames.boxes) > 20
    assert min(levels.count(0), levels.count(1)) >= 3, "both maps are told apart"


@pytest.mark.parametrize("kind", [RetinaNet, FCOS])
@pytest.mark.parametrize("times", [10, 20])
def test_images_that_are_shrunk_much_keep_their_rows(kind: type[nn.Module], times: int) -> None:
    """A box in original pixels was rounded after it grew: what is near to it grows as well."""
    generator = torch.Generator().manual_seed(4)
    batch = [torch.rand(3, 64 * times, 48 * times + 7, generator=generator)]
    frames, truth, _, _ = read(pyramid(kind), batch)
    assert len(frames.boxes) == len(truth.rows[0]) > 10
    expected = truth.probabilities[0][truth.rows[0]]
    assert frames.probabilities is not None
    torch.testing.assert_close(frames.probabilities, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "adapter"), [(RetinaNet, RetinaNetAdapter), (FCOS, FCOSAdapter)])
def test_a_last_bit_of_a_resized_box_may_differ_however_much_it_grows(
    kind: type[nn.Module], adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another device may round the last bits of a box; in an image 20 times as large these are 20 times as much."""
    plain = adapter.decoded

    def rounded(self: Any, model: Any, codes: Tensor, anchors: Tensor) -> Tensor:
        return plain(self, model, codes, anchors) + 4 * 64 * torch.finfo(torch.float32).eps

    monkeypatch.setattr(adapter, "decoded", rounded)
    batch = [torch.rand(3, 64 * 20, 48 * 20, generator=torch.Generator().manual_seed(4))]
    frames, truth, _, _ = read(pyramid(kind), batch)
    assert len(frames.boxes) == len(truth.rows[0]) > 10


@pytest.mark.parametrize("adapter", [RetinaNetAdapter(), FCOSAdapter()])
@pytest.mark.parametrize("anchors", [1, 3])
def test_the_map_of_each_anchor(adapter: Any, anchors: int) -> None:
    """All of them, the first and the last of each map included."""
    maps = [torch.zeros(1, 2, *size) for size in ((4, 6), (2, 3), (1, 2))]
    expected = [level for level, each in enumerate(maps) for _ in range(anchors * each.shape[-2] * each.shape[-1])]
    sizes = FrameSizes([(32, 48)], [(32, 48)], (32, 48))
    pooled, levels = adapter.pooled_maps(maps, torch.arange(len(expected)), len(expected), sizes)
    assert levels.tolist() == expected
    assert pooled is maps


def test_cells_of_16_pixels_for_boxes_of_ssd_and_of_32_for_frames() -> None:
    """Maps with cells of 8, 16, 32 and 64 pixels, each full of its cells' size."""
    sizes = FrameSizes([(128, 128)], [(128, 128)], (128, 128))
    maps = [torch.full((1, 2, 128 // cell, 128 // cell), float(cell)) for cell in (8, 16, 32, 64)]
    ((only,), levels) = SSDAdapter().pooled_maps(maps, torch.arange(3), 9, sizes)
    assert (BOX_STRIDE, FRAME_STRIDE) == (16, 32)
    assert levels is None
    assert only is maps[1]
    assert _frame_embeddings(maps, sizes).tolist() == [[32.0, 32.0]]
    assert math.isclose(float(_frame_embeddings(maps[:2], sizes)[0, 0]), 16)
