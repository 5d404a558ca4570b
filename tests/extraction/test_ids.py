"""What frames are called, and where the name comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from numbered_rows import Rows, Stream
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    Subset,
)
from torchvision.datasets import CocoDetection, ImageFolder, wrap_dataset_for_transforms_v2

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import FrameNames, frame_ids_of, own_ids


@pytest.fixture
def coco(tmp_path: Path) -> CocoDetection:
    """Three images with ids 30, 10 and 20, the last without annotations."""
    import json

    images = []
    for image_id in (30, 10, 20):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{image_id}.png")
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 8, "height": 6})
    box = {"bbox": [1, 1, 3, 3], "area": 9, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4]]}
    annotations = [{"id": number, "image_id": image_id, **box} for number, image_id in enumerate((30, 10))]
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]})
    )
    return CocoDetection(str(tmp_path), str(path))


def test_coco_images_are_called_by_their_ids(coco: CocoDetection) -> None:
    ids = [str(image_id) for image_id in coco.ids]
    assert sorted(ids) == ["10", "20", "30"]
    assert frame_ids_of(coco) == ids
    assert frame_ids_of(Subset(coco, [2, 0])) == [ids[2], ids[0]]
    wrapped = wrap_dataset_for_transforms_v2(coco, target_keys=("image_id", "boxes", "labels"))
    assert frame_ids_of(wrapped) == ids
    targets = [wrapped[row][1] for row in range(3)]  # the frame without annotations has an image_id only
    assert FrameNames(wrapped).name(range(3), targets) == ids


def test_files_are_called_by_their_stems_or_by_their_paths(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert frame_ids_of(ImageFolder(tmp_path)) == ["1", "2", "3"]
    Image.new("RGB", (4, 4)).save(tmp_path / "dog/1.png")
    assert frame_ids_of(ImageFolder(tmp_path)) == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"]


def test_joined_datasets_keep_their_ids_or_say_that_they_clash(coco: CocoDetection) -> None:
    ids = frame_ids_of(coco)
    assert frame_ids_of(ConcatDataset([Subset(coco, [0]), Subset(coco, [2, 1])])) == [ids[0], ids[2], ids[1]]
    with pytest.raises(InvalidInputError, match=f"rows 0 and 3 are both '{ids[0]}'.*Pass `frame_id=`"):
        frame_ids_of(ConcatDataset([coco, coco]))
    assert frame_ids_of(ConcatDataset([coco, coco]), lambda row, _: f"{row // 3}-{row % 3}")[4] == "1-1"


def test_without_ids_of_any_kind_the_row_is_the_id() -> None:
    assert own_ids(Rows(3)) is None
    assert frame_ids_of(Rows(3)) == ["0", "1", "2"]
    assert FrameNames(Rows(9)).name([7, 4], None) == ["7", "4"]
    with pytest.raises(InvalidInputError, match="must have a length; got Stream"):
        frame_ids_of(Stream(3))


@pytest.mark.parametrize(
    "image_id", [5, torch.tensor(5), torch.tensor([5]), "5", [5], torch.tensor(5, dtype=torch.uint8)]
)
def test_image_ids_of_every_kind_become_strings(image_id: Any) -> None:
    assert FrameNames(None).name([0], [{"image_id": image_id}]) == ["5"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([{"image_id": 1}, {"image_id": 1}], "rows 0 and 1 are both '1'"),
        ([{"image_id": 1}, {}], "the target of row 1 has none"),
        ([{}, {"image_id": 1}], "the target of row 1 has one"),
        ([{"image_id": "x" * 129}, {"image_id": 1}], r"1 to 128 characters; got 'xxx.*for row 0"),
        ([{"image_id": 1.5}, {"image_id": 1}], r"1 to 128 characters; got 1.5 for row 0"),
        ([{"image_id": ""}, {"image_id": 1}], r"1 to 128 characters; got '' for row 0"),
    ],
)
def test_ids_that_are_none_are_refused(targets: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FrameNames(None).name([0, 1], targets)


def test_the_users_own_names_come_first() -> None:
    names = FrameNames(Rows(3), lambda row, target: f"{row}:{target['image_id']}")
    assert names.name([2], [{"image_id": 9}]) == ["2:9"]
