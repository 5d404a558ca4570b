"""A whole round with a scripted annotator: what it hands over, what comes back, and what is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

import digits_on_photos as digits
from cval_torch import LabelPool
from cval_torch.formats import Annotations, ImageFolder, load_cvat, load_label_studio
from study import annotate_round

NAMES = dict(enumerate(digits.DIGIT_CLASSES))

pytestmark = [
    pytest.mark.filterwarnings("ignore:1 tasks"),  # the annotator of the script does this on purpose
    pytest.mark.filterwarnings("ignore:in .* frames all boxes are as they were imported"),
]


def check_against_truth(found: Annotations, pool: digits.DigitFrames) -> None:
    """Every object is there once, with its class, about where it is."""
    for row, frame_id in enumerate(found.frame_ids):
        true = pool.frame_ids.index(str(frame_id).removesuffix(".png"))
        target = found.target(row)
        assert len(target["labels"]) == len(pool.labels[true]), frame_id
        if len(target["labels"]):
            overlaps = box_iou(target["boxes"], pool.boxes[true])
            best = overlaps.max(0)
            assert best.values.min() >= 0.75
            assert torch.equal(target["labels"][best.indices], pool.labels[true])


def test_a_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = annotate_round.main(["--quick", f"--out={tmp_path}"])
    settings = annotate_round.QUICK
    pool = digits.pool_frames(digits.PoolSettings(frames=settings.pool), seed=0)
    ids = [f"{frame_id}.png" for frame_id in pool.frame_ids]

    assert sorted(path.relative_to(tmp_path / "images").as_posix() for path in tmp_path.glob("images/*/*")) == ids
    labels = LabelPool(ImageFolder(tmp_path / "images"))
    labels.load(tmp_path / "labels.json")
    first, by_studio, by_cvat = labels.rounds
    half = settings.chosen // 2
    assert [len(each.frame_ids) for each in labels.rounds] == [settings.start, half - 2, half]

    (answer,) = (tmp_path / "label_studio").glob("project-*.json")
    studio = load_label_studio(answer, class_names=NAMES)
    assert studio.frame_ids == by_studio.frame_ids
    assert len(studio.skipped) == 1
    assert "1 tasks have annotations of several people" in studio.notes[0]
    assert studio.is_annotated.all()
    cvat = load_cvat(tmp_path / "cvat" / "task_1.zip", class_names=NAMES, empty="annotated")
    assert set(cvat.frame_ids) == set(by_cvat.frame_ids)
    for found in (studio, cvat):
        check_against_truth(found, pool)

    boxes = {frame_id: len(pool.labels[row]) for row, frame_id in enumerate(ids)}
    before, after, random = results
    assert (before.frames, after.frames, random.frames) == (20, 34, 34)
    assert before.boxes == sum(boxes[frame_id] for frame_id in first.frame_ids)
    assert after.boxes == sum(boxes[frame_id] for frame_id in labels.labeled_ids)
    assert {result.name for result in results} == {"before the round", "after the round", "random choice 1"}
    assert all(0 <= result.map50 <= 1 for result in results)

    page = (tmp_path / "report.html").read_text()
    assert all(f">{frame_id}</bdi>" in page for frame_id in by_studio.frame_ids + by_cvat.frame_ids)
    with Image.open(tmp_path / "annotated.png") as picture:
        assert picture.width > 5 * 176
    printed = capsys.readouterr().out
    assert all(f"| {result.map50:.3f} |" in printed for result in results)
