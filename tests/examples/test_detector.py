"""A detector that no adapter knows, and its adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Subset

import digits_on_photos as digits
import small_detector
from cval_torch import extract
from cval_torch.errors import HookError
from extend import detector


@pytest.fixture(scope="module")
def small_pool():
    return digits.pool_frames(digits.PoolSettings(frames=150), seed=5)


def test_detector(tmp_path: Path) -> None:
    chosen = detector.main(["--frames", "4", "--steps", "25", "--pool", "160", "--out", str(tmp_path)])
    assert len(chosen) == 4
    assert (tmp_path / "selected.png").exists()
    assert chosen.scores.isfinite().all()


@pytest.fixture
def grid_detector():
    """Untrained, with a threshold that lets some ten detections a frame pass."""
    torch.manual_seed(0)
    return detector.GridDetector(10, score_threshold=0.01).eval()


def test_custom_adapter_against_the_model_itself(grid_detector, small_pool) -> None:
    frames = Subset(small_pool, range(7))
    loader = DataLoader(frames, batch_size=3, collate_fn=small_detector.collate)
    pool = extract(grid_detector, loader, adapter=detector.GridAdapter(), progress=False)
    assert pool.num_boxes > 7
    chosen = torch.arange(pool.num_boxes)
    assert torch.equal(pool.probabilities[chosen, pool.labels], pool.scores)
    for row in range(7):
        with torch.no_grad():
            features = grid_detector.body(frames[row][0][None])
            vectors = grid_detector.head(features)[0, :-4].softmax(0)
        for box in range(int(pool.offsets[row]), int(pool.offsets[row + 1])):
            x, y = ((pool.boxes[box, :2] + pool.boxes[box, 2:]) / 2 / detector.STRIDE).int().tolist()
            torch.testing.assert_close(pool.probabilities[box], vectors[:, y, x], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(pool.box_embeddings[box], features[0, :, y, x], atol=1e-5, rtol=1e-4)


def test_custom_adapter_says_when_a_detection_fits_no_cell(grid_detector, small_pool) -> None:
    class Shifted(detector.GridAdapter):
        def forward(self, model, images):
            return [{**found, "boxes": found["boxes"] + 1} for found in super().forward(model, images)]

    loader = DataLoader(Subset(small_pool, range(3)), batch_size=3, collate_fn=small_detector.collate)
    with pytest.raises(Exception, match="came from no cell") as caught:
        extract(grid_detector, loader, adapter=Shifted(), progress=False)
    errors = [caught.value, caught.value.__cause__]
    assert any(isinstance(error, HookError) for error in errors)


def test_grid_detector_learns_from_a_batch_without_boxes() -> None:
    model = detector.GridDetector(10)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    sum(model([torch.rand(1, 96, 96)] * 2, [empty, empty]).values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
