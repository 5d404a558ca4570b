"""NaN and inf are found wherever they are, and the first frame that has them is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cval_torch.errors import InvalidInputError
from cval_torch.hooks.finite import FiniteChecks, NotFiniteError, check_maps, check_rows, is_finite

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


class Waits(TorchDispatchMode):
    """Counts what makes a program wait for a GPU: numbers that Python looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_all_maps_are_looked_at_at_once() -> None:
    maps = [torch.zeros(2, 3, size, size) for size in (8, 4, 2, 1)]
    with Waits() as waits:
        check_maps(maps, "the maps")
    assert waits.count == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [None, float("nan"), float("inf"), -float("inf")])
def test_maps_of_several_dtypes_whose_sums_overflow(dtype: torch.dtype, number: float | None) -> None:
    largest = torch.full((2, 3, 40, 40), torch.finfo(dtype).max, dtype=dtype)
    maps = [torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, dtype=torch.int64), largest, torch.empty(2, 0), -largest.float()]
    maps = [values for values in maps if values.isfinite().all()]
    if number is None:
        check_maps(maps, "the maps")
        return
    largest[1, 2, 39, 39] = number
    with pytest.raises(NotFiniteError, match="of image 1 of the batch"):
        check_maps(maps, "the maps")


def test_no_maps() -> None:
    check_maps([], "the maps")
    check_maps([torch.zeros(2, 1, dtype=torch.int64)], "the maps")


def test_several_checks_wait_once_and_the_first_that_fails_is_told() -> None:
    maps, numbers = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)], torch.zeros(2, dtype=torch.int64)
    rows, frames = torch.zeros(5, 2), torch.tensor([0, 0, 1, 1, 1])

    def checks() -> FiniteChecks:
        return FiniteChecks().maps([*maps, numbers], "the maps").rows(rows, frames, "the logits")

    with Waits() as waits:
        checks().check()
    assert waits.count == 1
    rows[4, 0] = torch.inf
    with pytest.raises(NotFiniteError, match="in the logits of image 1"):
        checks().check()
    maps[1][0, 0, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="in the maps of image 0"):
        checks().check()
    FiniteChecks().check()
    rows.fill_(torch.finfo(rows.dtype).max)  # whose sum is not finite
    maps[1].zero_()
    checks().check()
