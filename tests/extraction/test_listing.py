"""Whether a row without an id is still the frame that it was."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from torch.utils.data import Dataset, Subset, TensorDataset

from cval_torch.extraction.listing import row_marks


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
