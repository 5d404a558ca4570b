"""Rows of a DETR-like output and the queries they came from, beside a naive search."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cval_torch.errors import HookError
from cval_torch.hooks.queries import states_of

FRAMES, QUERIES, CLASSES = 2, 5, 3


def world(seed: int, *, levels: int = 1000) -> tuple[Tensor, Tensor]:
    """States whose first number is their query's number, and logits of few or many different values."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, levels, (FRAMES, QUERIES, CLASSES), generator=generator).float()
    states = torch.arange(QUERIES).float()[None, :, None].expand(FRAMES, QUERIES, 1)
    return states, logits


def every_row(count: int) -> tuple[Tensor, Tensor]:
    frames = torch.arange(FRAMES).repeat_interleave(count)
    return frames, torch.arange(count).repeat(FRAMES)


def test_an_output_that_nothing_changed() -> None:
    states, logits = world(0)
    frames, rows = torch.tensor([1, 0, 1]), torch.tensor([4, 2, 0])
    assert states_of(states, logits, logits.clone(), frames, rows)[:, 0].tolist() == [4, 2, 0]


@given(seed=st.integers(0, 10**6), order=st.permutations(range(QUERIES)), kept=st.integers(1, QUERIES))
def test_sorted_and_filtered_rows_find_their_queries(seed: int, order: list[int], kept: int) -> None:
    states, logits = world(seed, levels=10**6)
    found = states_of(states, logits, logits[:, order[:kept]], *every_row(kept))
    assert found[:, 0].tolist() == order[:kept] * FRAMES


@given(seed=st.integers(0, 10**6), order=st.permutations(range(QUERIES)))
def test_equal_queries_are_handed_out_once_each(seed: int, order: list[int]) -> None:
    states, logits = world(seed, levels=2)
    changed = logits[:, order]
    frames, rows = every_row(QUERIES)
    found = states_of(states, logits, changed, frames, rows)[:, 0].long()
    for frame in range(FRAMES):
        queries = found[frames == frame]
        assert sorted(queries.tolist()) == list(range(QUERIES))
        assert torch.equal(logits[frame, queries], changed[frame])


def test_rows_that_are_no_querys_are_an_error() -> None:
    states, logits = world(1)
    frames, rows = every_row(QUERIES)
    changed = logits.clone()
    changed[1, 3] *= 0.5
    with pytest.raises(HookError, match="row 3 of the detector's output for image 1 of the batch has the logits of no"):
        states_of(states, logits, changed, frames, rows)
    repeated = logits[:, [0, 0]]
    with pytest.raises(HookError, match="row 1 of the detector's output for image 0"):
        states_of(states, logits, repeated, *every_row(2))


def test_logits_of_other_frames_or_classes_are_an_error() -> None:
    states, logits = world(1)
    frames, rows = torch.tensor([0]), torch.tensor([0])
    for changed in (logits[:1], logits[..., :2]):
        with pytest.raises(HookError, match=r"the class head returned logits \(2, 5, 3\), and the detector's output"):
            states_of(states, logits, changed, frames, rows)
