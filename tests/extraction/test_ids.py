"""What frames are called, and where the name comes from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered_rows import Rows, Stream
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    Subset,
    random_split,
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


def test_a_frame_without_its_target_is_called_by_what_is_known_of_its_row(coco: CocoDetection) -> None:
    ids = [str(image_id) for image_id in coco.ids]
    names = FrameNames(Subset(coco, [2, 0]))
    assert [names.known(0), names.known(1)] == [ids[2], ids[0]]
    names.name([0], [{"image_id": int(ids[2])}])  # the target agrees with the dataset
    assert names.known(1) == ids[0]
    assert FrameNames(Subset(Rows(9), [7, 4])).known(1) == "4"
    assert FrameNames(NamedSubset(Rows(9), [7, 4], ["a", "b"])).known(1) == "b"
    assert FrameNames(coco, lambda row, _: f"f{row}").known(1) == "f1"
    assert FrameNames(coco, lambda row, target: target["name"]).known(1) is None
    assert FrameNames(coco, lambda row, target: 3).known(1) is None  # type: ignore[arg-type, return-value]
    by_target = FrameNames(Rows(9))
    assert by_target.known(1) == "1"
    by_target.name([0], [{"image_id": "a"}])
    assert by_target.known(1) is None


def test_targets_that_agree_with_the_dataset_may_lack_an_image_id(coco: CocoDetection) -> None:
    ids = frame_ids_of(coco)
    wrapped = wrap_dataset_for_transforms_v2(coco, target_keys=("boxes", "labels"))
    targets = [wrapped[row][1] for row in range(3)]
    assert sorted("image_id" in target for target in targets) == [False, False, True]  # that of the empty frame
    for order in itertools.permutations(range(3)):
        names = FrameNames(wrapped)
        assert [name for row in order for name in names.name([row], [targets[row]])] == [ids[row] for row in order]
        assert names.source == "dataset"


def test_an_image_id_that_the_dataset_does_not_know() -> None:
    dataset = Files(3, ids=["0", "1", "3"])
    by_target = [{"image_id": row} for row in range(3)]
    names = FrameNames(dataset)
    assert names.name(range(3), by_target) == ["0", "1", "2"]  # all targets have one, and they come first
    assert names.source == "target"
    names = FrameNames(dataset)
    assert names.name([0, 1], by_target[:2]) == ["0", "1"]
    assert names.source == "dataset"
    with pytest.raises(InvalidInputError, match=r"calls row 2 '3', but its target has the `image_id` '2'.*`frame_id=`"):
        names.name([2], by_target[2:])
    with pytest.raises(InvalidInputError, match=r"either every target has an `image_id` or none; .* row 0 has none"):
        FrameNames(dataset).name([2, 0], [{"image_id": 2}, {}])


def test_files_are_called_by_their_paths_below_the_root_whatever_other_files_there_are(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    before = frame_ids_of(ImageFolder(tmp_path))
    assert before == ["cat/1.png", "cat/2.png", "dog/3.png"]
    for name in ("dog/1.png", "ape/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert frame_ids_of(ImageFolder(tmp_path)) == ["ape/1.png", "cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"]


class Files(Dataset[Any]):
    """A dataset that holds the names of its frames in an attribute of some kind."""

    def __init__(self, length: int, **attributes: Any) -> None:
        self.length = length
        vars(self).update(attributes)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Any:
        return torch.zeros(3, 4, 4)


PATHS = ["a/1.jpg", "b/1.jpg"]


@pytest.mark.parametrize(
    ("attributes", "ids"),
    [
        ({"ids": np.array([7, 9])}, ["7", "9"]),
        ({"image_ids": np.array(["x", "y"])}, ["x", "y"]),
        ({"ids": {"x": 1, "y": 2}.keys()}, ["x", "y"]),
        ({"ids": pd.Series([7, 9], index=["p", "q"])}, ["7", "9"]),
        ({"ids": pd.Index(["x", "y"])}, ["x", "y"]),
        ({"ids": torch.tensor([7, 9])}, ["7", "9"]),
        ({"paths": np.array(PATHS)}, PATHS),
        ({"paths": np.array(PATHS, dtype=object)}, PATHS),
        ({"paths": pd.Series(PATHS)}, PATHS),
        ({"paths": dict.fromkeys(PATHS).keys()}, PATHS),
        ({"samples": np.array([["a/1.jpg", "0"], ["b/1.jpg", "1"]])}, PATHS),
        ({"samples": [("a/1.jpg", 0), ("b/1.jpg", 1)]}, PATHS),
        ({"paths": ["/data/a/1.jpg", Path("/data/b/1.jpg")], "root": "/data"}, PATHS),
        ({"im_files": ["/data/a/1.jpg", "/data/b/1.jpg"], "img_path": "/data"}, PATHS),
        ({"paths": ["/data/a/1.jpg", "/else/b/1.jpg"], "root": "/data"}, ["a/1.jpg", "/else/b/1.jpg"]),
        ({"images": np.zeros((2, 4, 4, 3))}, ["0", "1"]),
        ({"images": torch.zeros(2, 4, 4, 3)}, ["0", "1"]),
        ({"ids": ["only one"]}, ["0", "1"]),
    ],
)
def test_ids_and_paths_are_seen_in_attributes_of_any_kind(attributes: dict[str, Any], ids: list[str]) -> None:
    assert frame_ids_of(Files(2, **attributes)) == ids
    assert frame_ids_of(Subset(Files(2, **attributes), [1])) == ids[1:]


def test_a_path_that_is_too_long_keeps_its_end_and_stays_distinct() -> None:
    long = [f"{folder * 200}/frame.jpg" for folder in "ab"]
    ids = frame_ids_of(Files(2, paths=long))
    assert all(len(name) <= 128 and name.endswith("/frame.jpg") for name in ids)
    assert len(set(ids)) == 2
    assert frame_ids_of(Files(1, paths=long[:1])) == ids[:1]


def test_parts_of_one_dataset_without_ids_share_none() -> None:
    parts = random_split(Rows(9), [4, 5], generator=torch.Generator().manual_seed(0))
    names = [frame_ids_of(part) for part in parts]
    assert [[int(name) for name in each] for each in names] == [list(part.indices) for part in parts]
    nested = Subset(Subset(Rows(9), [8, 6, 4]), [2, 0])
    assert frame_ids_of(nested) == ["4", "8"]


@pytest.mark.parametrize(
    ("dataset", "frame_id", "targets", "source"),
    [
        (Rows(2), lambda row, _: f"r{row}", None, "frame_id"),
        (NamedSubset(Rows(2), [0, 1], ["a", "b"]), None, [{"image_id": 1}, {"image_id": 2}], "labels"),
        (Rows(2), None, [{"image_id": 1}, {"image_id": 2}], "target"),
        (Files(2, ids=["a", "b"]), None, None, "dataset"),
        (Subset(Rows(9), [3, 4]), None, None, "row"),
    ],
)
def test_it_is_known_where_ids_come_from(dataset: Any, frame_id: Any, targets: Any, source: str) -> None:
    names = FrameNames(dataset, frame_id)
    names.name([0, 1], targets)
    assert names.source == source


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


@pytest.mark.parametrize(("length", "whole"), [(128, True), (129, False)])
def test_a_path_is_an_id_up_to_the_length_of_ids(length: int, whole: bool) -> None:
    path = "d" * (length - len("/a.jpg")) + "/a.jpg"
    [name] = own_ids(Files(1, paths=[f"/top/{path}"], root="/top")) or [""]
    assert (name == path) == whole
    assert len(name) <= 128
    assert name.endswith("/a.jpg")


def test_columns_of_another_length_are_no_ids() -> None:
    dataset = Rows(3)
    for name in ("ids", "samples", "imgs"):
        setattr(dataset, name, ["a", "b"])
    assert own_ids(dataset) is None
    dataset.image_ids = torch.tensor([7, 8, 9])  # type: ignore[attr-defined]
    assert own_ids(dataset) == ["7", "8", "9"]
    assert own_ids(Subset(dataset, [2, 0])) == ["9", "7"]
    assert own_ids(Subset(ConcatDataset([dataset, Files(2, paths=["b/x.png", "b/y.png"])]), [4, 1])) == ["b/y.png", "8"]
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
