"""Choosing among images of your own: the files that are written, and what is left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

import own_images

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
