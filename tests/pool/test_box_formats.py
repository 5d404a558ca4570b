"""`BoundingBoxes` of every format become corners, or are refused by name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from cval_torch.errors import InvalidInputError
from cval_torch.pool.box_formats import as_corners, format_of
from cval_torch.pool.pool import Pool

NUMBERS = st.integers(0, 1000).map(lambda number: number / 4)
ROTATED = [name for name in ("XYWHR", "CXCYWHR", "XYXYXYXY") if hasattr(BoundingBoxFormat, name)]


def boxes_of(rows: list[list[float]], form: str, dtype: torch.dtype = torch.float32) -> BoundingBoxes:
    tensor = torch.tensor(rows, dtype=dtype).reshape(-1, 4)
    return BoundingBoxes(tensor, format=form, canvas_size=(999, 999))


@given(rows=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4))
def test_corners_are_those_of_a_naive_loop(rows: list[tuple[float, float, float, float]]) -> None:
    corners = [[x, y, x + width, y + height] for x, y, width, height in rows]
    given = {
        "XYXY": corners,
        "XYWH": [list(row) for row in rows],
        "CXCYWH": [[x + width / 2, y + height / 2, width, height] for x, y, width, height in rows],
    }
    for form, values in given.items():
        for dtype in (torch.float32, torch.float64):
            found = as_corners(boxes_of(values, form, dtype), "`boxes`")
            assert type(found) is torch.Tensor
            assert found.dtype == dtype
            assert found.tolist() == corners


def test_integers_keep_their_halves() -> None:
    found = as_corners(boxes_of([[5, 5, 3, 4]], "CXCYWH", torch.int64), "`boxes`")
    assert found.tolist() == [[3.5, 3.0, 6.5, 7.0]]


def test_half_precision_is_not_lost_on_the_way() -> None:
    found = as_corners(boxes_of([[1001, 3, 10, 4]], "XYWH", torch.float16), "`boxes`")
    assert found.dtype == torch.float16
    assert found.tolist() == [[1001, 3, 1011, 7]]


def test_plain_tensors_are_taken_as_they_are() -> None:
    plain = torch.tensor([[1.0, 2, 3, 4]], requires_grad=True)
    assert as_corners(plain, "`boxes`") is plain
    assert format_of(plain) is None
    assert format_of("text") is None


def rotated(form: str) -> BoundingBoxes:
    width = 8 if form == "XYXYXYXY" else 5
    return BoundingBoxes(torch.rand(2, width), format=form, canvas_size=(9, 9))


@pytest.mark.parametrize("form", ROTATED)
def test_rotated_boxes_are_refused_by_the_name_of_their_format(form: str) -> None:
    message = f"`boxes` of frame 'a' must have sides along the axes: .* got the format {form}. Pass the upright rect"
    with pytest.raises(InvalidInputError, match=message):
        as_corners(rotated(form), "`boxes` of frame 'a'")
    with pytest.raises(InvalidInputError, match=f"`boxes` must have sides .* got the format {form}"):
        Pool(["a"], torch.tensor([0, 2]), boxes=rotated(form))


@pytest.mark.parametrize("form", ["XYWH", "CXCYWH"])
def test_a_pool_converts_its_boxes(form: str) -> None:
    values = {"XYWH": [10.0, 20, 30, 40], "CXCYWH": [25.0, 40, 30, 40]}
    pool = Pool(["a", "b"], torch.tensor([0, 1, 1]), boxes=boxes_of([values[form]], form))
    assert type(pool.boxes) is torch.Tensor
    assert pool.boxes.tolist() == [[10, 20, 40, 60]]
