"""The scripted annotator: what it does to pre-labels, and that its files are as the tools write them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from cval_torch.formats import Annotations, load_cvat, load_label_studio, save_cvat, save_label_studio
from scripted_annotator import Answer, Object, answer_in_cvat, answer_in_label_studio, corrected

NAMES = {0: "bolt", 3: "nut"}
IDS = ["z/first.png", "a/empty.png", "drawn.png", "unopened.png", "skipped.png"]
TRUTH = {
    "z/first.png": [Object((10.0, 10.0, 30.0, 30.0), "nut"), Object((40.0, 0.0, 60.0, 20.0), "bolt")],
    "a/empty.png": [],
    "drawn.png": [Object((1.0, 2.0, 31.0, 42.0), "bolt")],
    "unopened.png": [],
    "skipped.png": [],
}
# The keys of what Label Studio 1.23.2 exports as JSON
TASK = {
    *("id", "annotations", "file_upload", "drafts", "predictions", "data", "meta", "created_at", "updated_at"),
    *("allow_skip", "inner_id", "total_annotations", "cancelled_annotations", "total_predictions", "comment_count"),
    *("unresolved_comment_count", "last_comment_updated_at", "project", "updated_by", "comment_authors"),
}
ANNOTATION = {
    *("id", "completed_by", "result", "was_cancelled", "ground_truth", "created_at", "updated_at", "draft_created_at"),
    *("lead_time", "prediction", "result_count", "unique_id", "import_id", "last_action", "bulk_created", "task"),
    *("project", "updated_by", "parent_prediction", "parent_annotation", "last_created_by"),
}
REGION = {
    *("id", "type", "from_name", "to_name", "original_width", "original_height", "image_rotation", "value", "origin"),
}


def chosen(folder: Path) -> Annotations:
    """Five frames; the first has a pre-label that fits, one of another class beside it, and one of nothing."""
    for frame_id in IDS:
        (folder / frame_id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60)).save(folder / frame_id)
    boxes = [[10.0, 10.0, 30.0, 29.0], [41.0, 1.0, 61.0, 21.0], [60.0, 40.0, 70.0, 50.0], [5.0, 5.0, 9.0, 9.0]]
    return Annotations(
        IDS,
        torch.tensor([0, 3, 4, 4, 4, 4]),
        boxes=torch.tensor(boxes),
        labels=torch.tensor([3, 3, 0, 0]),
        class_names=NAMES,
        frame_ids=IDS,
        is_annotated=torch.zeros(5, dtype=torch.bool),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
        ranks=torch.arange(1, 6),
    )


def test_what_becomes_of_pre_labels() -> None:
    fits, near = Object((10.0, 10.0, 30.0, 29.0), "nut"), Object((42.0, 3.0, 62.0, 23.0), "bolt")
    wrong = Object((10.0, 10.0, 30.0, 30.0), "bolt")
    first, second = TRUTH["z/first.png"]
    assert corrected([near, fits], [first, second]) == [Answer(fits, "kept", 1), Answer(second, "corrected", 0)]
    assert corrected([wrong], [first]) == [Answer(first, "corrected", 0)], "the class is wrong"
    assert corrected([], [first]) == [Answer(first, "drawn")]
    assert corrected([near], [first]) == [Answer(first, "drawn")]
    assert corrected([fits], [first, first])[1].treated == "drawn", "a pre-label is of one object"
    assert corrected([near], []) == []


def test_label_studio(tmp_path: Path) -> None:
    path = save_label_studio(chosen(tmp_path / "in"), tmp_path / "out", image_root=tmp_path / "in", progress=False)
    work = answer_in_label_studio(path.parent, TRUTH)
    assert work.boxes == {"kept": 1, "corrected": 1, "deleted": 2, "drawn": 1}
    assert (work.empty, work.skipped, work.unopened, work.twice) == (
        ("a/empty.png",),
        ("skipped.png",),
        ("unopened.png",),
        ("z/first.png",),
    )
    exported = json.loads(work.path.read_text())
    for task in exported:
        assert set(task) == TASK
        for annotation in task["annotations"]:
            assert set(annotation) == ANNOTATION
            for region in annotation["result"]:
                assert set(region) - {"score"} == REGION
    found = load_label_studio(work.path, class_names=NAMES)
    assert found.frame_ids == ("z/first.png", "a/empty.png", "drawn.png")
    assert found.is_annotated.all()
    assert found.skipped == ("in/skipped.png",)
    assert found.counts.tolist() == [2, 0, 1], "what one of two people drew is no majority"
    assert found.labels.tolist() == [3, 0, 0]
    expected = [[10.5, 10, 30.5, 29], [40.5, 0, 60.5, 20], [1, 2, 31, 42]]  # two people, a pixel apart
    torch.testing.assert_close(found.boxes, torch.tensor(expected), atol=1e-4, rtol=0)
    assert load_label_studio(work.path, class_names=NAMES, join="union").counts.tolist() == [3, 0, 1]


@pytest.mark.filterwarnings("ignore:in .* frames")
def test_cvat(tmp_path: Path) -> None:
    path = save_cvat(chosen(tmp_path / "in"), tmp_path / "out", image_root=tmp_path / "in", progress=False)
    work = answer_in_cvat(path.parent, TRUTH)
    assert work.boxes == {"kept": 1, "corrected": 1, "deleted": 2, "drawn": 1}
    assert work.empty == ("a/empty.png", "unopened.png", "skipped.png")
    found = load_cvat(work.path, empty="annotated")
    assert found.frame_ids == tuple(IDS)
    assert found.class_names == NAMES
    assert found.is_annotated.all()
    assert found.boxes.tolist() == [[10, 10, 30, 29], [40, 0, 60, 20], [1, 2, 31, 42]]
    assert found.labels.tolist() == [3, 0, 0]
    assert found.scores[:2].tolist() == pytest.approx([0.9, 0.8])
    assert found.scores[2].isnan(), "what somebody drew has no score"
    assert load_cvat(work.path).is_annotated.tolist() == [True, False, True, False, False]
    with zipfile.ZipFile(work.path) as archive:
        boxes = list(ElementTree.fromstring(archive.read("annotations.xml")).iter("box"))
    assert [box.get("source") for box in boxes] == ["auto", "semi-auto", "manual"]
