"""Means and deviations of vectors: against sums without rounding, and in whatever processes the vectors lie."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threads_as_ranks import as_ranks

from cval_torch.pool.ranks import Ranks
from cval_torch.pool.team import Team
from cval_torch.strategies.points import Taken
from cval_torch.strategies.shared_rows import Keeps, SharedRows
from cval_torch.strategies.standard import Standard


def vectors_of(count: int, seed: int) -> torch.Tensor:
    """Coordinates of many sizes, each with an outlier; one is always 3, and one 0."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, 6, generator=generator) * torch.tensor([1e-20, 1e-3, 1.0, 1e12, 0.0, 0.0])
    vectors[0] *= 1000
    vectors[:, 4] = 3.0
    return vectors


def exact(columns: list[torch.Tensor]) -> tuple[list[float], list[float]]:
    """By `math.fsum`, which does not round before the end."""
    rows = torch.cat(columns).double()
    middle = [math.fsum(column.tolist()) / len(column) for column in rows.T]
    squares = [math.fsum(((column - about) ** 2).tolist()) for column, about in zip(rows.T, middle, strict=True)]
    return middle, [math.sqrt(each / len(rows)) for each in squares]


@given(counts=st.lists(st.integers(1, 400), min_size=1, max_size=2), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_they_are_those_of_all_points(counts: list[int], seed: int) -> None:
    clouds = [vectors_of(count, seed + place) for place, count in enumerate(counts)]
    found = Standard.of(clouds)
    assert found is not None
    middle, spread = exact(clouds)
    for place in range(6):  # cut off once, after 42 bits and more of the largest
        scale = float(torch.cat(clouds)[:, place].abs().amax())
        assert found.middle[place].item() == pytest.approx(middle[place], rel=1e-12, abs=1e-12 * scale)
        assert found.spread[place].item() == pytest.approx(spread[place], rel=1e-9, abs=1e-12 * scale + 1e-300)


@pytest.mark.parametrize("some", [None, torch.tensor([7, 2, 2, 30, 11])])
def test_points_that_lie_apart_have_the_same_ones_and_stay_there(
    some: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, others = vectors_of(40, 1), vectors_of(5, 2)
    monkeypatch.setattr(SharedRows, "__getitem__", None)  # nothing is brought to rank 0

    def run(ranks: Ranks) -> Standard | None:
        mine = torch.arange(ranks.rank, 40, 3).flip(0) if ranks.rank < 2 else torch.tensor([], dtype=torch.int64)
        mine = torch.cat([mine, torch.arange(2, 40, 3)]) if ranks.rank == 0 else mine
        team = Team(ranks, Keeps(mine, {"frames": vectors[mine]} if len(mine) else {}, {}))
        shared = SharedRows(team, "frames", vectors[:0], 40)
        return team.lead(lambda: Standard.of([shared.points(some), others]))

    apart, *rest = as_ranks(3, run)
    whole = Standard.of([vectors if some is None else Taken(vectors, some), others])
    assert rest == [None, None]
    assert isinstance(apart, Standard), apart
    assert whole is not None
    assert torch.equal(apart.middle, whole.middle)
    assert torch.equal(apart.spread, whole.spread)


def test_none_where_a_pool_has_no_vectors() -> None:
    assert Standard.of([vectors_of(3, 0), None]) is None
