"""Loaders that yield a share of the frames, or draw their order by chance, are told as such."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import BOTH, Outcomes, values
from threads_as_ranks import as_ranks
from tiny_rcnn import Frames
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from cval_torch.errors import InvalidInputError, LoaderOrderError
from cval_torch.extraction.dealing import Shares, deal
from cval_torch.extraction.loading import order_varies, plan_loading, share_of
from cval_torch.pool.ranks import Ranks


def test_lightnings_samplers_are_told_as_shares() -> None:
    """Lightning wraps a user's sampler in a subclass of torch's; for prediction in one that does not pad."""
    pytest.importorskip("lightning")
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
    from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSamplerWrapper

    for wrapper in (DistributedSamplerWrapper, UnrepeatedDistributedSamplerWrapper):
        sampler = wrapper([4, 3, 2, 1, 0], num_replicas=2, rank=1, shuffle=False)
        loader = DataLoader(Frames(5), batch_size=2, sampler=sampler)
        assert share_of(loader) == (1, 2)
        assert (plan_loading(loader).batches or [])[0] == [3, 1]


def test_a_sampler_that_drops_frames_is_completed_or_refused() -> None:
    def rows(**options: Any) -> list[int]:
        sampler: DistributedSampler[Any] = DistributedSampler(Frames(7), num_replicas=3, **options)
        sampler.set_epoch(5)
        return [row for batch in plan_loading(DataLoader(Frames(7), sampler=sampler)).batches or [] for row in batch]

    for shuffle in (False, True):
        dropping = [rows(rank=rank, shuffle=shuffle, seed=2, drop_last=True) for rank in range(3)]
        assert dropping == [rows(rank=rank, shuffle=shuffle, seed=2) for rank in range(3)]
        assert {row for own in dropping for row in own} == set(range(7))

    class Own(DistributedSampler[Any]):
        pass

    sampler = Own(Frames(7), num_replicas=3, rank=0, drop_last=True)
    with pytest.raises(LoaderOrderError, match=r"has a Own with drop_last=True, which leaves frames out"):
        plan_loading(DataLoader(Frames(7), sampler=sampler))


def test_whether_an_order_is_drawn_by_chance_is_found_out_without_a_trace() -> None:
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    own = generator.get_state()
    assert order_varies(DataLoader(Frames(30), shuffle=True))
    assert order_varies(DataLoader(Frames(30), shuffle=True, generator=generator, batch_size=None))
    assert not order_varies(DataLoader(Frames(30), batch_size=4))
    assert not order_varies(DataLoader(Frames(30), sampler=[3, 1, 2]))
    assert not order_varies([])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(generator.get_state(), own)


@BOTH
def test_shuffling_loaders_agree_on_one_order(ranks: Outcomes) -> None:
    orders = values(ranks, "shuffling_loaders_agree_on_rank_zeros_order")
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0][0]) == list(range(8))
    assert orders[0][1]


def test_without_gathering_each_has_its_share(two: Outcomes) -> None:
    shares = values(two, "shares_are_disjoint_and_together_the_whole")
    assert shares == [[["0", "1", "4", "5", "8"], True], [["2", "3", "6", "7"], True]]


@BOTH
def test_the_padding_of_samplers_vanishes_and_nothing_is_dropped(ranks: Outcomes) -> None:
    orders = values(ranks, "padding_of_samplers_vanishes")
    assert all(order == orders[0] for order in orders)
    plain, shuffled, dropping = orders[0]
    assert plain == dropping == list(range(5))  # in turn, as the sampler deals them
    assert sorted(shuffled) == plain
    assert shuffled != plain


def test_shares_made_by_hand_stay_where_they_are(two: Outcomes) -> None:
    assert values(two, "shares_made_by_hand_are_kept") == [
        [list(range(7)), [0, 2, 4, 6]],
        [list(range(7)), [1, 3, 5]],
    ]


class Rows(Dataset[int]):
    """Row `i` is `i`; datasets of one length are alike."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> int:
        return row


def dealt(size: int, loader: Callable[[int], Any]) -> list[Any]:
    return as_ranks(size, lambda ranks: deal(loader(ranks.rank), ranks))


def check_shares(shares: list[Shares], rows: list[int]) -> None:
    """All ranks know one plan, in which every row comes once; the places of all ranks together are the whole."""
    plan = shares[0].plan.batches
    assert plan is not None
    assert sorted(row for batch in plan for row in batch) == sorted(rows)
    places: list[int] = []
    for rank, share in enumerate(shares):
        assert share.plan.batches == plan
        assert share.owners == shares[0].owners
        numbers = share.numbers(rank)
        assert numbers == [number for number, owner in enumerate(share.owners or ()) if owner == rank]
        starts = [sum(map(len, plan[:number])) for number in range(len(plan))]
        expected = [starts[number] + each for number in numbers or () for each in range(len(plan[number]))]
        assert share.places(rank) == expected
        places += expected
    assert sorted(places) == list(range(len(rows)))


@given(n=st.integers(1, 13), batch_size=st.integers(1, 4), size=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_loaders_of_the_same_frames_are_dealt_in_turn(n: int, batch_size: int, size: int) -> None:
    shares = dealt(size, lambda rank: DataLoader(Rows(n), batch_size=batch_size))
    check_shares(shares, list(range(n)))
    assert shares[0].owners == [number % size for number in range(math.ceil(n / batch_size))]


def test_where_each_shuffles_rank_zeros_order_is_everybodys() -> None:
    def loader(rank: int) -> DataLoader[int]:
        return DataLoader(Rows(9), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(rank))

    shares = dealt(3, loader)
    check_shares(shares, list(range(9)))
    assert shares[1].plan.batches == plan_loading(loader(0)).batches != plan_loading(loader(1)).batches


@given(n=st.integers(1, 13), batch_size=st.integers(1, 3), size=st.integers(2, 4), shuffle=st.booleans())
@settings(deadline=None, max_examples=40)
def test_distributed_samplers_keep_their_shares_without_the_padding(
    n: int, batch_size: int, size: int, shuffle: bool
) -> None:
    def loader(rank: int) -> DataLoader[int]:
        sampler: DistributedSampler[int] = DistributedSampler(Rows(n), size, rank, shuffle=shuffle, seed=3)
        return DataLoader(Rows(n), batch_size=batch_size, sampler=sampler)

    shares = dealt(size, loader)
    check_shares(shares, list(range(n)))
    for rank, share in enumerate(shares):
        drawn = [row for batch in plan_loading(loader(rank)).batches or () for row in batch]
        assert share.plan.batches is not None
        assert {row for number in share.numbers(rank) or () for row in share.plan.batches[number]} <= set(drawn)


def test_disjoint_frames_stay_where_they_are_and_overlaps_are_refused() -> None:
    shares = dealt(2, lambda rank: DataLoader(Rows(7), sampler=range(rank, 7, 2), batch_size=3))
    check_shares(shares, list(range(7)))
    assert [share.places(rank) for rank, share in enumerate(shares)] == [[0, 1, 2, 6], [3, 4, 5]]
    for error in dealt(2, lambda rank: DataLoader(Rows(7), sampler=[0, 1 + rank, 3 + rank])):
        assert isinstance(error, LoaderOrderError)
        assert "row 0 is drawn by ranks 0 and 1" in str(error)


@pytest.mark.parametrize(
    ("told", "named"),
    [([(0, 2), (0, 2)], "0 of 2, 0 of 2"), ([(0, 3), (1, 3)], "0 of 3, 1 of 3"), ([(0, 2), None], "0 of 2, none")],
)
def test_samplers_that_do_not_make_up_the_whole_are_refused(told: list[Any], named: str) -> None:
    def loader(rank: int) -> DataLoader[int]:
        if told[rank] is None:
            return DataLoader(Rows(6))
        own, of = told[rank]
        return DataLoader(Rows(6), sampler=DistributedSampler(Rows(6), of, own, shuffle=False))

    for error in dealt(2, loader):
        assert isinstance(error, LoaderOrderError)
        assert f"they are for the ranks: {named}" in str(error)


def test_other_datasets_and_streams_are_refused_among_several() -> None:
    for error in dealt(2, lambda rank: DataLoader(Rows(6 + rank))):
        assert isinstance(error, InvalidInputError)
        assert "the dataset's length is 6 in rank 0 and 7 in rank 1" in str(error)
    for error in dealt(2, lambda rank: [torch.zeros(1)]):
        assert isinstance(error, LoaderOrderError)
    alone = deal([torch.zeros(1)], Ranks(distributed=False))
    assert (alone.owners, alone.numbers(0), alone.places(0)) == (None, None, [])
