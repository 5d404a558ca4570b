"""Choosing among images of your own: the files that are written, and what is left out."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

import own_images
from cval_torch import CvalError
from cval_torch.formats import load_coco_instances

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


def test_own_images(user_folder: Path, tmp_path: Path) -> None:
    known = ("--annotations", str(user_folder / "known.json"))
    chosen = own_images.main(coco_arguments(user_folder, tmp_path, "--num-of-samples", "3", *known))
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
    detector = own_images.load_detector(SSDLITE, user_folder / "checkpoint.pt", num_classes=4)
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


def test_own_images_without_annotations_takes_every_image(user_folder: Path, tmp_path: Path) -> None:
    chosen = own_images.main(coco_arguments(user_folder, tmp_path, "--num-of-samples", "7"))
    assert sorted(chosen.frame_ids) == sorted(
        ["=cmd.png", "b.jpg", "sub/c.png", "d.png", "e.png", "done.png", "sub/done too.png"]
    )
    with (tmp_path / "selected.csv").open(newline="") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    assert "'=cmd.png" in names  # not a formula
    assert set(names) - {"'=cmd.png"} == set(chosen.frame_ids) - {"=cmd.png"}


def test_own_images_with_nothing_left_to_annotate(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(SystemExit, match="no image that is not annotated already"):
        own_images.main(coco_arguments(tmp_path, tmp_path, "--num-of-samples", "1"))


def known_of(*file_names: str) -> dict[str, object]:
    images = [{"id": number, "file_name": name} for number, name in enumerate(file_names)]
    return {"images": images, "annotations": [], "categories": [{"id": 1, "name": "bolt"}]}


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / "images" / name)
    return root / "images"


@pytest.fixture
def no_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before a detector is made."""

    def load_detector(*_, **__):
        pytest.fail("the detector was loaded")

    monkeypatch.setattr(own_images, "load_detector", load_detector)


def left_over(names: list[str], known: dict[str, object]) -> list[str]:
    return own_images.without_annotated(names, load_coco_instances(known), Path("images"))


def test_a_bare_name_leaves_the_other_folders_alone() -> None:
    names = ["0001.jpg", "cam1/0001.jpg", "cam1/0002.jpg", "cam2/0001.jpg"]
    assert left_over(names, known_of("0001.jpg")) == names[1:]
    assert left_over(names, known_of("0002.jpg", "images/cam2/0001.jpg")) == names[:2]


def test_names_of_another_system(capsys: pytest.CaptureFixture[str]) -> None:
    names = [unicodedata.normalize("NFD", "Köln/a.jpg"), "cam1/b.jpg", "c.jpg"]
    assert left_over(names, known_of(unicodedata.normalize("NFC", "Köln/a.jpg"), "D:\\set\\cam1\\b.jpg")) == ["c.jpg"]
    assert capsys.readouterr().err == ""


def test_entries_that_match_nothing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert left_over(["a.jpg", "b.jpg"], known_of("gone.jpg", "a.jpg", "lost.jpg")) == ["b.jpg"]
    captured = capsys.readouterr()
    assert captured.err == "note: 2 of 3 entries of the instances match no image, the first is 'gone.jpg'\n"
    assert captured.out == ""
    assert left_over(["a.jpg"], known_of()) == ["a.jpg"]


@pytest.mark.usefixtures("no_inference")
def test_a_file_that_lists_none_of_the_images(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png")
    (tmp_path / "known.json").write_text(json.dumps(known_of("x.png", "y.png")), encoding="utf-8-sig")
    given = coco_arguments(tmp_path, tmp_path, "--num-of-samples", "1", "--annotations", str(tmp_path / "known.json"))
    with pytest.raises(SystemExit, match=r"none of the 2 images that .*known\.json lists is in .*images; is it"):
        own_images.main(given)


@pytest.mark.usefixtures("no_inference")
@pytest.mark.parametrize(
    ("known", "said"),
    [
        (known_of("a.png"), "'a.png' of .*known.json matches 2 images equally well: 'cam1/a.png', 'cam2/a.png'"),
        (known_of("cam1/a.png", "old/cam1/a.png"), "both match the image 'cam1/a.png'"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}], "is a list of results, and not a COCO"),
    ],
)
def test_what_is_refused_before_inference(known: object, said: str, tmp_path: Path) -> None:
    folder_of(tmp_path, "cam1/a.png", "cam2/a.png")
    (tmp_path / "known.json").write_text(json.dumps(known))
    given = coco_arguments(tmp_path, tmp_path, "--num-of-samples", "1", "--annotations", str(tmp_path / "known.json"))
    with pytest.raises(CvalError, match=said):
        own_images.main(given)


@pytest.mark.usefixtures("no_inference")
def test_a_name_that_no_file_can_hold_is_refused_before_inference(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a.png")
    try:
        os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")  # noqa: PTH104 (a name of bytes)
    except OSError:
        pytest.skip("the file system has no such names")
    with pytest.raises(CvalError, match="is not UTF-8"):
        own_images.main(coco_arguments(tmp_path, tmp_path, "--num-of-samples", "1"))


def test_boxes_are_those_of_the_upright_image(user_folder: Path, tmp_path: Path) -> None:
    """A photo as a phone stores it, on its side, and beside it what macOS leaves and a scan of 16 bits."""
    upright = np.random.default_rng(1).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "images" / "phone.png", exif=exif)
    (tmp_path / "images" / "._phone.png").write_bytes(b"\0\5\26\7")
    Image.fromarray(upright[..., 0] * np.uint16(257)).save(tmp_path / "images" / "scan.png")
    (tmp_path / "checkpoint.pt").symlink_to(user_folder / "checkpoint.pt")
    chosen = own_images.main(coco_arguments(tmp_path, tmp_path / "out", "--num-of-samples", "2"))
    assert sorted(chosen.frame_ids) == ["phone.png", "scan.png"]
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    detector = own_images.load_detector(SSDLITE, user_folder / "checkpoint.pt", num_classes=4)
    grey = np.repeat(upright[..., :1], 3, axis=2)
    for image in written["images"]:
        assert (image["width"], image["height"]) == (60, 80)
        pixels = torch.from_numpy(upright if image["file_name"] == "phone.png" else grey).permute(2, 0, 1) / 255
        with torch.no_grad():
            found = detector([pixels])[0]
        boxes = [each["bbox"] for each in written["annotations"] if each["image_id"] == image["id"]]
        expected = found["boxes"][found["scores"] >= 0.3]
        expected[:, 2:] -= expected[:, :2]
        assert len(boxes) > 0
        torch.testing.assert_close(torch.tensor(boxes), expected, atol=0.05, rtol=0)
