"""COCO's instances files: read as pycocotools reads them, and refused by file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.coco_instances import (
    CocoInstances,
    load_coco_instances,
    looks_like_results,
    read_document,
    read_images,
    required_part,
)


def document() -> dict[str, Any]:
    """Three images, one of them without boxes; ids with gaps and in no order."""
    return {
        "info": {"year": 2026},
        "images": [
            {"id": 9, "file_name": "images/b.jpg", "width": 100, "height": 80},
            {"id": 2, "file_name": "Köln/c.jpg", "width": 50, "height": 40},
            {"id": 5, "file_name": "a.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 17, "bbox": [10, 20, 30.5, 40], "iscrowd": 0, "area": 1},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 0, 1], "iscrowd": 1, "segmentation": []},
            {"id": 3, "image_id": 5, "category_id": 3, "bbox": [-1.5, 2, 3, 4]},
        ],
        "categories": [{"id": 17, "name": "bolt", "supercategory": ""}, {"id": 3, "name": "nut"}],
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_it_reads_what_pycocotools_reads(encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    (tmp_path / "known.json").write_text(json.dumps(document(), ensure_ascii=False), encoding=encoding)
    (tmp_path / "ascii.json").write_text(json.dumps(document()))
    theirs = pycocotools.COCO(tmp_path / "ascii.json")  # it has no way to read a byte order mark
    capsys.readouterr()
    mine = load_coco_instances(tmp_path / "known.json")
    assert len(mine) == 3
    assert mine.source == str(tmp_path / "known.json")
    assert dict(mine.categories) == {each["id"]: each["name"] for each in theirs.loadCats(theirs.getCatIds())}
    assert mine.file_names == tuple(each["file_name"] for each in theirs.loadImgs(mine.image_ids))
    for row, image_id in enumerate(mine.image_ids):
        expected = theirs.loadAnns(theirs.getAnnIds(imgIds=[image_id]))
        own = (mine.image_rows == row).nonzero()[:, 0]
        boxes = mine.boxes[own].clone()
        boxes[:, 2:] -= boxes[:, :2]
        assert boxes.tolist() == [each["bbox"] for each in expected]
        assert mine.labels[own].tolist() == [each["category_id"] for each in expected]
        assert mine.is_crowd[own].tolist() == [bool(each.get("iscrowd")) for each in expected]
    assert mine.boxes.dtype == torch.float32


def test_a_document_that_was_read_already() -> None:
    mine = load_coco_instances(document())
    assert mine.image_ids == (9, 2, 5)
    assert repr(mine) == "CocoInstances(3 images, 3 boxes, 2 categories; the instances)"


def test_without_boxes() -> None:
    mine = load_coco_instances({**document(), "annotations": []})
    assert isinstance(mine, CocoInstances)
    assert mine.boxes.shape == (0, 4)
    assert len(mine) == 3


def broken(key: str, number: int | None, changes: Any) -> dict[str, Any]:
    """The document with one of its records changed (None: a key taken out), or all of `key` exchanged."""
    changed = document()
    if number is None:
        changed[key] = changes
        return changed
    for name, value in changes.items():
        changed[key][number][name] = value
        if value is None:
            del changed[key][number][name]
    return changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (broken("images", 1, {"file_name": None}), "number 1 of `images` of FILE has no `file_name`; its keys are id"),
        (broken("images", 1, {"file_name": 3}), "number 1 of `images` of FILE must have a string as `file_name`"),
        (broken("images", 1, {"id": 9}), "`images` of FILE must have distinct `id`s; got 9 twice"),
        (broken("images", 1, {"id": 2.0}), "number 1 of `images` of FILE must have an integer or a string as `id`"),
        (broken("images", None, {"9": {}}), "`images` of FILE must be a list; got an object"),
        (broken("annotations", None, None), "`annotations` of FILE must be a list; got null"),
        (broken("annotations", 2, {"bbox": None}), "number 2 of `annotations` of FILE has no `bbox`"),
        (broken("annotations", 2, {"bbox": [1, 2, -1, 1]}), "number 2 of `annotations` of FILE must have a width"),
        (broken("annotations", 2, {"image_id": 77}), "number 2 of `annotations` of FILE has the `image_id` 77, which"),
        (broken("annotations", 2, {"category_id": 4}), "number 2 of `annotations` of FILE has the `category_id` 4, wh"),
        (broken("categories", 1, {"id": 17}), "`categories` of FILE must have distinct `id`s; got 17 twice"),
        (broken("categories", 1, {"name": None}), "number 1 of `categories` of FILE has no `name`"),
        (broken("categories", 1, {"id": "3"}), "number 1 of `categories` of FILE must have an integer as `id`"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(InvalidInputError) as raised:
        load_coco_instances(path)
    assert str(raised.value).startswith(said.replace("FILE", str(path)))


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_part_that_is_missing(key: str) -> None:
    given = document()
    del given[key]
    with pytest.raises(InvalidInputError, match=f"the instances has no `{key}`; its keys are info, .* A COCO"):
        load_coco_instances(given)


def test_a_results_list_in_place_of_instances(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}]))
    with pytest.raises(InvalidInputError) as raised:
        load_coco_instances(path)
    assert str(raised.value) == (
        f"{path} is a list of results, and not a COCO instances file. Pass the file with `images`, `annotations` and "
        "`categories`, such as the ground truth that the results were evaluated with"
    )
    path.write_text("[]")
    with pytest.raises(InvalidInputError, match="is a list, and not a COCO instances file"):
        load_coco_instances(path)
    path.write_text("7")
    with pytest.raises(InvalidInputError, match="must be an object with `images`; got int"):
        load_coco_instances(path)


def test_the_parts_that_results_are_read_with() -> None:
    assert looks_like_results([{"image_id": 1}])
    assert not looks_like_results([{"id": 1}])
    assert not looks_like_results([])
    given = {"images": [{"id": "x"}]}
    assert read_document(given, "mine") == (given, "mine")
    assert required_part(given, "images", "mine") == given["images"]
    assert read_images(given["images"], "mine") == (["x"], given["images"])
