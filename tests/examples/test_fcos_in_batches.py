"""The benchmarks' short cuts give what torchvision, `extract` and torchmetrics give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cval_torch import extract
from digits_on_photos import DigitFrames, PoolSettings, pool_frames
from fcos_in_batches import FramesWithTargets, average_precision, said_in_batches, train_in_batches
from small_detector import collate, detector_of_digits, evaluate_map50, letters_as_shipped


@pytest.fixture(scope="module")
def frames() -> DigitFrames:
    return pool_frames(PoolSettings(frames=120), seed=5)


@pytest.fixture(scope="module")
def targets(frames: DigitFrames) -> FramesWithTargets:
    return FramesWithTargets(detector_of_digits(letters_as_shipped()), frames.images, frames.boxes, frames.labels)


@pytest.fixture(scope="module")
def trained(targets: FramesWithTargets) -> Any:
    detector = detector_of_digits(letters_as_shipped(), seed=1)
    train_in_batches(detector, targets, range(60), steps=30, batch_size=8)
    return detector


def test_the_loss_is_torchvisions(frames: DigitFrames, targets: FramesWithTargets) -> None:
    detector = detector_of_digits(letters_as_shipped(), seed=2).train()
    rows = torch.tensor([row for row in range(len(frames)) if row % 5 == 0])
    assert {len(frames.boxes[row]) == 0 for row in rows} == {True, False}
    images, wanted = zip(*(frames[row] for row in rows.tolist()), strict=True)
    expected = sum(detector(list(images), list(wanted)).values())
    loss = targets.loss(detector, rows)
    torch.testing.assert_close(loss, expected)
    gradients: list[tuple[Tensor, ...]] = [
        torch.autograd.grad(each, list(detector.parameters()), retain_graph=True) for each in (loss, expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_training_learns(frames: DigitFrames, trained: Any) -> None:
    untrained = detector_of_digits(letters_as_shipped(), seed=1).eval()
    assert not trained.training
    assert evaluate_map50(trained, frames) > evaluate_map50(untrained, frames) + 0.05


def test_it_says_what_extract_takes(frames: DigitFrames, trained: Any) -> None:
    taken = extract(trained, DataLoader(frames, batch_size=50, collate_fn=collate), progress=False)
    said = said_in_batches(trained, frames.images, frames.frame_ids)
    assert taken.num_boxes > 500
    assert said.frame_ids == taken.frame_ids
    for name in ("offsets", "boxes", "scores", "labels", "probabilities", "box_embeddings", "frame_embeddings"):
        # of a longer tensor, means and roots may differ in the last place
        exact = 1e-6 if name.endswith(("embeddings", "probabilities")) else 0
        torch.testing.assert_close(getattr(said, name), getattr(taken, name), rtol=exact, atol=exact)


def test_its_average_precision_is_cocos(frames: DigitFrames, trained: Any) -> None:
    said = said_in_batches(trained, frames.images, frames.frame_ids, embeddings=False)
    mine = average_precision(said, frames.boxes, frames.labels)
    assert mine == pytest.approx(evaluate_map50(trained, frames), abs=2e-3)
