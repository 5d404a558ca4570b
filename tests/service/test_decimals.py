"""float32 numbers in few digits; `codec/test_numbers` asks the same of columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.service.decimals import shortest_doubles


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=50))
def test_they_are_the_same_numbers(values: list[float]) -> None:
    singles = np.array(values, dtype=np.float32)
    assert np.array_equal(shortest_doubles(singles).astype(np.float32), singles)


def test_any_shape_and_order() -> None:
    singles = np.array([[0.1, 0.25], [0.5, 1e-3], [2.0, -7.0]], dtype=np.float32).T
    assert shortest_doubles(singles).tolist() == [[0.1, 0.5, 2.0], [0.25, 0.001, -7.0]]
