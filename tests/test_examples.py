"""The examples, run for real with small settings, and the data that they are run on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.transforms.functional import pil_to_tensor

import coco_folder
import compare_strategies
import custom_detector
import digits_on_photos as digits
import quickstart
import small_detector
from cval_torch import extract
from cval_torch.errors import HookError


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


class Oracle(nn.Module):
    """Answers with what it is told, whatever it sees."""

    def __init__(self, frames, *, shift: int = 0) -> None:
        super().__init__()
        answers = zip(frames.boxes, frames.labels, strict=True)
        self.answers = [
            {"boxes": boxes, "labels": (labels + shift) % 10, "scores": torch.full((len(labels),), 0.9)}
            for boxes, labels in answers
        ]
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return self.answers[self.seen - len(images) : self.seen]


def test_map50_of_right_and_wrong_answers() -> None:
    frames = digits.unseen_frames(20)
    assert small_detector.evaluate_map50(Oracle(frames), frames) == 1
    assert small_detector.evaluate_map50(Oracle(frames, shift=1), frames) == 0


def test_training_is_the_same_for_the_same_seed(small_pool) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = small_detector.small_fcos(10, seed=0)
        small_detector.train(model, Subset(small_pool, range(20)), steps=2, seed=seed)
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_letters_are_learnt_once_and_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "deep" / "letters.pt"
    first = small_detector.pretrained_on_letters(cache, steps=2)
    monkeypatch.setattr(small_detector, "train", lambda *_, **__: pytest.fail("trained again"))
    letters = small_detector.pretrained_on_letters(cache, steps=2)
    detector = small_detector.detector_of_digits(letters, seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(letters.state_dict()[name], value)
        assert "cls_logits" in name or torch.equal(detector.state_dict()[name], value)


def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"frames": 5, "start": 20, "pool": 90, "test-frames": 10, "random-draws": 1}
    small |= {"steps": 4, "pretrain-steps": 4, "out": tmp_path}
    results = quickstart.main([f"--{name}={value}" for name, value in small.items()])
    assert [result.name for result in results] == ["chosen", "random 1"]
    with (tmp_path / "selected.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pool = digits.pool_frames(digits.PoolSettings(frames=90), seed=0)
    ids = [row["frame_id"] for row in rows]
    assert [row["rank"] for row in rows] == list("12345")
    assert len(set(ids)) == 5
    started_from = torch.randperm(90, generator=torch.Generator().manual_seed(0)).tolist()[:20]
    assert set(ids) <= set(pool.frame_ids) - {pool.frame_ids[row] for row in started_from}
    chosen = [pool.frame_ids.index(frame_id) for frame_id in ids]
    assert results[0].boxes == sum(len(pool.labels[row]) for row in chosen)
    assert results[0].sequences == len({frame_id.split("/")[0] for frame_id in ids})
    with Image.open(tmp_path / "selected.png") as picture:
        assert picture.width > 5 * 224
    printed = capsys.readouterr().out
    assert all(frame_id in printed for frame_id in ids)
    assert "noise" in printed


def test_compare_strategies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"frames": 5, "rounds": 1, "random-draws": 2, "start": 12, "pool": 90, "test-frames": 6}
    small |= {"steps": 2, "pretrain-steps": 2, "out": tmp_path}
    found = compare_strategies.main([f"--{name}={value}" for name, value in small.items()])
    assert (found.candidates, found.start, len(found.random), len(found.random_curves)) == (78, 12, 100, 2)
    pool = digits.pool_frames(digits.PoolSettings(frames=90), seed=0)
    started_from = torch.randperm(90, generator=torch.Generator().manual_seed(0)).tolist()[:12]
    started_ids = {pool.frame_ids[row] for row in started_from}
    for choice in (*found.strategies.values(), *found.random):
        assert not started_ids & set(choice.frame_ids)
        rows = [pool.frame_ids.index(frame_id) for frame_id in choice.frame_ids]
        assert choice.values["objects"] == sum(len(pool.labels[row]) for row in rows)
    printed = capsys.readouterr().out
    assert found.table() in printed
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "comparison.csv").exists()


def test_compare_null_policies(tmp_path: Path) -> None:
    small = {"what": "null_policies", "frames": 5, "start": 12, "pool": 90, "steps": 2, "pretrain-steps": 2}
    found = compare_strategies.main([f"--{name}={value}" for name, value in (small | {"out": tmp_path}).items()])
    assert list(found.strategies) == [
        f"{policy}, {boxes}" for boxes in ("max", "sum") for policy in ("protocol", "skip", "last", "sample")
    ]


def test_custom_detector(tmp_path: Path) -> None:
    chosen = custom_detector.main(["--frames", "4", "--steps", "25", "--pool", "160", "--out", str(tmp_path)])
    assert len(chosen) == 4
    assert (tmp_path / "selected.png").exists()
    assert chosen.scores.isfinite().all()


@pytest.fixture
def grid_detector():
    """Untrained, with a threshold that lets some ten detections a frame pass."""
    torch.manual_seed(0)
    return custom_detector.GridDetector(10, score_threshold=0.01).eval()


def test_custom_adapter_against_the_model_itself(grid_detector, small_pool) -> None:
    frames = Subset(small_pool, range(7))
    loader = DataLoader(frames, batch_size=3, collate_fn=small_detector.collate)
    pool = extract(grid_detector, loader, adapter=custom_detector.GridAdapter(), progress=False)
    assert pool.num_boxes > 7
    chosen = torch.arange(pool.num_boxes)
    assert torch.equal(pool.probabilities[chosen, pool.labels], pool.scores)
    for row in range(7):
        with torch.no_grad():
            features = grid_detector.body(frames[row][0][None])
            vectors = grid_detector.head(features)[0, :-4].softmax(0)
        for box in range(int(pool.offsets[row]), int(pool.offsets[row + 1])):
            x, y = ((pool.boxes[box, :2] + pool.boxes[box, 2:]) / 2 / custom_detector.STRIDE).int().tolist()
            torch.testing.assert_close(pool.probabilities[box], vectors[:, y, x], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(pool.box_embeddings[box], features[0, :, y, x], atol=1e-5, rtol=1e-4)


def test_custom_adapter_says_when_a_detection_fits_no_cell(grid_detector, small_pool) -> None:
    class Shifted(custom_detector.GridAdapter):
        def forward(self, model, images):
            return [{**found, "boxes": found["boxes"] + 1} for found in super().forward(model, images)]

    loader = DataLoader(Subset(small_pool, range(3)), batch_size=3, collate_fn=small_detector.collate)
    with pytest.raises(Exception, match="came from no cell") as caught:
        extract(grid_detector, loader, adapter=Shifted(), progress=False)
    errors = [caught.value, caught.value.__cause__]
    assert any(isinstance(error, HookError) for error in errors)


def test_grid_detector_learns_from_a_batch_without_boxes() -> None:
    model = custom_detector.GridDetector(10)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    sum(model([torch.rand(1, 96, 96)] * 2, [empty, empty]).values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


SSDLITE = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of two sizes, one in a folder, two of them annotated; and a checkpoint."""
    root = tmp_path_factory.mktemp("user")
    names = ["=cmd.png", "b.jpg", "sub/c.png", "d.png", "e.png", "done.png", "sub/done too.png"]
    rng = np.random.default_rng(0)
    (root / "images" / "sub").mkdir(parents=True)
    for number, name in enumerate(names):
        shape = (60, 80, 3) if number % 2 else (50, 40, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / "images" / name)
    (root / "images" / "notes.txt").write_text("no image")
    known = {
        "images": [{"id": 7, "file_name": "done.png"}, {"id": 9, "file_name": "sub/done too.png"}],
        "categories": [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}],
        "annotations": [],
    }
    (root / "known.json").write_text(json.dumps(known))
    torch.manual_seed(0)
    model = torchvision.models.get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=4)
    with torch.no_grad():  # an untrained detector is equally unsure of everything; this one has opinions
        for layer in model.head.classification_head.module_list:
            layer[1].bias.normal_(std=1.5)
    torch.save({"model": model.state_dict(), "epoch": 3}, root / "checkpoint.pt")
    return root


def coco_arguments(root: Path, out: Path, *more: str) -> list[str]:
    given = {"--images": root / "images", "--checkpoint": root / "checkpoint.pt", "--out": out, "--model": SSDLITE}
    given |= {"--num-classes": 4, "--min-score": 0.3, "--batch-size": 1, "--device": "cpu"}
    return [str(part) for pair in given.items() for part in pair] + list(more)


def test_coco_folder(user_folder: Path, tmp_path: Path) -> None:
    known = ("--annotations", str(user_folder / "known.json"))
    chosen = coco_folder.main(coco_arguments(user_folder, tmp_path, "--num-of-samples", "3", *known))
    assert len(set(chosen.frame_ids)) == 3
    assert set(chosen.frame_ids) <= {"=cmd.png", "b.jpg", "sub/c.png", "d.png", "e.png"}
    assert (tmp_path / "selected.png").exists()
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["file_name"] for image in written["images"]] == list(chosen.frame_ids)
    assert written["categories"][:2] == [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
    assert {annotation["category_id"] for annotation in written["annotations"]} <= {
        category["id"] for category in written["categories"]
    }
    assert [annotation["id"] for annotation in written["annotations"]] == list(
        range(1, len(written["annotations"]) + 1)
    )
    detector = coco_folder.load_detector(SSDLITE, user_folder / "checkpoint.pt", num_classes=4)
    for image in written["images"]:  # what the detector says of the file by itself
        with Image.open(user_folder / "images" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
            pixels = pil_to_tensor(opened.convert("RGB")).float() / 255
        with torch.no_grad():
            found = detector([pixels])[0]
        sure = found["scores"] >= 0.3
        mine = [annotation for annotation in written["annotations"] if annotation["image_id"] == image["id"]]
        assert len(mine) == int(sure.sum()) > 0
        boxes = torch.tensor([annotation["bbox"] for annotation in mine])
        boxes[:, 2:] += boxes[:, :2]
        torch.testing.assert_close(boxes, found["boxes"][sure], atol=0.05, rtol=0)
        assert [annotation["category_id"] for annotation in mine] == found["labels"][sure].tolist()


def test_coco_folder_without_annotations_takes_every_image(user_folder: Path, tmp_path: Path) -> None:
    chosen = coco_folder.main(coco_arguments(user_folder, tmp_path, "--num-of-samples", "7"))
    assert sorted(chosen.frame_ids) == sorted(
        ["=cmd.png", "b.jpg", "sub/c.png", "d.png", "e.png", "done.png", "sub/done too.png"]
    )
    with (tmp_path / "selected.csv").open(newline="") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    assert "'=cmd.png" in names  # not a formula
    assert set(names) - {"'=cmd.png"} == set(chosen.frame_ids) - {"=cmd.png"}


def test_coco_folder_with_nothing_left_to_annotate(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(SystemExit, match="no image that is not annotated already"):
        coco_folder.main(coco_arguments(tmp_path, tmp_path, "--num-of-samples", "1"))
