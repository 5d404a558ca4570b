"""Pools of several processes, brought together."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import BOTH, Outcomes, values
from threads_as_ranks import as_ranks, sent_by

from cval_torch.errors import InvalidInputError, RankError
from cval_torch.pool.gathering import empty_pool, gather_pools, same_layout
from cval_torch.pool.layout import Layout
from cval_torch.pool.pool import Pool


@BOTH
def test_extraction_is_that_of_one_process_bit_for_bit(ranks: Outcomes) -> None:
    assert values(ranks, "extraction_is_that_of_one_process") == [[True, True, True]] * len(ranks)


@BOTH
def test_a_rank_without_frames_has_no_rows_but_all_columns(ranks: Outcomes) -> None:
    frames = values(ranks, "a_rank_without_frames_has_an_empty_share")
    assert [share[0] for share in frames] == [1] + [0] * (len(ranks) - 1)
    assert frames[0][1] > 0
    assert all(share[1:] == [0, frames[0][2]] for share in frames[1:])
    assert "box_embeddings" in frames[0][2]


def pool_of(rows: list[int], *, width: int = 3) -> Pool:
    """Frames whose boxes and numbers say which row of the whole they are."""
    boxes = [row for row in rows for _ in range(row % 3)]
    numbers = torch.tensor(boxes, dtype=torch.float32)
    return Pool(
        [f"f{row}" for row in rows],
        torch.tensor([0, *(row % 3 for row in rows)]).cumsum(0),
        scores=numbers / 100,
        labels=torch.tensor(boxes, dtype=torch.int64),
        box_embeddings=numbers[:, None].expand(-1, width).half(),
        frame_embeddings=torch.tensor(rows, dtype=torch.float32).reshape(-1, 1),
        indices=torch.tensor(rows, dtype=torch.int64),
    )


def assert_same(got: Pool, expected: Pool) -> None:
    assert got.frame_ids == expected.frame_ids
    for (name, column), (other_name, other) in zip(got.columns(), expected.columns(), strict=True):
        assert name == other_name
        assert column.dtype == other.dtype
        assert torch.equal(column, other), name


@given(data=st.data(), frames=st.integers(1, 12), size=st.integers(1, 4), to=st.sampled_from([None, 0, -1]))
@settings(deadline=None, max_examples=40)
def test_shares_of_any_kind_are_the_whole(data: st.DataObject, frames: int, size: int, to: int | None) -> None:
    """Frames are dealt out by chance, and each rank has its own in an order of its own; some may have none."""
    order = data.draw(st.permutations(range(frames)))
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), min_size=size - 1, max_size=size - 1)))
    shares = [list(order[begin:end]) for begin, end in itertools.pairwise([0, *cuts, frames])]
    receiver = None if to is None else to % size
    outcomes = as_ranks(
        size, lambda ranks: gather_pools(pool_of(shares[ranks.rank]), shares[ranks.rank], ranks, to=receiver)
    )
    whole = pool_of(list(range(frames)))
    for rank, got in enumerate(outcomes):
        assert_same(got, whole if receiver in (None, rank) or size == 1 else pool_of(shares[rank]))


def test_what_travels_goes_to_the_receiver_alone() -> None:
    shares = [[0, 2], [1]]
    sent = sent_by(2, lambda ranks: gather_pools(pool_of(shares[ranks.rank]), shares[ranks.rank], ranks, to=1))
    assert {to for _, to, _ in sent} == {1}
    sent = sent_by(2, lambda ranks: gather_pools(pool_of(shares[ranks.rank]), shares[ranks.rank], ranks))
    assert {to for _, to, _ in sent} == {None}


def test_long_columns_travel_in_pieces() -> None:
    """No more than 64 MiB at a time: of 3 rows of 2^25 bytes each, two and one."""
    wide = Pool(["a", "b", "c"], torch.zeros(4, dtype=torch.int64), frame_embeddings=torch.zeros(3, 2**23))
    sent = sent_by(1, lambda ranks: None)
    assert sent == []
    shares = [[0, 1, 2], []]
    sent = sent_by(2, lambda ranks: gather_pools(wide.take(shares[ranks.rank]), shares[ranks.rank], ranks, to=1))
    assert [numbers for source, _, numbers in sent if source == 0 and numbers] == [2 * 2**23, 2**23]


def test_an_id_in_two_shares_is_an_error_in_the_one_that_gathers() -> None:
    shares = [pool_of([0, 1]), pool_of([1]).replace(indices=torch.tensor([2]))]
    places = [[0, 1], [2]]
    first, second = as_ranks(2, lambda ranks: gather_pools(shares[ranks.rank], places[ranks.rank], ranks, to=0))
    assert isinstance(first, InvalidInputError)
    assert "got 'f1' again in row 2" in str(first)
    assert isinstance(second, RankError)


def test_a_rank_without_a_pool_has_the_columns_of_the_others() -> None:
    pool = pool_of([1, 2])
    none, own = as_ranks(2, lambda ranks: same_layout([None, pool][ranks.rank], ranks))
    assert own is pool
    assert len(none) == 0
    assert Layout.of(none) == Layout.of(pool)
    assert Layout.of(empty_pool(Layout.of(pool))) == Layout.of(pool)


def test_columns_that_differ_and_no_frames_anywhere() -> None:
    pools = [pool_of([1]), pool_of([2], width=4)]
    for error in as_ranks(2, lambda ranks: same_layout(pools[ranks.rank], ranks)):
        assert isinstance(error, InvalidInputError)
        assert "the processes' columns differ, in rank 1: `box_embeddings` had 3 numbers a row" in str(error)
    for error in as_ranks(3, lambda ranks: same_layout(None, ranks)):
        assert isinstance(error, InvalidInputError)
        assert "`loader` must yield at least one frame; got none" in str(error)
