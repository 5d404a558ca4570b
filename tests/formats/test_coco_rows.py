"""Columns from lists of records, beside loops, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.coco_rows import (
    check_distinct,
    checked_rows,
    corners_of,
    flags_of,
    ids_of,
    integers_of,
    rows_of_images,
    strings_of,
    unit_scores_of,
)

sides = st.floats(0, 1e6) | st.integers(0, 10**6)
corners = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)


@given(boxes=st.lists(st.tuples(corners, corners, sides, sides), max_size=8))
@settings(max_examples=200, deadline=None)
def test_corners_are_those_of_a_loop(boxes) -> None:
    rows = [{"bbox": list(box) if number % 2 else box} for number, box in enumerate(boxes)]
    expected = [[left, top, left + width, top + height] for left, top, width, height in boxes]
    assert corners_of(rows, "bbox", "F").tolist() == expected


@pytest.mark.parametrize(
    ("bbox", "said"),
    [
        ([1, 2, 3], r"must have \[left, top, width, height\] as `bbox`; got \[1, 2, 3\]"),
        ([], "must have"),
        (None, "must have a list as `bbox`; got None"),
        ({"x": 1}, "must have a list as `bbox`; got {'x': 1}"),
        ("1234", "must have a list as `bbox`; got '1234'"),
        ([1, 2, "3", 4], r"must have four numbers as `bbox`; got \[1, 2, '3', 4\]"),
        ([1, 2, True, 4], "must have four numbers"),
        ([1, 2, None, 4], "must have four numbers"),
        ([[1, 2], 2, 3, 4], "must have four numbers"),
        ([1, 2, -3, 4], r"a width and a height of 0 or more in `bbox`.*; got \[1, 2, -3, 4\]"),
        ([1, 2, 3, -0.5], "a width and a height of 0 or more"),
        ([math.nan, 2, 3, 4], "must have finite numbers in `bbox`"),
        ([1, 2, math.inf, 4], "must have finite numbers in `bbox`"),
        ([1, 2, 10**400, 4], "must have finite numbers in `bbox`"),
    ],
)
def test_what_is_no_box(bbox, said: str) -> None:
    with pytest.raises(InvalidInputError, match=f"number 1 of FILE .*{said}|number 1 of FILE {said}"):
        corners_of([{"bbox": [0, 0, 0, 0]}, {"bbox": bbox}], "bbox", "FILE")


def test_numbers_of_numpy_are_numbers() -> None:
    assert corners_of([{"bbox": np.array([1, 2, 3, 4.5], dtype=np.float32)}], "bbox", "F").tolist() == [[1, 2, 4, 6.5]]
    assert integers_of([{"id": np.int32(3)}], "id", "F").tolist() == [3]
    assert unit_scores_of([{"score": np.float64(0.5)}, {"score": 1}], "score", "F").tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (1.0001, r"must have a `score` in \[0, 1\]; got 1.0001"),
        (-0.1, "got -0.1"),
        (87.5, "got 87.5. Divide percentages by 100"),
        (math.nan, "got nan"),
        (math.inf, "got inf"),
        (10**400, r"in \[0, 1\]"),
        ("0.5", "must have a number as `score`; got '0.5'"),
        (True, "must have a number as `score`; got True"),
        (None, "must have a number as `score`; got None"),
        ([0.5], "must have a number"),
    ],
)
def test_what_is_no_score(score, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as raised:
        unit_scores_of([{"score": 0.1}, {"score": 0}, {"score": score}], "score", "FILE")
    assert str(raised.value).startswith("number 2 of FILE must")


@pytest.mark.parametrize("value", [1.0, True, "1", None, [1], math.nan])
def test_what_is_no_integer(value) -> None:
    with pytest.raises(InvalidInputError, match="number 0 of F must have an integer as `category_id`; got"):
        integers_of([{"category_id": value}], "category_id", "F")


def test_an_integer_of_64_bits() -> None:
    assert integers_of([{"id": 2**63 - 1}, {"id": -(2**63)}], "id", "F").tolist() == [2**63 - 1, -(2**63)]
    with pytest.raises(InvalidInputError, match="number 1 of F must have an integer of 64 bits as `id`"):
        integers_of([{"id": 0}, {"id": 2**63}], "id", "F")


def test_flags() -> None:
    rows = [{"iscrowd": 1}, {}, {"iscrowd": False}, {"iscrowd": True}, {"iscrowd": 0}]
    assert flags_of(rows, "iscrowd", "F").tolist() == [True, False, False, True, False]
    with pytest.raises(InvalidInputError, match="number 0 of F must have 0 or 1 as `iscrowd`; got 'no'"):
        flags_of([{"iscrowd": "no"}], "iscrowd", "F")


def test_missing_keys_and_wrong_rows() -> None:
    with pytest.raises(InvalidInputError, match="number 1 of F has no `id`; its keys are name, x"):
        ids_of([{"id": 1}, {"name": 1, "x": 2}], "id", "F")
    with pytest.raises(InvalidInputError, match="F must be a list; got an object"):
        checked_rows({}, "F")
    with pytest.raises(InvalidInputError, match="F must be a list; got null"):
        checked_rows(None, "F")
    with pytest.raises(InvalidInputError, match=r"number 1 of F must be an object; got \[1, 2\]"):
        checked_rows([{}, [1, 2]], "F")
    with pytest.raises(InvalidInputError, match="number 0 of F must have a string as `file_name`; got 7"):
        strings_of([{"file_name": 7}], "file_name", "F")
    with pytest.raises(InvalidInputError, match="number 0 of F must have a `file_name`; it is empty"):
        strings_of([{"file_name": ""}], "file_name", "F")
    with pytest.raises(InvalidInputError, match="number 0 of F must have an integer or a string as `id`; got True"):
        ids_of([{"id": True}], "id", "F")
    with pytest.raises(InvalidInputError, match="F must have distinct `id`s; got 3 twice"):
        check_distinct([3, 4, 3], "id", "F")


def test_images_are_found_by_their_ids() -> None:
    assert rows_of_images([7, 3, 7], [3, 5, 7], "F", "`images`").tolist() == [2, 0, 2]
    with pytest.raises(InvalidInputError) as raised:
        rows_of_images([7, "3"], [3, 5, 7], "F", "`images` of G")
    assert str(raised.value) == (
        "number 1 of F has the `image_id` '3', which is not among the 3 ids of `images` of G; there it is 3, of the "
        "type int"
    )
