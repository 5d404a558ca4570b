"""One process leads, the others do what it asks; real processes are met in `test_together.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from threads_as_ranks import as_ranks

from cval_torch.errors import RankError
from cval_torch.pool.ranks import Ranks
from cval_torch.pool.team import Team


def _times(keeps: int, factor: int) -> int:
    return keeps * factor


def _numbers(keeps: int) -> torch.Tensor:
    return torch.tensor([keeps, 1])


def _rows(keeps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of rank 0 at the odd places, two of rank 1 at the others."""
    count = 2 if keeps == 3 else 3
    return torch.full((count, 2), float(keeps)), torch.arange(count) * 2 + (1 if keeps == 3 else 0)


def _fail(keeps: int) -> None:
    if keeps == 3:
        raise OSError("disk full")


def _team(ranks: Ranks) -> Team:
    return Team(ranks, [5, 3, 7][ranks.rank])


def test_what_is_asked_for_is_done_in_every_process() -> None:
    def work(ranks: Ranks) -> Any:
        team = _team(ranks)
        return team.lead(lambda: (team.each(_times, 2), team.total(_numbers).tolist(), team.rows(_rows).tolist()))

    led, obeyed = as_ranks(2, work)
    assert led == ([10, 6], [8, 2], [[5, 5], [3, 3], [5, 5], [3, 3], [5, 5]])
    assert obeyed is None


@pytest.mark.parametrize("few", [0, 20, 24])
def test_rows_travel_with_their_places_only_where_all_have_few(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 has 24 bytes of rows, rank 1 has 16."""
    monkeypatch.setattr("cval_torch.pool.team._FEW_BYTES", few)

    def work(ranks: Ranks) -> Any:
        team = _team(ranks)
        return team.lead(lambda: team.rows(_rows).tolist())

    assert as_ranks(2, work) == [[[5, 5], [3, 3], [5, 5], [3, 3], [5, 5]], None]


def test_one_process_leads_itself() -> None:
    team = Team(Ranks(distributed=False), 5)
    assert team.lead(lambda: (team.each(_times, 2), team.total(_numbers).tolist())) == ([10], [5, 1])


def test_an_error_where_work_is_done_is_an_error_in_all() -> None:
    def work(ranks: Ranks) -> Any:
        team = _team(ranks)
        return team.lead(lambda: team.each(_fail))

    leader, failed, other = as_ranks(3, work)
    assert isinstance(failed, OSError)
    for error in (leader, other):
        assert isinstance(error, RankError)
        assert error.rank == 1
        assert "disk full" in str(error)


def test_an_error_of_the_leader_is_an_error_in_all() -> None:
    def work(ranks: Ranks) -> Any:
        team = _team(ranks)

        def lead() -> None:
            team.each(_times, 2)
            raise ValueError("no frames")

        return team.lead(lead)

    leader, *others = as_ranks(3, work)
    assert isinstance(leader, ValueError)
    for error in others:
        assert isinstance(error, RankError)
        assert error.rank == 0
        assert "ValueError: no frames" in str(error)


def test_only_the_leader_gives_orders() -> None:
    def work(ranks: Ranks) -> Any:
        team = _team(ranks)
        if ranks.rank == 1:
            with pytest.raises(ValueError, match="rank 0"):
                team.each(_times, 1)
        return team.lead(lambda: team.each(_times, 1))

    assert as_ranks(2, work) == [[5, 3], None]
