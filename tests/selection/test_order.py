"""Orders that a loader has no say in, against plain sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.selection.order import order_of_ids, rows_by_id, shuffled

ids = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), min_size=1, max_size=12, unique=True)


@given(frame_ids=ids, data=st.data())
def test_rows_come_by_the_id_of_their_frame(frame_ids: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(frame_ids) - 1), unique=True))
    given_rows = torch.tensor(rows, dtype=torch.int64)
    by_id = sorted(rows, key=lambda row: frame_ids[row])
    assert rows_by_id(frame_ids, given_rows).tolist() == by_id
    assert order_of_ids(frame_ids, given_rows).tolist() == [rows.index(row) for row in by_id]
    assert order_of_ids(frame_ids, given_rows).dtype == torch.int64


@given(frame_ids=ids, data=st.data())
def test_the_order_in_which_frames_came_does_not_show(frame_ids: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(frame_ids))))
    moved = [frame_ids[row] for row in order]
    everything = torch.arange(len(frame_ids))
    named = [frame_ids[row] for row in rows_by_id(frame_ids, everything).tolist()]
    assert named == [moved[row] for row in rows_by_id(moved, everything).tolist()] == sorted(frame_ids)


def test_numbers_in_ids_are_text() -> None:
    assert rows_by_id(["10", "9", "1"], torch.arange(3)).tolist() == [2, 0, 1]


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_a_shuffle_is_a_permutation_that_hangs_on_its_seed_alone(n: int) -> None:
    state = torch.get_rng_state()
    first = shuffled(n, 3)
    torch.rand(5)
    assert torch.equal(shuffled(n, 3), first)
    assert sorted(first.tolist()) == list(range(n))
    torch.set_rng_state(state)
    shuffled(n, 3)
    assert torch.equal(torch.get_rng_state(), state), "the user's random numbers go on as they were"


def test_shuffles_are_uniform() -> None:
    """Of 3 things in 1200 shuffles each of the six orders comes 200 times, sd 12.9: within five of them."""
    orders = [tuple(shuffled(3, seed).tolist()) for seed in range(1200)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert all(136 <= count <= 264 for count in counts)
