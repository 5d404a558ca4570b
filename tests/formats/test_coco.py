"""COCO both ways: a round trip of any annotations, what other libraries read, and what tools export."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from annotated import annotations, assert_same, write_images
from hypothesis import given, settings
from PIL import Image
from torch.utils.data import Dataset, Subset

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_coco, load_coco_instances, load_coco_results, save_coco
from cval_torch.pool import Pool
from cval_torch.selection import DetectionSampling


def marked(**columns: Any) -> Annotations:
    """A detector's box and a crowd; annotated and empty; not annotated and empty; with gaps between the labels."""
    given = Annotations(
        ["cam/b.png", "a.png", "c.png"],
        torch.tensor([0, 2, 2, 2]),
        boxes=torch.tensor([[10.0, 20.0, 30.5, 40.0], [0.0, 0.0, 64.0, 48.0]]),
        labels=torch.tensor([90, 3]),
        class_names={3: "bolt", 17: "gap", 90: "nut"},
        frame_ids=["b", "a", "c"],
        is_annotated=torch.tensor([True, True, False]),
        sizes=torch.tensor([[64, 48]] * 3),
        scores=torch.tensor([0.75, torch.nan]),
        is_crowd=torch.tensor([False, True]),
        ranks=torch.tensor([1, 2, 3]),
        uncertainties=torch.tensor([0.5, torch.nan, 0.25], dtype=torch.float64),
        rounds=torch.tensor([2, 2, 2]),
    )
    return given.replace(**columns)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_coco(marked(), tmp_path / "out", results=True, progress=False)


@settings(max_examples=80, deadline=None)
@given(given=annotations())
def test_a_round_trip_loses_nothing(given: Annotations) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        path = save_coco(given, folder / "out", progress=False)
        (path.parent / "frames.json").unlink()  # the file alone says all of it
        found = load_coco(path)
        assert_same(found, given, within=1e-4)
        assert found.frame_ids == given.frame_ids, "in their order"
        assert found.file_names == given.file_names
        assert found.class_names == given.class_names
        assert found.labels.equal(given.labels)
        assert found.sizes.equal(given.sizes)
        assert load_coco(path.parent).frame_ids == given.frame_ids
    finally:
        shutil.rmtree(folder)


@settings(max_examples=20, deadline=None)
@given(given=annotations())
def test_images_of_hostile_ids_stay_in_the_folder(given: Annotations) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        files = write_images(given, folder / "in")
        path = save_coco(given, folder / "out", image_root=files, images="symlink", progress=False)
        found = load_coco(path)
        assert_same(found, given, within=1e-4)
        for name, frame_id in zip(found.file_names, found.frame_ids, strict=True):
            assert (path.parent / name).resolve() == files[str(frame_id)].resolve()
        assert sorted(each.name for each in folder.iterdir()) == ["in", "out"]
    finally:
        shutil.rmtree(folder)


def test_what_is_written_is_what_coco_documents(file: Path) -> None:
    document = json.loads(file.read_text())
    assert [category["id"] for category in document["categories"]] == [3, 17, 90], "the user's numbers, with gaps"
    assert document["images"] == [
        {
            "id": 1,
            "file_name": "cam/b.png",
            "annotated": True,
            "frame_id": "b",
            "rank": 1,
            "uncertainty": 0.5,
            "round": 2,
            "width": 64,
            "height": 48,
        },
        {"id": 2, "file_name": "a.png", "annotated": True, "frame_id": "a", "rank": 2, "round": 2, "width": 64}
        | {"height": 48},
        {"id": 3, "file_name": "c.png", "annotated": False, "frame_id": "c", "rank": 3, "uncertainty": 0.25, "round": 2}
        | {"width": 64, "height": 48},
    ]
    scored, crowd = document["annotations"]
    assert scored == {
        "id": 1,
        "image_id": 1,
        "category_id": 90,
        "bbox": [10.0, 20.0, 20.5, 20.0],
        "area": 410.0,
        "iscrowd": 0,
        "segmentation": [],
        "score": 0.75,
    }
    assert crowd["iscrowd"] == 1
    assert "score" not in crowd
    results = json.loads((file.parent / "results.json").read_text())
    assert results == [{"image_id": 1, "category_id": 90, "bbox": [10.0, 20.0, 20.5, 20.0], "score": 0.75}]
    assert not (save_coco(marked(), file.parent.parent / "other", progress=False).parent / "results.json").exists()


class Squares(Dataset[Any]):
    """Images of files, and what `select` would return of them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.samples = []
        for number in range(count):
            path = folder / f"{number}.png"
            Image.new("RGB", (40, 30)).save(path)
            self.samples.append((str(path), 0))

    def __getitem__(self, index: int) -> tuple[Image.Image, dict[str, Any]]:
        return Image.open(self.samples[index][0]), {}

    def __len__(self) -> int:
        return len(self.samples)


class Chosen(Subset[Any]):
    """The frames 2 and 0, in this order."""

    frame_ids = ("2.png", "0.png")
    scores = torch.tensor([0.9, 0.1], dtype=torch.float64)
    stages = (DetectionSampling(selection_strategy="entropy", num_of_samples=2),)
    predictions = Pool(
        ("2.png", "0.png"),
        torch.tensor([0, 3, 3]),
        boxes=torch.tensor([[0.0, 0.0, 10.0, 10.0], [-5.0, 5.0, 50.0, 20.0], [1.0, 1.0, 2.0, 2.0]]),
        labels=torch.tensor([1, 2, 1]),
        scores=torch.tensor([0.5, 0.9, 0.1]),
    )


def test_a_choice_has_its_ranks_scores_and_pre_labels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    chosen = Chosen(Squares(tmp_path / "in", 3), [2, 0])
    path = save_coco(
        chosen,
        tmp_path / "out",
        class_names=["background", "bolt", "nut"],
        image_root=tmp_path / "in",
        round=4,
        progress=False,
    )
    found = load_coco(path)
    assert found.frame_ids == ("2.png", "0.png")
    assert found.is_annotated.tolist() == [False, False]
    assert found.ranks.tolist() == [1, 2]
    assert found.rounds.tolist() == [4, 4]
    assert found.uncertainties.tolist() == [0.9, 0.1]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.5]))  # the surest first, without those below 0.3
    assert found.boxes.tolist() == [[0, 5, 40, 20], [0, 0, 10, 10]], "within the image"
    assert [found.class_names[label] for label in found.labels.tolist()] == ["nut", "bolt"]
    assert load_coco(save_coco(found, tmp_path / "again", progress=False)).ranks.tolist() == [1, 2]
    empty = save_coco(chosen, tmp_path / "none", min_score=None, image_root=tmp_path / "in", progress=False)
    assert len(load_coco(empty).labels) == 0


def test_pycocotools_and_faster_coco_eval_read_the_files(file: Path) -> None:
    from faster_coco_eval import COCO as FASTER
    from pycocotools.coco import COCO

    for kind in (COCO, FASTER):
        with contextlib.redirect_stdout(io.StringIO()):
            read = kind(str(file))
            results = read.loadRes(str(file.parent / "results.json"))
        assert sorted(read.getImgIds()) == [1, 2, 3], "images without boxes, too"
        boxes = [each["bbox"] for each in read.loadAnns(sorted(read.getAnnIds()))]
        assert boxes == [[10.0, 20.0, 20.5, 20.0], [0.0, 0.0, 64.0, 48.0]]
        (result,) = results.loadAnns(results.getAnnIds())
        assert (result["bbox"], result["score"], result["category_id"]) == ([10.0, 20.0, 20.5, 20.0], 0.75, 90)


def test_our_own_readers_read_the_files(file: Path) -> None:
    assert load_coco_instances(file).categories == {3: "bolt", 17: "gap", 90: "nut"}
    pool = load_coco_results(file.parent / "results.json", images=file)
    assert pool.frame_ids == ("cam/b.png", "a.png", "c.png")
    assert pool.boxes is not None
    assert pool.boxes.tolist() == [[10.0, 20.0, 30.5, 40.0]]


def test_labelformat_globox_and_panlabel_read_the_same_boxes(file: Path, tmp_path: Path) -> None:
    from globox import AnnotationSet
    from labelformat.formats import COCOObjectDetectionInput
    from labelformat.model.bounding_box import BoundingBoxFormat

    expected = marked().boxes
    labels = list(COCOObjectDetectionInput(file).get_labels())
    boxes = [each.box.to_format(BoundingBoxFormat.XYXY) for label in labels for each in label.objects]
    torch.testing.assert_close(torch.tensor(boxes), expected)
    assert [each.category.name for label in labels for each in label.objects] == ["nut", "bolt"]
    read = AnnotationSet.from_coco(file)
    torch.testing.assert_close(torch.tensor([box.ltrb for box in read["cam/b.png"].boxes]), expected)
    target = tmp_path / "converted.xml"
    program = str(Path(sys.executable).with_name("panlabel"))
    options = ["--from", "coco", "--to", "cvat", "--input", str(file), "--output", str(target), "--allow-lossy"]
    done = subprocess.run([program, "convert", *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 'xtl="10' in target.read_text()


def written(tmp_path: Path, **parts: Any) -> Path:
    """A file as another program writes it."""
    document = {
        "images": [{"id": 5, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg", "width": 64.0, "height": 48}],
        "annotations": [{"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 7, "name": "nut"}],
    }
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({**document, **parts}))
    return path


def test_an_image_without_boxes_is_what_the_user_says_it_is(tmp_path: Path) -> None:
    found = load_coco(written(tmp_path))
    assert found.is_annotated.tolist() == [False, True]
    assert found.notes == (
        "1 frame has no boxes, and each was taken to be not annotated. If that is wrong, pass `empty='annotated'`",
    )
    assert found.sizes.tolist() == [[0, 0], [64, 48]]
    assert found.counts.tolist() == [0, 1]
    found = load_coco(written(tmp_path), empty="annotated")
    assert found.is_annotated.tolist() == [True, True]
    assert "taken to be annotated, with nothing in it" in found.notes[0]
    told = [{"id": 5, "file_name": "b.jpg", "annotated": True}, {"id": 2, "file_name": "a.jpg", "annotated": False}]
    found = load_coco(written(tmp_path, images=told))
    assert (found.is_annotated.tolist(), found.notes) == ([True, False], ())
    with pytest.raises(InvalidInputError, match="`empty` must be 'annotated' or 'unannotated'; got 'yes'"):
        load_coco(written(tmp_path), empty="yes")  # type: ignore[arg-type]


def test_classes_are_found_by_their_names(tmp_path: Path) -> None:
    assert load_coco(written(tmp_path)).class_names == {7: "nut"}
    found = load_coco(written(tmp_path), class_names=["background", "nut", "bolt"])
    assert found.labels.tolist() == [1]
    assert found.class_names == {0: "background", 1: "nut", 2: "bolt"}
    with pytest.raises(InvalidInputError, match="has the class 'nut', which is not among"):
        load_coco(written(tmp_path), class_names=["bolt"])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"rotation": 90.0}, [0.5, 2.5, 4.5, 5.5]),
        ({"rotation": 0.0}, [1, 2, 4, 6]),
        ({"rotation": "90"}, [1, 2, 4, 6]),
        ({"rotation": None}, [1, 2, 4, 6]),
        ({"occluded": True}, [1, 2, 4, 6]),
        ([], [1, 2, 4, 6]),
    ],
)
def test_a_rotated_box_becomes_its_envelope(tmp_path: Path, attributes: Any, expected: list[float]) -> None:
    box = {"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4], "attributes": attributes}
    found = load_coco(written(tmp_path, annotations=[box]))
    torch.testing.assert_close(found.boxes, torch.tensor([expected], dtype=torch.float32))


def test_what_travels_along_is_read_with_care(tmp_path: Path) -> None:
    images = [
        {"id": 5, "file_name": "b.jpg", "frame_id": 7, "rank": "1", "uncertainty": None, "round": True, "width": -1},
        {"id": 2, "file_name": "a.jpg", "frame_id": "x", "rank": 2.0, "uncertainty": 1, "round": 0, "width": 1e300},
    ]
    found = load_coco(written(tmp_path, images=images))
    assert found.frame_ids == (None, "x")
    assert found.ranks.tolist() == [0, 2]
    assert found.rounds.tolist() == [-1, 0]
    assert found.uncertainties.isnan().tolist() == [True, False]
    with pytest.raises(InvalidInputError, match="the frame 'x' stands twice"):
        load_coco(written(tmp_path, images=[{**image, "frame_id": "x"} for image in images]))


def test_zip_files(tmp_path: Path) -> None:
    text = written(tmp_path).read_text()
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations/instances_default.json", text)
        archive.writestr("notes.json", "[1]")
        archive.writestr("images/a.jpg", b"")
    assert load_coco(path).file_names == ("b.jpg", "a.jpg")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("annotations/instances_val.json", text)
    with pytest.raises(InvalidInputError, match=r"it has annotations/instances_default\.json, annotations/inst"):
        load_coco(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.json", "[1]")
    with pytest.raises(InvalidInputError, match=r"must hold one COCO instances file; it has none\. Unpack it"):
        load_coco(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.json", "{")
    with pytest.raises(InvalidInputError, match=r"x\.json in .*export\.zip is not JSON"):
        load_coco(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.json", text)
    path.write_bytes(path.read_bytes().replace(b"b.jpg", b"c.jpg"))
    with pytest.raises(InvalidInputError, match="cannot be unpacked: Bad CRC"):
        load_coco(path)


def test_ids_come_from_the_record_beside_a_file_that_lost_them(file: Path) -> None:
    document = json.loads(file.read_text())
    for image in document["images"]:
        for key in ("frame_id", "rank", "uncertainty", "round", "annotated"):
            image.pop(key, None)
    (file.parent / "back.json").write_text(json.dumps(document))
    found = load_coco(file.parent / "back.json")
    assert found.frame_ids == ("b", "a", "c")
    assert found.ranks.tolist() == [1, 2, 3]
    assert found.rounds.tolist() == [2, 2, 2]
    assert found.is_annotated.tolist() == [True, False, False], "the record is of before people looked"


def test_what_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="`min_score` must be in"):
        save_coco(marked(), tmp_path / "out", min_score=2, progress=False)
    save_coco(marked(), tmp_path / "out", progress=False)
    with pytest.raises(InvalidInputError, match="is not empty"):
        save_coco(marked(), tmp_path / "out", progress=False)
    path = save_coco(marked(rounds=torch.tensor([5, 5, 5])), tmp_path / "out", exist_ok=True, progress=False)
    assert load_coco(path).rounds.tolist() == [5, 5, 5]
