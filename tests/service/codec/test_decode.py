"""Payloads become a pool, or are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.service.codec import (
    pool_from_payloads,
    pool_from_vectors,
    pool_to_payloads,
    predictions_json,
)
from cval_torch.service.protocol import BBoxScores, Embedding, FrameEmbedding, FramePrediction


def test_no_frames_are_an_empty_array() -> None:
    empty = Pool([], torch.tensor([0]), scores=torch.empty(0))
    assert b"".join(predictions_json(empty)) == b"[]"
    assert list(pool_to_payloads(empty)) == []
    assert len(pool_from_payloads([])) == 0


def test_what_old_clients_send_is_read() -> None:
    pool = pool_from_payloads(
        [
            {"frame_id": "a", "predictions": [{"category_id": "7", "score": 0.9}, {"score": 0.25}]},
            {"frame_id": "b", "predictions": None},
            {"frame_id": "c"},
            FramePrediction(frame_id="d", predictions=[]),
        ]
    )
    assert pool.counts.tolist() == [2, 0, 0, 0]
    assert pool.labels.tolist() == [7, -1]  # type: ignore[union-attr]
    assert torch.equal(pool.scores, torch.tensor([0.9, 0.25]))  # type: ignore[arg-type]
    bare = pool_from_payloads([{"frame_id": "a", "predictions": [{"embedding_id": "x"}]}])
    assert (bare.scores, bare.labels, bare.box_embeddings) == (None, None, None)


def test_an_unsure_box_of_category_minus_1_is_a_box() -> None:
    pool = pool_from_payloads([{"frame_id": "a", "predictions": [{"category_id": -1, "score": 0.7}]}])
    assert pool.counts.tolist() == [1]


def vectors(**named: list[float]) -> list[dict[str, object]]:
    return [
        {"frame_id": name, "embeddings": [{"embedding_id": "0", "embedding": value}]} for name, value in named.items()
    ]


def boxes(**named: dict[str, object]) -> list[dict[str, object]]:
    return [{"frame_id": name, "predictions": [box]} for name, box in named.items()]


REFUSED = [
    (boxes(a={"score": 0.5}, b={"category_id": 1}), None, r"`score` must be there .* frame 'b' has none"),
    (
        boxes(a={"probabilities": [1.0], "score": 0.5}, b={"score": 0.5}),
        None,
        r"`probabilities` must be there .* frame 'b'",
    ),
    (
        boxes(a={"probabilities": [0.5, 0.5]}, b={"probabilities": [1.0]}),
        None,
        r"`probabilities` must have one length; got 2 in frame 'a' and 1 in frame 'b'",
    ),
    (boxes(a={"probabilities": [1.5]}), None, r"`probabilities` must be finite numbers in \[0, 1\].*frame 'a'"),
    (boxes(a={"score": 1.1}), None, r"`predictions` must be payloads .* number 0, predictions.0.score: .* equal to 1"),
    (boxes(a={"score": -0.1}), None, r"number 0, predictions.0.score: .* equal to 0"),
    (
        boxes(a={"confidence": 0.5}),
        None,
        r"predictions.0.confidence is no key .* those are category_id, score",
    ),
    (boxes(a={"score": 0.5, "bbox": [1, 2, 3, 4]}), None, r"number 0, predictions.0.bbox is no key that is read"),
    ([{"frame_id": "a", "detections": []}], None, r"number 0, detections is no key .* those are frame_id, predictions"),
    (boxes(a={}), [{"frame_id": "a", "vectors": []}], r"`embeddings` .* vectors is no key .* frame_id, embeddings"),
    (boxes(a={"score": float("nan")}), None, r"predictions.0.score"),
    (boxes(a={"category_id": 2**70}), None, r"predictions.0.category_id"),
    ([{"frame_id": "a"}, {"frame_id": "a"}], None, r"`frame_ids` must be distinct; got 'a' again in row 1"),
    ([{"predictions": []}], None, r"number 0, frame_id: Field required"),
    ([3], None, r"number 0, all of it"),
    (boxes(a={"embedding_id": "0"}), vectors(b=[1.0]), r"frame 'a' has no embedding '0'"),
    (boxes(a={"embedding_id": "0"}, b={}), vectors(a=[1.0]), r"`embedding_id` must be there .* frame 'b'"),
    (
        boxes(a={"embedding_id": "0"}, b={"embedding_id": "0"}),
        vectors(a=[1.0, 2.0], b=[1.0]),
        r"`embedding` must have one length; got 2 in frame 'a' and 1 in frame 'b'",
    ),
    (boxes(a={"embedding_id": "0"}), vectors(a=[1e39]), r"`box_embeddings` must be finite; got inf .* frame 'a'"),
    (boxes(a={}), vectors(a=[float("nan")]), r"`embeddings` must be payloads"),
]


@pytest.mark.parametrize(("predictions", "embeddings", "message"), REFUSED)
def test_what_the_protocol_does_not_allow_is_refused_by_name(
    predictions: list[dict[str, object]], embeddings: list[dict[str, object]] | None, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        pool_from_payloads(predictions, embeddings)


def test_models_are_taken_as_they_are() -> None:
    frame = FramePrediction(frame_id="a", predictions=[BBoxScores(score=0.5, embedding_id="x", category_id=1)])
    vector = FrameEmbedding(frame_id="a", embeddings=[Embedding(embedding_id="x", embedding=[1.0, 2.0])])
    pool = pool_from_payloads(iter([frame]), iter([vector]))
    assert pool.box_embeddings.tolist() == [[1.0, 2.0]]  # type: ignore[union-attr]
    same = pool_from_vectors([frame], {("a", "x"): np.array([1.0, 2.0], dtype=np.float32)})
    assert torch.equal(same.box_embeddings, pool.box_embeddings)  # type: ignore[arg-type]


def test_a_score_may_be_as_sure_as_can_be() -> None:
    """The wire wants scores strictly within 0 and 1; a detector gives both ends, too."""
    pool = pool_from_payloads(boxes(a={"score": 1.0}, b={"score": 0.0}))
    assert pool.scores is not None
    assert pool.scores.tolist() == [1, 0]


def test_models_within_dicts_are_taken_as_they_are() -> None:
    frames = [{"frame_id": "a", "predictions": [BBoxScores(score=0.25), {"score": 0.5}]}]
    scores = pool_from_payloads(frames).scores
    assert scores is not None
    assert scores.tolist() == [0.25, 0.5]
