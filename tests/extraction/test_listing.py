"""Whether a row without an id is still the frame that it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import annotated_files
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import wrap_dataset_for_transforms_v2

from cval_torch.extraction.listing import frame_marks, path_of, row_marks


class Listing(Dataset[Any]):
    """A dataset that keeps its files under a name of its own."""

    def __init__(self, records: Any) -> None:
        self.my_records = records
        self.settings = {"size": 4}

    def __len__(self) -> int:
        return len(self.my_records)

    def __getitem__(self, row: int) -> Any:
        raise AssertionError("data are not read")


class Wrapper(Dataset[Any]):
    def __init__(self, base: Dataset[Any]) -> None:
        self.base = base

    def __len__(self) -> int:
        return len(self.base)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> Any:
        return self.base[row]


KINDS = [
    list,
    tuple,
    np.array,
    pd.Series,
    lambda names: [(name, 3) for name in names],
    lambda names: [[n] for n in names],
]


@pytest.mark.parametrize("kind", KINDS)
@given(names=st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=6, unique=True), data=st.data())
def test_a_mark_follows_the_file_and_not_the_row(kind: Any, names: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(names))))
    marks = row_marks(Listing(kind(names)), range(len(names)))
    moved = row_marks(Listing(kind([names[row] for row in order])), range(len(names)))
    assert moved == [marks[row] for row in order]
    assert len(set(marks)) == len(names)


def test_views_have_the_marks_of_what_they_show() -> None:
    base = Listing(["a", "b", "c"])
    marks = row_marks(base, [0, 1, 2])
    assert row_marks(Subset(base, [2, 0]), [0, 1]) == [marks[2], marks[0]]
    wrapped = row_marks(Wrapper(Subset(base, [2, 0])), [0, 1])
    assert wrapped == row_marks(Wrapper(Subset(base, [2, 0])), [0, 1])
    assert wrapped != row_marks(Wrapper(Subset(base, [1, 0])), [0, 1])
    assert wrapped[1] == row_marks(Wrapper(Subset(base, [1, 0])), [0, 1])[1]


def test_annotations_may_change() -> None:
    before, after = Listing([("a.jpg", []), ("b.jpg", [])]), Listing([("a.jpg", [1, 2, 3, 4]), ("b.jpg", [])])
    before.labels, after.labels = [0, 0], [1, 0]  # type: ignore[attr-defined]
    assert row_marks(before, [0, 1]) == row_marks(after, [0, 1])


class Decoding:
    """A column that loads an image where it is asked for one."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, row: int) -> Any:
        raise AssertionError("data are not read")


def test_what_lists_nothing_plain_has_no_marks() -> None:
    assert row_marks(Listing([torch.zeros(2), torch.ones(2)]), [0, 1]) == [None, None]
    assert row_marks(Listing(torch.zeros(2, 3)), [0, 1]) == [None, None]
    assert row_marks(Listing(Decoding()), [0, 1]) == [None, None]
    assert row_marks(TensorDataset(torch.zeros(2, 3)), [0, 1]) == [None, None]


def test_a_dataset_that_refers_to_itself_is_read_once() -> None:
    plain, looped = Listing(["a", "b"]), Listing(["a", "b"])
    looped.me = looped  # type: ignore[attr-defined]
    looped.view = Subset(looped, [1, 0])  # type: ignore[attr-defined]
    assert row_marks(looped, [0, 1]) == row_marks(plain, [0, 1])


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def test_rows_are_found_within_datasets_that_are_joined(sizes: list[int], order: Any) -> None:
    """Whatever stands around them: the rows of all parts are counted one by one."""
    parts = [Listing([f"{number}-{row}" for row in range(size)]) for number, size in enumerate(sizes)]
    counted = [(part, row) for part, size in zip(parts, sizes, strict=True) for row in range(size)]
    drawn = order.sample(range(len(counted)), len(counted))
    view: Any = Subset(ConcatDataset([Subset(ConcatDataset(parts), drawn)]), range(len(counted)))
    alone = [row_marks(part, [row])[0] for part, row in counted]
    assert row_marks(ConcatDataset(parts), range(len(counted))) == alone
    assert row_marks(view, range(len(counted))) == [alone[base] for base in drawn]


def test_the_file_of_a_row_is_the_one_on_the_disk(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    whole = Listing([str(tmp_path / name) for name in ("a.jpg", "b.jpg")])
    assert path_of(whole, 1) == str(tmp_path / "b.jpg")
    assert path_of(Subset(ConcatDataset([Listing([3]), whole]), [2, 0]), 0) == str(tmp_path / "b.jpg")
    below = Listing([("cat", 1), ("dog", 2)])
    below.my_names, below.my_folder = ["a.jpg", "b.jpg"], tmp_path  # type: ignore[attr-defined]
    assert path_of(below, 0) == str(tmp_path / "a.jpg")
    assert path_of(Wrapper(below), 1) == str(tmp_path / "b.jpg")


def test_a_file_that_is_gone_is_told_by_where_paths_stand() -> None:
    gone = Listing(["cat" * 2000, "dog\0"])
    assert [path_of(gone, row) for row in (0, 1)] == [None, None]
    gone.im_files = ["gone/a.jpg", "gone/b.jpg"]  # type: ignore[attr-defined]
    assert path_of(gone, 1) == "gone/b.jpg"
    assert path_of(TensorDataset(torch.zeros(2, 3)), 0) is None


def test_files_of_torchvisions_datasets(tmp_path: Path) -> None:
    coco, voc = annotated_files.coco(tmp_path / "coco"), annotated_files.voc(tmp_path / "voc")
    for row, image_id in enumerate(coco.ids):
        expected = str(tmp_path / "coco" / "images" / f"{image_id:012d}.jpg")
        assert path_of(coco, row) == expected
        assert path_of(wrap_dataset_for_transforms_v2(coco), row) == expected
    assert path_of(voc, 1) == voc.images[1]
    assert len(set(frame_marks(coco, range(len(coco))) or ())) == len(coco)
    assert frame_marks(Subset(voc, [1]), [0]) == (frame_marks(voc, [0, 1]) or [])[1:]


def test_marks_of_frames_go_by_names_that_no_other_frame_has() -> None:
    assert frame_marks(Listing(["a", "b"]), [0, 1]) is not None
    assert frame_marks(Listing(["a", "a"]), [0, 1]) is None
    assert frame_marks(Listing(["a", "a"]), [0]) is not None
    assert frame_marks(Listing(["1", "2"]), [0, 1]) is None
    assert frame_marks(Listing([1, 2]), [0, 1]) is None
    elsewhere = Listing(["a", "b"])
    elsewhere.folder = "elsewhere"  # type: ignore[attr-defined]
    assert set(frame_marks(elsewhere, [0, 1]) or ()).isdisjoint(frame_marks(Listing(["a", "b"]), [0, 1]) or ())
