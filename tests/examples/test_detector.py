"""A detector that no adapter of the library knows, and the example's adapter for it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch.utils.data import DataLoader, Subset

import digits_on_photos as digits
import small_detector
from cval_torch import extract
from cval_torch.extraction import check_adapter
from cval_torch.hooks import registry
from grid_detector import STRIDE, GridDetector


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The script, whose adapter is registered for these tests only."""
    before = dict(registry._registered)
    yield importlib.import_module("extend.detector")
    registry._registered.clear()
    registry._registered.update(before)
    del sys.modules["extend.detector"]


def test_the_script_chooses(example: ModuleType) -> None:
    chosen = example.main(["--frames", "4", "--steps", "12", "--pool", "160"])
    assert len(set(chosen.frame_ids)) == 4


def test_the_adapter_is_short(example: ModuleType) -> None:
    assert len(inspect.getsource(example.GridAdapter).splitlines()) < 50


def test_rows_are_those_of_the_model_itself(example: ModuleType) -> None:
    torch.manual_seed(0)
    model, frames = (
        GridDetector(10).eval(),
        Subset(digits.pool_frames(digits.PoolSettings(frames=150), seed=5), range(7)),
    )
    model.head.bias.data[:10] = -1.5
    expected = []
    for row in range(7):
        with torch.no_grad():
            features = model.body(frames[row][0][None])
            cells = model.head(features)[0]
        scores, labels = cells[:-4].sigmoid().max(0)
        size = cells.shape[-1] * STRIDE
        best = scores.flatten().sort(descending=True, stable=True).indices[:10]
        boxes, kept = [], []
        for place in best.tolist():
            y, x = divmod(place, cells.shape[-1])
            if scores[y, x] <= 0.05:
                continue
            kept.append((y, x))
            cx, cy = ((torch.tensor([x, y]) + cells[-4:-2, y, x].sigmoid()) * STRIDE).tolist()
            w, h = (cells[-2:, y, x].clamp(max=4).exp() * STRIDE).tolist()
            boxes.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        expected.append(
            {
                "boxes": torch.tensor(boxes).clamp(0, size),
                "labels": torch.stack([labels[cell] for cell in kept]),
                "scores": torch.stack([scores[cell] for cell in kept]),
                "features": torch.stack([features[0, :, y, x] for y, x in kept]),
            }
        )
    pool = extract(model, DataLoader(frames, batch_size=3, collate_fn=small_detector.collate), progress=False)
    for name, column in (("boxes", pool.boxes), ("scores", pool.scores), ("features", pool.box_embeddings)):
        torch.testing.assert_close(column, torch.cat([each[name] for each in expected]), atol=1e-3, rtol=1e-3)
    assert pool.labels.tolist() == torch.cat([each["labels"] for each in expected]).tolist()
    batch = [image for image, _ in frames]
    check_adapter(model, example.GridAdapter(), batch, expected=expected)


def test_grid_detector_learns_from_a_batch_without_boxes() -> None:
    model = GridDetector(10)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    sum(model([torch.rand(1, 96, 96)] * 2, [empty, empty]).values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert model.head.weight.grad is not None
