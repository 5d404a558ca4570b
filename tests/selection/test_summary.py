"""What a stage reads of frames: of a part at a time it is what it is of the whole."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from tied_frames import make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.summary import GrowingSummary, Summary
from cval_torch.strategies.descriptor import frame_descriptors

STAGES: list[dict[str, Any]] = [
    {"selection_strategy": "entropy", "num_of_boxes": 3.0, "class_quotas": {1: 2, 2: 1}},
    {"selection_strategy": "least", "min_distance": 0.3},
    {"selection_strategy": "k_center"},
    {"selection_strategy": "auto"},
    {"selection_strategy": "auto", "min_distance": 0.3},
    {"selection_strategy": "random"},
]


@pytest.mark.parametrize("options", STAGES)
@pytest.mark.parametrize("width", [6, 3])
def test_parts_and_the_whole(options: dict[str, Any], width: int) -> None:
    stage = DetectionSampling(num_of_samples=3, **options)
    pool = make_tied_pool([2, 0, 1, 3, 0, 5, 1, 0])
    pool = pool.replace(frame_embeddings=torch.randn(len(pool), width))
    growing = GrowingSummary()
    for rows in ([0, 1, 2], [3], [4], [5, 6, 7]):
        growing.add(Summary.of(pool.take(rows), stage, part=True))
    assert growing.nbytes > 0
    joined, whole = growing.join(), Summary.of(pool, stage, part=True)
    assert list(joined.scored.frame_ids) == list(pool.frame_ids)
    assert joined.columns().keys() == whole.columns().keys()
    for name, column in joined.columns().items():
        assert torch.equal(column.nan_to_num(-1), whole.columns()[name].nan_to_num(-1)), name
    cat = Summary.cat([Summary.of(pool.take(rows), stage, part=True) for rows in ([0, 1, 2, 3], [4, 5, 6, 7])])
    for mine in (joined, cat):
        if mine.vectors is not None:
            assert (
                torch.equal(mine.vectors[:], frame_descriptors(pool, part=True))
                or pool.box_embeddings.dtype != torch.float32
            )  # type: ignore[union-attr]
            assert torch.equal(mine.vectors[:], whole.vectors[:])  # type: ignore[index]
        if mine.contents is not None:
            assert torch.equal(mine.contents.descriptors[:], whole.contents.descriptors[:])  # type: ignore[union-attr]


@pytest.mark.parametrize("strategy", ["k_center", "auto"])
def test_the_small_part_travels_without_the_vectors(strategy: str) -> None:
    """A view of no rows would be pickled with all that it is a view of."""
    pool = make_tied_pool([2] * 50, width=500)
    summary = Summary.of(pool, DetectionSampling(num_of_samples=3, selection_strategy=strategy))
    assert sum(column.nbytes for column in summary.long_vectors().values()) > 50 * 500 * 2
    assert len(pickle.dumps(summary.without_vectors())) < 10_000
    assert len(pickle.dumps(summary.take(torch.arange(50)))) < 10_000


def test_some_frames_in_another_order() -> None:
    stage = DetectionSampling(num_of_samples=3, selection_strategy="auto", num_of_boxes=9.0)
    pool = make_tied_pool([2, 0, 1, 3, 0, 5])
    rows = torch.tensor([4, 0, 3])
    taken, alone = Summary.of(pool, stage).take(rows), Summary.of(pool.take(rows), stage)
    long = set(alone.long_vectors())
    for name, column in taken.columns().items():
        expected = alone.columns()[name]
        assert name in long or torch.equal(column.nan_to_num(-1), expected.nan_to_num(-1)), name
        assert len(column) == (0 if name in long else len(expected)), name


def test_vectors_that_are_known_are_not_made_again() -> None:
    pool = make_tied_pool([2, 0, 1, 3])
    vectors = Summary.of(pool, DetectionSampling(num_of_samples=1, selection_strategy="k_center")).vectors
    bare = pool.only(("scores",))
    for options in ({"selection_strategy": "k_center"}, {"selection_strategy": "probability", "min_distance": 0.2}):
        stage = DetectionSampling(num_of_samples=1, **options)  # type: ignore[arg-type]
        assert Summary.of(bare, stage, vectors=vectors).vectors is vectors
    with pytest.raises(InvalidInputError, match="need the column `box_embeddings`"):
        Summary.of(bare, DetectionSampling(num_of_samples=1, selection_strategy="k_center"))


def test_a_stage_that_sees_no_vectors_has_none() -> None:
    stage = DetectionSampling(num_of_samples=1, selection_strategy="entropy")
    with pytest.raises(ValueError, match="sees no vectors"):
        Summary.of(make_tied_pool([1]), stage).described_beside(None)


def test_nothing() -> None:
    with pytest.raises(InvalidInputError, match="at least one frame"):
        GrowingSummary().join()
