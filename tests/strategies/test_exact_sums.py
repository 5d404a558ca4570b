"""`FixedPoint` against sums without rounding."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.strategies.exact_sums import FixedPoint


@given(
    exponents=st.lists(st.integers(-12, 0), min_size=1, max_size=60),
    fine=st.booleans(),
    largest=st.sampled_from([1e-20, 0.7, 4.0, 1e20]),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_sums_are_exact_in_any_order(exponents: list[int], fine: bool, largest: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.tensor(exponents, dtype=torch.float64)[:, None]
    values = (torch.rand(len(exponents), 2, generator=generator, dtype=torch.float64) * 2 - 1) * scale * largest
    labels = torch.randint(0, 3, (len(values),), generator=generator)
    point = FixedPoint(largest, len(values), fine)
    words = point.zeros(3, 2, device="cpu")
    point.add(words, values, labels)
    parts = [point.zeros(3, 2, device="cpu") for _ in range(2)]
    order = torch.randperm(len(values), generator=generator)
    for number, part in enumerate(parts):
        point.add(part, values[order[number::2]], labels[order[number::2]])
    assert torch.equal(sum(parts), words)
    for label in range(3):
        for column in range(2):
            expected = math.fsum(values[labels == label, column].tolist())
            error = abs(float(point.value(words)[label, column]) - expected)
            # each number is cut off once, after so many bits of twice the largest; a float64 holds 53 bits of the sum
            bits = 51 - len(values).bit_length()
            assert error <= largest * len(values) * 2.0 ** -(2 * bits if fine else bits) + 2.0**-52 * abs(expected)


def test_numbers_that_are_small_beside_the_largest_are_kept_where_they_are_alone() -> None:
    values = torch.tensor([[1.0], [3e-13], [1e-13]])
    labels = torch.tensor([0, 1, 1])
    point = FixedPoint(1.0, 1_000_000, fine=True)
    words = point.zeros(2, 1, device="cpu")
    point.add(words, values, labels)
    assert abs(float(point.value(words)[1]) / 4e-13 - 1) < 1e-6
