"""Frames that come some at a time are the pool that they would be together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.service.codec.gathering import GatheredFrames
from cval_torch.service.protocol import BBoxScores, FramePrediction

VECTORS = {"0": [1.0, 2.0], "1": [3.0, 4.0], "short": [5.0]}


def lookup(frame_id: str, names: Collection[str]) -> dict[str, list[float]]:
    return {name: [*VECTORS[name][:-1], float(len(frame_id))] for name in names if name in VECTORS}


boxes = st.builds(
    BBoxScores,
    category_id=st.sampled_from([None, -1, 3]),
    score=st.sampled_from([0.25, 0.5, 1 - 2**-53]),
    probabilities=st.lists(st.floats(0, 1), min_size=2, max_size=2),
    embedding_id=st.sampled_from(["0", "1"]),
)
odd_boxes = boxes | st.builds(
    BBoxScores,
    score=st.sampled_from([None, 0.5]),
    probabilities=st.sampled_from([None, [0.5], [0.5, 0.5], [1e300, 0.5]]),
    embedding_id=st.sampled_from([None, "0", "short", "nobody"]),
)


def gathered(
    frames: list[list[BBoxScores]], cuts: list[tuple[int, int]], *, embeddings: bool
) -> tuple[Pool | None, str]:
    """The pool of frames that came cut before a box of a frame, or before a frame (box 0), or why there is none."""
    taken = GatheredFrames(lookup if embeddings else None)
    places = sorted({(row % len(frames), box % max(1, len(frames[row % len(frames)]))) for row, box in cuts})
    for begin, end in zip([(0, 0), *places], [*places, (len(frames), 0)], strict=True):
        held = []
        for row in range(begin[0], min(end[0] + (end[1] > 0), len(frames))):
            first = begin[1] if row == begin[0] else 0
            last = end[1] if row == end[0] else None
            held.append(FramePrediction(frame_id=f"f{row}", predictions=frames[row][first:last]))
        if held:
            taken.add(held, continued=begin[1] > 0, unended=end[1] > 0)
    try:
        return taken.pool(), ""
    except InvalidInputError as error:
        return None, str(error)


@given(
    frames=st.lists(st.lists(boxes, max_size=4), min_size=1, max_size=5)
    | st.lists(st.lists(odd_boxes, max_size=3), min_size=1, max_size=4),
    cuts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4),
    embeddings=st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_where_portions_end_does_not_matter(
    frames: list[list[BBoxScores]], cuts: list[tuple[int, int]], embeddings: bool
) -> None:
    whole, problem = gathered(frames, [], embeddings=embeddings)
    parts, problem_of_parts = gathered(frames, cuts, embeddings=embeddings)
    assert (problem_of_parts is None) == (problem is None)  # of two faults either may be told
    if whole is None or parts is None:
        assert whole is parts
        return
    assert parts.frame_ids == whole.frame_ids
    assert parts.activation == whole.activation
    assert [name for name, _ in parts.columns()] == [name for name, _ in whole.columns()]
    for (_, ours), (_, theirs) in zip(parts.columns(), whole.columns(), strict=True):
        assert torch.equal(ours, theirs)


def box(**fields: Any) -> BBoxScores:
    return BBoxScores(**fields)


def test_columns_of_several_portions() -> None:
    taken = GatheredFrames(lookup)
    taken.add([FramePrediction(frame_id="a", predictions=[box(embedding_id="0")])], unended=True)
    taken.add([FramePrediction(frame_id="a", predictions=[box(category_id=5, embedding_id="1")])], continued=True)
    taken.add([FramePrediction(frame_id="bbb", predictions=[box(category_id=-1, embedding_id="short")])])
    pool = taken.pool()
    assert pool.frame_ids == ("a", "bbb")
    assert pool.counts.tolist() == [2, 0], "the last frame has no boxes: its one box stands for it"
    assert pool.labels is not None
    assert pool.labels.tolist() == [-1, 5], "a class may be known late"
    assert pool.scores is None
    assert pool.box_embeddings is not None
    assert pool.box_embeddings.tolist() == [[1.0, 1.0], [3.0, 1.0]]
    assert pool.frame_embeddings is not None
    assert pool.frame_embeddings.tolist() == [[0.0], [3.0]]


def test_one_box_of_a_frame_of_which_more_comes_does_not_stand_for_it() -> None:
    taken = GatheredFrames()
    lone = FramePrediction(frame_id="a", predictions=[box(category_id=-1)])
    taken.add([lone], unended=True)
    taken.add([lone], continued=True)
    assert taken.pool().counts.tolist() == [2]


def test_what_is_wrong_first_is_said_by_column() -> None:
    taken = GatheredFrames(lookup)
    taken.add([FramePrediction(frame_id="a", predictions=[box(embedding_id="nobody", score=0.5)])])
    taken.add([FramePrediction(frame_id="b", predictions=[box(embedding_id="0", score=0.5)])])
    with pytest.raises(InvalidInputError, match="frame 'a' has no embedding 'nobody'"):
        taken.pool()
    taken.add([FramePrediction(frame_id="c", predictions=[box(embedding_id="0")])])
    with pytest.raises(InvalidInputError, match=r"`score` must be there .* frame 'c' has none"):
        taken.pool()


def test_embeddings_are_asked_for_by_frame_and_by_name() -> None:
    asked = []

    def ask(frame_id: str, names: Collection[str]) -> dict[str, list[float]]:
        asked.append((frame_id, set(names)))
        return lookup(frame_id, names)

    taken = GatheredFrames(ask)
    twice = [box(embedding_id="0"), box(embedding_id="1"), box(embedding_id="0")]
    taken.add([FramePrediction(frame_id="a", predictions=twice), FramePrediction(frame_id="b")])
    assert asked == [("a", {"0", "1"})]
    assert taken.pool().box_embeddings.tolist() == [[1.0, 1.0], [3.0, 1.0], [1.0, 1.0]]  # type: ignore[union-attr]
