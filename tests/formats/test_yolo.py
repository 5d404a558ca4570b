"""YOLO's files: a round trip of any annotations, and Ultralytics reads and trains from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from PIL import Image

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_coco, load_yolo, save_yolo
from tests.worlds.annotated import annotations, assert_same, write_images


def marked(**columns: object) -> Annotations:
    """Three frames: two boxes; annotated and empty; not annotated, with a detector's box."""
    given = Annotations(
        ["cam/a.png", "cam/b.png", "c.png"],
        torch.tensor([0, 2, 2, 3]),
        boxes=torch.tensor([[10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 64.0, 48.0], [1.0, 2.0, 3.0, 4.0]]),
        labels=torch.tensor([7, 3, 7]),
        class_names={3: "bolt", 7: "no", 90: "gap"},
        frame_ids=["cam/a.png", "cam/b.png", "c.png"],
        is_annotated=torch.tensor([True, True, False]),
        sizes=torch.tensor([[64, 48]] * 3),
        scores=torch.tensor([torch.nan, torch.nan, 0.25]),
    )
    return given.replace(**columns)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_images(marked(), tmp_path / "in")


@settings(max_examples=40, deadline=None)
@given(given=annotations())
def test_a_round_trip_loses_nothing(given: Annotations) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        files = write_images(given, folder / "in")
        path = save_yolo(given, folder / "out", image_root=files, images="symlink", progress=False)
        assert_same(load_yolo(path), given, within=2e-3)
        assert sorted(each.name for each in folder.iterdir()) == ["in", "out"]
    finally:
        shutil.rmtree(folder)


def test_what_is_written_is_what_ultralytics_documents(tmp_path: Path, files: dict[str, Path]) -> None:
    path = save_yolo(marked(), tmp_path / "out", image_root=files, progress=False)
    texts = {str(each.relative_to(tmp_path / "out")): each.read_text() for each in (tmp_path / "out").rglob("*.txt")}
    assert texts == {
        "labels/cam/a.txt": "1 0.3125 0.625 0.3125 0.41666667\n0 0.5 0.5 1 1\n",
        "labels/cam/b.txt": "",
        "predictions/c.txt": "1 0.03125 0.0625 0.03125 0.04166667 0.25\n",
        "train.txt": "./images/cam/a.png\n./images/cam/b.png\n",
    }
    document = yaml.safe_load(path.read_text())
    assert document == {"train": "train.txt", "val": "train.txt", "names": {0: "bolt", 1: "no", 2: "gap"}}
    assert "path" not in document, "the folder can be moved"


def test_labels_come_back_as_they_were_and_as_the_user_names_them(tmp_path: Path, files: dict[str, Path]) -> None:
    path = save_yolo(marked(), tmp_path / "out", image_root=files, progress=False)
    ours = load_yolo(tmp_path / "out")
    assert ours.labels.tolist() == [7, 3, 7]
    named = load_yolo(path, class_names={1: "gap", 2: "bolt", 5: "no"})
    assert named.labels.tolist() == [5, 2, 5]
    (tmp_path / "out" / "frames.json").unlink()
    (tmp_path / "out" / "train.txt").unlink()
    path.write_text(path.read_text().replace("train.txt", "images"))
    plain = load_yolo(path)
    by_name = dict(zip(plain.file_names, plain.is_annotated.tolist(), strict=True))
    assert by_name == {"images/c.png": False, "images/cam/a.png": True, "images/cam/b.png": True}
    assert plain.labels.tolist() == [1, 0], "without our own file the numbers are those of the file"
    assert "1 frame has no boxes" in plain.notes[0]
    assert load_yolo(path, empty="annotated").is_annotated.all()


def test_ultralytics_checks_and_trains_from_the_folder(tmp_path: Path, files: dict[str, Path]) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    for file in files.values():
        Image.effect_noise((64, 48), 40).convert("RGB").save(file)
    path = save_yolo(marked(), tmp_path / "out", image_root=files, progress=False)
    data = check_det_dataset(str(path))
    assert data["names"] == {0: "bolt", 1: "no", 2: "gap"}
    dataset = YOLODataset(img_path=data["train"], data=data, task="detect", imgsz=64)
    read = {Path(label["im_file"]).name: label for label in dataset.labels}
    assert set(read) == {"a.png", "b.png"}, "a frame that nobody annotated is no background"
    assert read["a.png"]["cls"].reshape(-1).tolist() == [1, 0]
    assert len(read["b.png"]["cls"]) == 0
    model = ultralytics.YOLO("yolo11n.yaml")
    model.train(
        data=str(path),
        epochs=1,
        imgsz=64,
        batch=2,
        workers=0,
        plots=False,
        project=str(tmp_path),
        verbose=False,
        val=False,
        device="cpu",
    )


def test_labelformat_and_panlabel_read_the_same_boxes(tmp_path: Path, files: dict[str, Path]) -> None:
    from labelformat.formats import YOLOv8ObjectDetectionInput
    from labelformat.model.bounding_box import BoundingBoxFormat

    given = marked(is_annotated=torch.tensor([True, True, True]))
    path = save_yolo(given, tmp_path / "out", image_root=files, progress=False)
    labels = list(YOLOv8ObjectDetectionInput(path, "train").get_labels())
    boxes = {
        label.image.filename: [each.box.to_format(BoundingBoxFormat.XYXY) for each in label.objects] for label in labels
    }
    torch.testing.assert_close(torch.tensor(boxes["cam/a.png"]), given.boxes[:2], atol=1e-3, rtol=0)
    assert {each.category.name for label in labels for each in label.objects} == {"bolt", "no"}
    target = tmp_path / "converted.json"
    program = str(Path(sys.executable).with_name("panlabel"))
    options = ["--from", "yolo", "--to", "coco", "--input", str(path.parent), "--output", str(target), "--allow-lossy"]
    done = subprocess.run([program, "convert", *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    read = load_coco(target)
    row = next(number for number, name in enumerate(read.file_names) if name.endswith("cam/a.png"))
    torch.testing.assert_close(read.take([row]).boxes, given.boxes[:2], atol=1e-3, rtol=0)


def test_labels_alone_find_their_images_below_another_folder(tmp_path: Path, files: dict[str, Path]) -> None:
    images = tmp_path / "photos" / "cam"
    images.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48)).save(images / name)
    exported = tmp_path / "exported"
    (exported / "labels").mkdir(parents=True)
    (exported / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (exported / "labels" / "b.txt").write_text("")
    (exported / "classes.txt").write_text("bolt\nnut\n")
    shutil.make_archive(str(tmp_path / "zipped"), "zip", exported)
    for place in (exported, tmp_path / "zipped.zip"):
        found = load_yolo(place, image_root=tmp_path / "photos")
        assert found.file_names == ("cam/a.png", "cam/b.png")
        assert found.boxes.tolist() == [[0, 0, 64, 48]]
        assert found.is_annotated.tolist() == [True, True]
    with pytest.raises(InvalidInputError, match="image_root"):
        load_yolo(exported)
    (images / "b.png").unlink()
    with pytest.raises(InvalidInputError, match=r"1 label files of .* have no image .* such as 'b.txt'"):
        load_yolo(exported, image_root=tmp_path / "photos")


def test_what_label_studio_exports_has_the_names_of_the_images(tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    for name in ("images", "labels"):
        (exported / name).mkdir(parents=True)
    for name in ("1f0c2a9b-a", "99d09a77__b"):
        Image.new("RGB", (64, 48)).save(exported / "images" / f"{name}.png")
        (exported / "labels" / f"{name}.txt").write_text("1 0.5 0.5 1 1\n")
    (exported / "classes.txt").write_text("two\nlines\nnut\n")
    notes = {"categories": [{"id": 0, "name": "two\nlines"}, {"id": 1, "name": "nut"}], "info": {}}
    (exported / "notes.json").write_text(json.dumps(notes))
    found = load_yolo(exported)
    assert found.file_names == ("a.png", "b.png")
    assert [found.class_names[label] for label in found.labels.tolist()] == ["nut", "nut"]
    (tmp_path / "photos" / "cam").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (64, 48)).save(tmp_path / "photos" / "cam" / f"{name}.png")
    found = load_yolo(exported, image_root=tmp_path / "photos")
    assert found.file_names == ("cam/a.png", "cam/b.png")
    (exported / "notes.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"notes.json' must have `categories`"):
        load_yolo(exported)


def test_polygons_and_rotated_boxes_become_envelopes(tmp_path: Path) -> None:
    _dataset(tmp_path, "0 0.5 0 1 0.5 0.5 1 0 0.5\n1 0.25 0.25 0.75 0.25 0.5 0.5\n")
    assert load_yolo(tmp_path).boxes.tolist() == [[0, 0, 64, 48], [16, 12, 48, 24]]


def test_a_sixth_column_is_a_prediction(tmp_path: Path) -> None:
    _dataset(tmp_path, "0 0.5 0.5 1 1 0.75\n")
    found = load_yolo(tmp_path)
    assert found.scores.tolist() == [0.75]
    assert found.is_annotated.tolist() == [False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 1\n", "line 1 .* must be `class x y width height`"),
        ("\n0 0.5 0.5 1 x\n", "line 2 .* must be `class"),
        ("5 0.5 0.5 1 1\n", "has the class 5; the names are of 0, 1"),
        ("0.5 0.5 0.5 1 1\n", "has the class 0.5"),
        ("0 30 20 10 10\n", r"coordinates in \[0, 1\]"),
        ("0 nan 0.5 1 1\n", "finite"),
        ("nan 0.5 0.5 1 1\n", "finite"),
        ("0 0.5 0.5 -0.005 1\n", "negative size"),
        ("0 0.5 0.5 1 1 1.005\n", "confidence"),
    ],
)
def test_rows_that_are_no_labels_are_refused_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    _dataset(tmp_path, text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_yolo(tmp_path)
    assert "a.txt" in str(caught.value)


def test_what_yolo_cannot_hold(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError, match="beside the folder of the images"):
        save_yolo(marked(), tmp_path / "out", images="leave", progress=False)
    crowds = marked(is_crowd=torch.tensor([True, False, False]))
    found = load_yolo(save_yolo(crowds, tmp_path / "out", image_root=files, progress=False))
    assert found.labels.tolist() == [3, 7], "the crowd is left out"


def _dataset(folder: Path, text: str) -> None:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    Image.new("RGB", (64, 48)).save(folder / "images" / "a.png")
    (folder / "labels" / "a.txt").write_text(text)
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [bolt, nut]\n")
