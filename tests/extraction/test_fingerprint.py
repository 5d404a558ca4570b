"""Which weights a model has, as a short string."""

from __future__ import annotations

from processes import Outcomes, values


def test_batchnorm_statistics_are_rank_zeros_meanwhile_and_each_ones_own_afterwards(two: Outcomes) -> None:
    assert values(two, "other_batchnorm_statistics_are_rank_zeros_meanwhile") == [[True, True]] * 2
