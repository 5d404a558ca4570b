"""What frames are called, and where the name comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered_rows import Rows, Stream
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    Subset,
)
from torchvision.datasets import CocoDetection, ImageFolder, wrap_dataset_for_transforms_v2

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import FrameNames, NamedSubset, frame_ids_of, length_of, own_ids
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH


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


LIMIT = MAX_FRAME_ID_LENGTH


def test_an_id_is_as_long_as_the_protocol_allows() -> None:
    assert LIMIT == 128
    names = FrameNames(Rows(2), lambda row, _: "x" * (128 + row))
    assert names.name([0], None) == ["x" * 128]
    with pytest.raises(InvalidInputError, match=r"must be a string of 1 to 128 characters; got .* for row 1"):
        names.name([1], None)


class Files(Rows):
    """Rows with the paths of their files."""

    def __init__(self, *paths: str) -> None:
        super().__init__(len(paths))
        self.paths = list(paths)


@pytest.mark.parametrize(("length", "named"), [(128, True), (129, False)])
def test_paths_that_are_too_long_to_be_ids_are_none(length: int, named: bool) -> None:
    """Two files share a stem, so that their paths would be the ids, from the folder above both on."""
    folder = "d" * (length - len("/a.jpg"))
    dataset = Files(f"/top/{folder}/a.jpg", "/top/e/a.jpg")
    expected = [f"{folder}/a.jpg", "e/a.jpg"]
    assert own_ids(dataset) == (expected if named else None)
    assert frame_ids_of(dataset) == (expected if named else ["0", "1"])


def test_columns_of_another_length_are_no_ids() -> None:
    dataset = Rows(3)
    for name in ("ids", "samples", "imgs"):
        setattr(dataset, name, ["a", "b"])
    assert own_ids(dataset) is None
    dataset.image_ids = torch.tensor([7, 8, 9])  # type: ignore[attr-defined]
    assert own_ids(dataset) == ["7", "8", "9"]
    assert own_ids(Subset(dataset, [2, 0])) == ["9", "7"]
    assert own_ids(Subset(ConcatDataset([dataset, Files("b/x.png", "b/y.png", "b/z.png")]), [4, 1])) == ["y", "8"]
    assert own_ids(ConcatDataset([dataset, Rows(2)])) is None


@given(names=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True), data=st.data())
def test_a_named_subset_keeps_its_names_whatever_the_targets_say(names: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, unique=True))
    subset = NamedSubset(Rows(9), range(len(names)), names)
    targets = [{"image_id": row} for row in rows]
    assert FrameNames(subset).name(rows, targets) == [names[row] for row in rows]
    inner = Subset(subset, rows)
    assert FrameNames(inner).name(range(len(rows)), targets) == [names[row] for row in rows]
    assert own_ids(inner) == [names[row] for row in rows]


def test_who_names_a_frame() -> None:
    by_target = FrameNames(Rows(3))
    assert by_target.by_target is None
    assert by_target.name([2, 0], [{"image_id": torch.tensor([5])}, {"image_id": "a"}]) == ["5", "a"]
    assert by_target.by_target is True
    with pytest.raises(InvalidInputError, match=r"either every target has an `image_id` or none; .* row 1 has none"):
        by_target.name([1], [{}])
    by_row = FrameNames(Rows(3))
    assert by_row.name([1], [{}]) == ["1"]
    assert by_row.by_target is False
    with pytest.raises(InvalidInputError, match="the target of row 2 has one"):
        by_row.name([2], [{"image_id": 3}])
    with pytest.raises(InvalidInputError, match="rows 1 and 1 are both '1'"):
        by_row.name([1], [{}])
    assert FrameNames(Rows(3), lambda row, target: f"{row}{target}").by_target is None


def test_the_length_of_a_dataset() -> None:
    assert (length_of(Rows(3)), length_of(Stream(3)), length_of(None)) == (3, None, None)
    with pytest.raises(InvalidInputError, match="`dataset` must have a length; got Stream"):
        frame_ids_of(Stream(3))
