"""Rows of a DETR-like output and the queries they came from, beside a naive search."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.queries import QueryChoice, choose_queries, in_pixels, read_queries, states_of

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


def test_a_row_may_be_asked_for_several_times() -> None:
    states, logits = world(0)
    rows = torch.tensor([2, 2, 0])
    found = states_of(states, logits, logits[:, [4, 3, 1, 0, 2]], torch.tensor([0, 0, 0]), rows)
    assert found[:, 0].tolist() == [1, 1, 4]


def test_a_wrapper_may_have_made_the_output_float32() -> None:
    states, logits = world(0, levels=100)
    found = states_of(states, logits.bfloat16(), logits[:, [1, 0]], *every_row(2))
    assert found[:, 0].tolist() == [1, 0] * FRAMES


def naive(scores: Tensor, choice: QueryChoice) -> list[list[tuple[int, int]]]:
    """(row, label) of each frame's detections."""
    found = []
    for frame in scores.tolist():
        pairs = [(row, label) for row, classes in enumerate(frame) for label in range(len(classes))]
        if not choice.every_class:
            pairs = [(row, classes.index(max(classes))) for row, classes in enumerate(frame)]
        pairs.sort(key=lambda pair: -frame[pair[0]][pair[1]])  # Python's sort keeps the order of equals
        found.append([pair for pair in pairs[: choice.top_k] if frame[pair[0]][pair[1]] > choice.threshold])
    return found


@given(
    seed=st.integers(0, 10**6),
    threshold=st.sampled_from([0.0, 0.33, 0.99]),
    top_k=st.integers(1, 20),
    every_class=st.booleans(),
)
def test_queries_are_chosen_as_a_loop_chooses_them(seed: int, threshold: float, top_k: int, every_class: bool) -> None:
    _, numbers = world(seed, levels=20)
    scores, choice = numbers / 20, QueryChoice(threshold, top_k, every_class)
    found, expected = choose_queries(scores, choice), naive(scores, choice)
    assert found.counts.tolist() == [len(pairs) for pairs in expected]
    assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == [
        pair for each in expected for pair in each
    ]
    assert found.frames.tolist() == [frame for frame, pairs in enumerate(expected) for _ in pairs]
    assert torch.equal(found.scores, scores[found.frames, found.rows, found.labels])


@pytest.mark.parametrize(("option", "value"), [("threshold", 1.0), ("threshold", -0.1), ("top_k", 0)])
def test_options_out_of_their_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"`{option}` must be .*; got {value}"):
        QueryChoice(**{option: value})  # type: ignore[arg-type]


def test_boxes_are_in_pixels_of_their_own_image_and_inside_it() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.9, 0.1, 0.4, 0.4]], dtype=torch.float64)
    found = in_pixels(boxes, torch.tensor([1, 0]), [(100, 10), (20, 40)])
    torch.testing.assert_close(found, torch.tensor([[16.0, 6, 24, 14], [7, 0, 10, 30]]))
    assert in_pixels(boxes[:0], torch.tensor([], dtype=torch.int64), []).shape == (0, 4)


@pytest.mark.parametrize("every_class", [False, True])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_whole_answer(activation: str, every_class: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(2, 4, 3, generator=generator), torch.rand(2, 4, 4, generator=generator)
    states, vectors = torch.rand(2, 4, 6, generator=generator), torch.rand(2, 5, generator=generator)
    choice = QueryChoice(threshold=0.3, top_k=3, every_class=every_class)
    found = read_queries(
        logits[:, [2, 0, 1, 3]], boxes[:, [2, 0, 1, 3]], states, [(10, 20), (30, 40)],
        activation=activation, choice=choice, recorded=logits, frame_embeddings=vectors,  # type: ignore[arg-type]
    )  # fmt: skip
    every = logits.softmax(-1) if activation == "softmax" else logits.sigmoid()
    objects = every[..., :-1] if activation == "softmax" else every
    order = [2, 0, 1, 3]
    expected = [[(order[row], label) for row, label in pairs] for pairs in naive(objects[:, order], choice)]
    flat = [(frame, *pair) for frame, pairs in enumerate(expected) for pair in pairs]
    frames, queries, labels = torch.tensor(flat).T
    assert found.counts.tolist() == [len(pairs) for pairs in expected]
    assert torch.equal(found.labels, labels)
    assert torch.equal(found.scores, every[frames, queries, labels])
    assert found.probabilities is not None
    assert torch.equal(found.probabilities, every[frames, queries])
    assert torch.equal(found.boxes, in_pixels(boxes[frames, queries], frames, [(10, 20), (30, 40)]))
    assert found.box_embeddings is not None
    assert torch.equal(found.box_embeddings, states[frames, queries])
    assert found.frame_embeddings is vectors


def test_sizes_that_are_not_known_are_refused() -> None:
    states, logits = world(0)
    with pytest.raises(InvalidInputError, match=r"`sizes` must be .*; got None"):
        read_queries(logits, states.expand(-1, -1, 4), states, None, activation="sigmoid", choice=QueryChoice())
