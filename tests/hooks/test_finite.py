"""NaN and inf are found wherever they are, and the first frame that has them is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.hooks.finite import NotFiniteError, check_maps, check_rows, is_finite

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_anywhere(dtype: torch.dtype, number: float) -> None:
    for place in range(6):
        values = torch.arange(6, dtype=dtype).reshape(2, 3)
        assert is_finite(values)
        values.view(-1)[place] = number
        assert not is_finite(values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_whose_sum_overflows_are_finite(dtype: torch.dtype) -> None:
    assert is_finite(torch.full((1000,), torch.finfo(dtype).max, dtype=dtype))


@pytest.mark.parametrize("values", [torch.tensor([1, 2]), torch.tensor([True]), torch.empty(0), torch.empty(0, 4)])
def test_integers_and_nothing_are_finite(values: Tensor) -> None:
    assert is_finite(values)


def test_inf_and_minus_inf_do_not_cancel() -> None:
    assert not is_finite(torch.tensor([torch.inf, -torch.inf]))


def test_rows_name_the_frame_of_the_first() -> None:
    values = torch.zeros(5, 2)
    frames = torch.tensor([0, 0, 1, 2, 2])
    check_rows(values, frames, "the logits")
    values[4, 1] = torch.nan
    values[3, 0] = torch.inf
    with pytest.raises(NotFiniteError, match="NaN or inf in the logits of image 2 of the batch") as raised:
        check_rows(values, frames, "the logits")
    assert (raised.value.place, raised.value.what) == (2, "the logits")
    assert isinstance(raised.value, InvalidInputError)


def test_maps_name_the_first_frame_of_all() -> None:
    maps = [torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 2, 2)]
    check_maps(maps, "the maps")
    maps[0][2, 1, 3, 3] = torch.nan
    maps[1][1, 0, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="in the maps of image 1 of the batch"):
        check_maps(maps, "the maps")
