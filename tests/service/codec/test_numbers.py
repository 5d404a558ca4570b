"""Numbers on the wire: short, and the same floats again."""

from __future__ import annotations

import json
import struct

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cval_torch.service.codec.numbers import inner_scores, short_decimals

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bits(value: float) -> bytes:
    return struct.pack("<f", value)


@given(values=st.lists(singles, min_size=1, max_size=50))
@settings(deadline=None)
@example(values=[0.0, -0.0, 1.0, 1e-45, 3.4028234663852886e38, 1.17549435e-38, 16777216.0, 1e-14, 1e22, 0.1, -0.3])
def test_short_decimals_are_the_same_floats(values: list[float]) -> None:
    column = torch.tensor(values, dtype=torch.float32)
    short = short_decimals(column)
    read = np.array([float(text) for text in json.loads(json.dumps([repr(v) for v in short.tolist()]))])
    assert [bits(v) for v in read.astype(np.float32)] == [bits(v) for v in column.numpy()]
    for value, text in zip(values, map(repr, short.tolist()), strict=True):
        if 1e-13 < abs(value) < 1e14:
            digits = text.split("e")[0].replace(".", "").replace("-", "").strip("0")
            assert len(digits) <= 9, (value, text)


def test_short_decimals_are_about_as_short_as_numpy_prints_a_float32() -> None:
    column = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    ours = sum(len(repr(value)) for value in short_decimals(column).tolist())
    shortest = sum(len(np.format_float_positional(value, unique=True)) for value in column.numpy())
    assert shortest <= ours <= 1.05 * shortest


def test_half_precision_and_doubles_keep_their_values() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        column = torch.randn(100, dtype=dtype, generator=torch.Generator().manual_seed(1))
        assert torch.equal(torch.from_numpy(short_decimals(column)).to(dtype), column)


@given(values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
@settings(deadline=None)
@example(values=[0.0, 1.0, 1e-45, 1 - 2**-24])
def test_scores_are_inside_on_the_wire_and_the_same_in_float32(values: list[float]) -> None:
    column = torch.tensor(values, dtype=torch.float32)
    inside = inner_scores(column)
    assert all(0 < value < 1 for value in inside.tolist())
    assert torch.equal(torch.from_numpy(inside).float(), column)
