"""Loaders that yield a share of the frames, or draw their order by chance, are told as such."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from processes import BOTH, Outcomes, values
from tiny_rcnn import Frames
from torch.utils.data import DataLoader, DistributedSampler

from cval_torch.errors import LoaderOrderError
from cval_torch.extraction.loading import order_varies, plan_loading, share_of


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
