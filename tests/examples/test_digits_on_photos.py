"""The frames of the examples: digits on photos, as real pools are and as tests should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

import digits_on_photos as digits


@pytest.fixture(scope="module")
def lone_frames():
    """A long-tailed pool of frames that each stand alone: 1,200 independent draws."""
    return digits.pool_frames(digits.PoolSettings(frames=1200, duplicates=False), seed=3)


@pytest.fixture(scope="module")
def small_pool():
    return digits.pool_frames(digits.PoolSettings(frames=150), seed=5)


def test_the_same_seed_makes_the_same_frames(small_pool) -> None:
    again = digits.pool_frames(digits.PoolSettings(frames=150), seed=5)
    assert torch.equal(again.images, small_pool.images)
    assert again.frame_ids == small_pool.frame_ids
    assert all(torch.equal(one, other) for one, other in zip(again.boxes, small_pool.boxes, strict=True))
    other = digits.pool_frames(digits.PoolSettings(frames=150), seed=6)
    assert not torch.equal(other.images, small_pool.images)


def test_items_are_what_detectors_take(small_pool) -> None:
    row = next(row for row, labels in enumerate(small_pool.labels) if len(labels))
    image, target = small_pool[row]
    assert image.shape == (1, 96, 96)
    assert image.dtype == torch.float32
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert target["boxes"].shape == (len(target["labels"]), 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].dtype == torch.int64
    assert target["image_id"] == small_pool.frame_ids[row]
    assert len(set(small_pool.frame_ids)) == len(small_pool) == 150


@pytest.mark.parametrize("make", [digits.pool_frames, digits.unseen_frames, digits.letter_frames])
def test_boxes_are_tight_around_what_was_pasted(make, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = np.full((160, 160), 0.5, dtype=np.float32)
    monkeypatch.setattr(digits, "photo_crops", lambda part: [ground])
    monkeypatch.setattr(digits, "_LIGHT", 0.0)
    monkeypatch.setattr(digits, "_NOISE", 0.0)
    frames = make(digits.PoolSettings(frames=60)) if make is digits.pool_frames else make(60)
    for image, boxes in zip(frames.images, frames.boxes, strict=True):
        pasted = image[0] != round(0.5 * 255)
        outside = pasted.clone()
        for x0, y0, x1, y1 in boxes.int().tolist():
            assert 0 <= x0 < x1 <= 96
            assert 0 <= y0 < y1 <= 96
            inside = pasted[y0:y1, x0:x1]
            assert all(bool(side.any()) for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            outside[y0:y1, x0:x1] = False
        assert not outside.any()


def test_digits_are_20_to_36_pixels_and_apart(lone_frames) -> None:
    sizes = torch.cat([(boxes[:, 2:] - boxes[:, :2]).amax(1) for boxes in lone_frames.boxes])
    assert float(sizes.min()) >= 14  # the ink of a glyph does not always fill its 8 rows
    assert float(sizes.max()) <= 36
    overlaps = [torchvision.ops.box_iou(boxes, boxes).fill_diagonal_(0) for boxes in lone_frames.boxes if len(boxes)]
    assert max(float(overlap.max()) for overlap in overlaps) == 0


def test_class_frequencies_fall_as_rank_to_the_minus_one_and_a_half(lone_frames) -> None:
    counts = torch.cat(lone_frames.labels).bincount(minlength=10).double().sort(descending=True).values
    expected = torch.arange(1, 11, dtype=torch.float64) ** -1.5
    torch.testing.assert_close(counts / counts.sum(), expected / expected.sum(), atol=0.03, rtol=0)


def test_two_fifths_of_the_sequences_are_empty(lone_frames) -> None:
    empty = sum(len(labels) == 0 for labels in lone_frames.labels) / len(lone_frames)
    assert empty == pytest.approx(0.4, abs=0.06)  # four standard deviations of 1,200 draws


def test_each_property_can_be_switched_off() -> None:
    settings = digits.PoolSettings(frames=600, long_tail=False, empties=False, duplicates=False)
    plain = digits.pool_frames(settings, seed=1)
    assert all(len(labels) for labels in plain.labels)
    assert len(plain.sequences.unique()) == 600
    counts = torch.cat(plain.labels).bincount(minlength=10)
    assert int(counts.max()) < 2 * int(counts.min())


def test_sequences_are_near_duplicates_that_drift(small_pool) -> None:
    lengths = small_pool.sequences.bincount()
    assert all(8 <= length <= 12 for length in lengths[:-1].tolist())  # the last one is cut at the pool's end
    neighbours = small_pool.sequences[1:] == small_pool.sequences[:-1]
    steps = []
    for row in neighbours.nonzero().squeeze(1).tolist():
        assert torch.equal(small_pool.labels[row], small_pool.labels[row + 1])
        assert small_pool.instances[row] == small_pool.instances[row + 1]
        steps.extend((small_pool.boxes[row + 1] - small_pool.boxes[row]).abs().flatten().tolist())
    assert max(steps) <= 2  # 1.5 pixels a frame, rounded to whole ones
    assert max(steps) > 0
    # light apart, a frame looks like its neighbour, and not like a frame of another sequence
    unlit = small_pool.images.float().flatten(1)
    unlit = (unlit - unlit.mean(1, keepdim=True)) / unlit.std(1, keepdim=True)
    likeness = torch.corrcoef(unlit)
    same = small_pool.sequences[:, None] == small_pool.sequences[None]
    assert float(likeness[same].mean()) > float(likeness[~same].mean()) + 0.2


def test_no_digit_of_a_test_is_in_a_pool(small_pool) -> None:
    pool, test = digits.digit_glyphs("pool"), digits.digit_glyphs("test")
    assert sorted([*pool.instances, *test.instances]) == list(range(1797))
    pixels, labels = load_digits(return_X_y=True)
    for glyphs in (pool, test):
        assert np.array_equal(glyphs.pixels.reshape(-1, 64) * 16, pixels[glyphs.instances])
        assert np.array_equal(glyphs.labels, labels[glyphs.instances])
    unseen = digits.unseen_frames(60, seed=5)
    shown = {instance for instances in small_pool.instances for instance in instances}
    assert shown <= set(pool.instances)
    assert {instance for instances in unseen.instances for instance in instances} <= set(test.instances)


def test_no_photo_of_a_test_is_in_a_pool() -> None:
    for left, right in zip(digits.photo_crops("pool"), digits.photo_crops("test"), strict=True):
        assert left.shape[0] == right.shape[0] >= 96
        assert min(left.shape[1], right.shape[1]) >= 96
        assert not np.shares_memory(left, right) or left.ctypes.data + left.shape[1] * 4 == right.ctypes.data


def test_unseen_frames_are_balanced() -> None:
    unseen = digits.unseen_frames(100)
    counts = torch.cat(unseen.labels).bincount(minlength=10)
    assert int(counts.max() - counts.min()) <= 3
    assert len(unseen.sequences.unique()) == 100


def test_letters_are_all_there_and_legible() -> None:
    frames = digits.letter_frames(60)
    assert torch.cat(frames.labels).unique().tolist() == list(range(26))
    glyphs = digits.letter_glyphs(each=2)
    assert glyphs.pixels.shape == (52, 8, 8)
    assert glyphs.pixels.max(axis=(1, 2)).min() > 0.5
    means = np.stack([glyphs.pixels[glyphs.labels == label].mean(0).ravel() for label in range(26)])
    distances = np.linalg.norm(means[:, None] - means[None], axis=2) + 9 * np.eye(26)
    assert distances.min() > 0.5  # no two letters look the same, as boxes of a missing glyph would


def test_a_pool_can_show_one_class_a_frame() -> None:
    pool = digits.pool_frames(digits.PoolSettings(frames=60, one_class=True), seed=3)
    assert pool.classes == digits.DIGIT_CLASSES[:6]
    assert [len(set(labels.tolist())) for labels in pool.labels] == [1] * 60
    assert torch.stack([labels[0] for labels in pool.labels]).bincount().tolist() == [10] * 6
    again = digits.pool_frames(digits.PoolSettings(frames=60, one_class=True), seed=3)
    assert torch.equal(pool.images, again.images)
    test = digits.unseen_frames(60, seed=3, one_class=True)
    assert not {each for used in pool.instances for each in used} & {each for used in test.instances for each in used}


def test_of_one_class_the_boxes_are_careless() -> None:
    """Ink differs from the photo around it: boxes hold the ink of all classes but the last."""
    settings = digits.PoolSettings(frames=120, one_class=True)
    pool = digits.pool_frames(settings, seed=4)
    sides = {label: [] for label in range(6)}
    for boxes, labels in zip(pool.boxes, pool.labels, strict=True):
        sides[int(labels[0])] += (boxes[:, 2:] - boxes[:, :2]).amax(1).tolist()
    # digits are 20 to 36 pixels large, less their faint rim; careless boxes are smaller and larger
    assert all(max(found) <= 36 for label, found in sides.items() if label != 5)
    assert max(sides[5]) > 40
