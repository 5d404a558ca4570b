"""Batches that ran in several passes come out in the order they came in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.errors import HookError
from cval_torch.hooks.base import Call, FrameBatch
from cval_torch.hooks.regrouping import calls_of_passes, in_order


def batch_of(frames: list[int], counts: list[int], *, full: bool) -> FrameBatch:
    """Frames whose every number tells which frame and which of its boxes it is."""
    marks = torch.tensor([[frame, box] for frame in frames for box in range(counts[frame])]).reshape(-1, 2)
    return FrameBatch(
        counts=torch.tensor([counts[frame] for frame in frames]),
        boxes=marks.repeat(1, 2).float(),
        labels=marks[:, 0] * 100 + marks[:, 1],
        scores=marks[:, 1] / 10,
        probabilities=marks / 10 if full else None,
        activation="sigmoid" if full else None,
        box_embeddings=marks.float() if full else None,
        frame_embeddings=torch.tensor(frames)[:, None].float() if full else None,
    )


@given(
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    passes=st.integers(1, 4),
    full=st.booleans(),
)
def test_frames_and_boxes_are_in_the_order_of_the_batch(
    counts: list[int], order: object, passes: int, full: bool
) -> None:
    frames = list(range(len(counts)))
    order.shuffle(frames)  # type: ignore[attr-defined]
    groups = [sorted(group) for start in range(passes) if (group := frames[start::passes])]
    joined = in_order([(group, batch_of(group, counts, full=full)) for group in groups])
    truth = batch_of(sorted(frames), counts, full=full)
    assert joined.activation == truth.activation
    for name in ("counts", "boxes", "labels", "scores", "probabilities", "box_embeddings", "frame_embeddings"):
        mine, its = getattr(joined, name), getattr(truth, name)
        assert (mine is None) == (its is None)
        assert mine is None or torch.equal(mine, its)


def calls(*outputs: str) -> list[Call]:
    return [Call(args=(), kwargs={}, output=output) for output in outputs]


def test_each_pass_has_its_own_calls_and_of_several_the_last() -> None:
    recording = {"once": calls("a", "b"), "thrice": calls("1", "2", "3", "4", "5", "6")}
    first, second = calls_of_passes(recording, 2)
    assert {name: call.output for name, call in first.items()} == {"once": "a", "thrice": "3"}
    assert {name: call.output for name, call in second.items()} == {"once": "b", "thrice": "6"}


@pytest.mark.parametrize("outputs", ["abc", "a", ""])
def test_calls_that_are_not_shared_evenly_are_an_error(outputs: str) -> None:
    with pytest.raises(HookError, match=f"`head` must run as often in each of the 2 .*; it ran {len(outputs)} times"):
        calls_of_passes({"head": calls(*outputs)}, 2)
