"""A pool becomes payloads, and comes back."""

from __future__ import annotations

import json
import tracemalloc
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.codec import (
    GatheredFrames,
    embeddings_json,
    encode,
    one_width,
    pool_from_payloads,
    pool_to_payloads,
    predictions_json,
    whole_frames,
    wire_weights,
)
from cval_torch.service.protocol import SampledFrame

AWKWARD_IDS = ["a", '"', "\\", "é", "日本", "</script>", "../x", "a\x00b", "\u2028", "x" * 128, "😀", "a,b],[c"]


def make_pool(
    counts: list[int], *, seed: int = 0, activation: str | None = "softmax", box_width: int = 3, frame_width: int = 3
) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    boxes = sum(counts)
    probabilities = torch.rand(boxes, 4, generator=generator)
    return Pool(
        [AWKWARD_IDS[row] if row < len(AWKWARD_IDS) else f"frame {row}" for row in range(len(counts))],
        torch.tensor([0, *torch.tensor(counts, dtype=torch.int64).cumsum(0).tolist()]),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(0, 90, (boxes,), generator=generator),
        probabilities=(probabilities.softmax(1) if activation == "softmax" else probabilities) if activation else None,
        activation=activation,  # type: ignore[arg-type]
        box_embeddings=torch.randn(boxes, box_width, generator=generator) if box_width else None,
        frame_embeddings=torch.randn(len(counts), frame_width, generator=generator) if frame_width else None,
    )


def naive_frames(pool: Pool) -> list[dict[str, object]]:
    """What a decoded pool must hold, frame by frame, from the columns of the one that was sent."""
    frames = []
    for row, frame_id in enumerate(pool.frame_ids):
        mine = slice(int(pool.offsets[row]), int(pool.offsets[row + 1]))
        columns = {name: column[mine].tolist() for name, column in pool.columns() if name in BOX_COLUMNS}
        frames.append({"frame_id": frame_id, **columns})
    return frames


BOX_COLUMNS = ("scores", "labels", "probabilities", "box_embeddings")


counts_lists = st.lists(st.integers(0, 4), min_size=1, max_size=14)


@given(
    counts=counts_lists,
    batch_size=st.integers(1, 5),
    activation=st.sampled_from(["softmax", None]),
    box_width=st.sampled_from([0, 3]),
    frame_width=st.sampled_from([0, 3, 5]),
)
@settings(deadline=None, max_examples=60)
def test_a_pool_comes_back_from_its_payloads(
    counts: list[int], batch_size: int, activation: str | None, box_width: int, frame_width: int
) -> None:
    pool = make_pool(counts, activation=activation, box_width=box_width, frame_width=frame_width)
    batches = list(pool_to_payloads(pool, batch_size=batch_size))
    assert all(len(batch.predictions) <= batch_size for batch in batches)
    predictions = [frame for batch in batches for frame in batch.predictions]
    embeddings = [frame for batch in batches for frame in batch.embeddings]
    back = pool_from_payloads(predictions, embeddings)
    if pool.num_boxes:
        assert naive_frames(back) == naive_frames(pool)
        assert back.activation == activation
    assert back.frame_ids == pool.frame_ids
    nulls = [row for row, count in enumerate(counts) if count == 0]
    if nulls and frame_width:
        expected = torch.zeros(len(pool), frame_width)
        expected[nulls] = pool.frame_embeddings[nulls]  # type: ignore[index]
        assert torch.equal(back.frame_embeddings, expected)  # type: ignore[arg-type]
    else:
        assert back.frame_embeddings is None


@given(
    counts=counts_lists,
    known=counts_lists,
    batch_size=st.integers(1, 5),
    most=st.sampled_from([7, 1000]),
    box_width=st.sampled_from([0, 3]),
)
@settings(deadline=None, max_examples=60)
def test_frames_are_sent_with_their_own_embeddings_and_annotated_ones_after_the_others(
    counts: list[int], known: list[int], batch_size: int, most: int, box_width: int
) -> None:
    pool, labeled = make_pool(counts, box_width=box_width), make_pool(known, box_width=box_width, seed=1)
    labeled = labeled.replace(frame_ids=[f"known {name[:99]}" for name in labeled.frame_ids])
    with mock.patch.object(encode, "NUMBERS_A_PIECE", most):  # some frames are several pieces
        text = b"".join(predictions_json(pool, whole=True, labeled=labeled, batch_size=batch_size))
    vectors = {
        (frame["frame_id"], each["embedding_id"]): each["embedding"]
        for some in (pool, labeled)
        for body in embeddings_json(some, whole=True, max_bytes=200)
        for frame in json.loads(body.body)
        for each in frame["embeddings"]
    }
    gathered = GatheredFrames(lambda frame_id, names: {name: vectors[frame_id, name] for name in names})
    gathered.add([SampledFrame.model_validate(frame) for frame in json.loads(text)])
    assert gathered.labeled == [False] * len(pool) + [True] * len(labeled)
    back = gathered.pool()
    for first, sent in ((0, pool), (len(pool), labeled)):
        mine = back.part(first, first + len(sent))
        assert mine.frame_ids == sent.frame_ids
        if sent.num_boxes:
            assert naive_frames(mine) == naive_frames(sent)
        assert torch.equal(mine.frame_embeddings, sent.frame_embeddings)  # type: ignore[arg-type]


@given(
    counts=counts_lists,
    batch_size=st.integers(1, 5),
    fields=st.tuples(st.booleans(), st.booleans()),
    activation=st.sampled_from(["softmax", "sigmoid"]),
    max_bytes=st.integers(1, 1500),
)
@settings(deadline=None, max_examples=60)
def test_json_from_columns_is_the_json_of_the_models(
    counts: list[int], batch_size: int, fields: tuple[bool, bool], activation: str, max_bytes: int
) -> None:
    embeddings, probabilities = fields
    pool = make_pool(counts, activation=activation)
    batches = list(pool_to_payloads(pool, batch_size=batch_size, embeddings=embeddings))
    expected = [frame.model_dump(exclude_none=True) for batch in batches for frame in batch.predictions]
    if not probabilities:
        for frame in expected:
            for box in frame["predictions"]:
                box.pop("probabilities", None)
    text = b"".join(predictions_json(pool, embeddings=embeddings, probabilities=probabilities, batch_size=batch_size))
    assert json.loads(text) == expected
    if embeddings:
        bodies = list(embeddings_json(pool, max_bytes=max_bytes))
        sent = [frame for body in bodies for frame in json.loads(body.body)]
        assert sent == [frame.model_dump() for batch in batches for frame in batch.embeddings]
        names = [(frame["frame_id"], [one["embedding_id"] for one in frame["embeddings"]]) for frame in sent]
        assert [(meta.frame_id, meta.embeddings) for body in bodies for meta in body.frames] == names
        for body in bodies:
            assert len(body.body) <= max_bytes or len(body.frames) == 1
        arrived = {meta.frame_id for body in bodies[:1] for meta in body.frames}
        assert list(embeddings_json(pool, max_bytes=max_bytes, without=arrived)) == bodies[1:]


@given(counts=counts_lists, numbers=st.integers(1, 40), activation=st.sampled_from(["softmax", None]))
@settings(deadline=None, max_examples=60)
def test_a_piece_has_no_more_boxes_than_may_be(counts: list[int], numbers: int, activation: str | None) -> None:
    """Also where frames have many: then a frame is several pieces. The text is the same, whatever the pieces."""
    pool = make_pool(counts, activation=activation, frame_width=0)
    whole = b"".join(predictions_json(pool))
    width = 3 + (0 if pool.probabilities is None else pool.probabilities.shape[1])
    with mock.patch.object(encode, "NUMBERS_A_PIECE", numbers):
        pieces = list(predictions_json(pool))
    assert b"".join(pieces) == whole
    assert max(piece.count(b'"score"') for piece in pieces) <= max(1, numbers // width)


def test_encoding_takes_memory_for_a_piece_and_not_for_a_frame() -> None:
    """A frame of 100,000 boxes with 20 classes is 29 MB of text: less than half of that is held at a time."""
    boxes = 100_000
    pool = Pool(
        ["a", "b"],
        torch.tensor([0, boxes, boxes]),
        scores=torch.rand(boxes),
        probabilities=torch.rand(boxes, 20).softmax(1),
        activation="softmax",
    )
    tracemalloc.start()
    try:
        size = sum(map(len, predictions_json(pool)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 20e6
    assert most < 12e6


def test_sigmoids_become_one_distribution() -> None:
    """With odds o = p / (1 - p), class c is o_c / (1 + sum o) and none 1 / (1 + sum o): here o = (3, 1)."""
    pool = Pool(["a"], torch.tensor([0, 1]), probabilities=torch.tensor([[0.75, 0.5]]), activation="sigmoid")
    back = pool_from_payloads(*next(pool_to_payloads(pool)))
    assert back.activation == "softmax"
    torch.testing.assert_close(back.probabilities, torch.tensor([[0.6, 0.2, 0.2]]))
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=1, probs_weights=[2.0, 3.0])
    assert wire_weights(stage, pool) == [2.0, 3.0, 1.0]
    assert wire_weights(stage, back.replace(probabilities=torch.rand(1, 2))) == [2.0, 3.0]
    with pytest.raises(InvalidInputError, match="probs_weights"):
        wire_weights(stage, back)


def test_a_frame_without_boxes_is_one_box_of_category_minus_1_with_the_frames_embedding() -> None:
    pool = make_pool([0, 1])
    (batch,) = pool_to_payloads(pool)
    (box,) = batch.predictions[0].predictions or []
    assert (box.category_id, np.float32(box.score)) == (-1, 1.0)
    assert box.score is not None
    assert box.score < 1
    assert batch.embeddings[0].frame_id == pool.frame_ids[0]
    assert batch.embeddings[0].embeddings[0].embedding_id == box.embedding_id
    assert torch.equal(torch.tensor(batch.embeddings[0].embeddings[0].embedding), pool.frame_embeddings[0])  # type: ignore[index]
    (without,) = pool_to_payloads(pool, embeddings=False)
    assert without.predictions[0].predictions == []
    assert without.embeddings == []


@pytest.mark.parametrize(
    ("frame_width", "expected"), [(2, [1.0, 2.0, 0.0]), (3, [1.0, 2.0, 3.0]), (4, [1.0, 2.0, 3.0])]
)
def test_a_frames_embedding_is_as_long_as_those_of_boxes_where_that_is_asked(
    frame_width: int, expected: list[float]
) -> None:
    frame = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0] * 4])[:, :frame_width]
    pool = make_pool([0, 1], frame_width=0).replace(frame_embeddings=frame)
    assert one_width(pool).frame_embeddings[0].tolist() == expected
    assert one_width(pool.replace(box_embeddings=None)).frame_embeddings is frame
    (batch,) = pool_to_payloads(pool)
    assert batch.embeddings[0].embeddings[0].embedding == frame[0].tolist()


def test_whole_frames_stand_for_boxes_without_embeddings() -> None:
    pool = whole_frames(make_pool([2, 0, 1], box_width=0))
    assert pool.counts.tolist() == [0, 0, 0]
    back = pool_from_payloads(*next(pool_to_payloads(pool)))
    assert torch.equal(back.frame_embeddings, pool.frame_embeddings)  # type: ignore[arg-type]
    assert back.box_embeddings is None
    with pytest.raises(InvalidInputError, match="frame_embeddings"):
        whole_frames(make_pool([1], frame_width=0))


def test_embedding_ids_are_unique_in_the_pool() -> None:
    (batch,) = pool_to_payloads(make_pool([2, 0, 3, 0]))
    ids = [vector.embedding_id for frame in batch.embeddings for vector in frame.embeddings]
    assert len(ids) == len(set(ids)) == 7


def test_embeddings_that_are_not_there_cannot_be_sent() -> None:
    pool = make_pool([1], box_width=0, frame_width=0)
    for send in (
        lambda: list(pool_to_payloads(pool, embeddings=True)),
        lambda: list(predictions_json(pool, embeddings=True)),
        lambda: list(embeddings_json(pool)),
    ):
        with pytest.raises(InvalidInputError, match=r"must have `box_embeddings` or `frame_embeddings`"):
            send()
    with pytest.raises(InvalidInputError, match="`batch_size` must be at least 1; got 0"):
        list(pool_to_payloads(pool, batch_size=0))


def test_uploads_hold_no_second_copy_of_the_pool() -> None:
    """40 MB of embeddings, over 100 MB as JSON: what is held at any time stays near one upload of 1 MB."""
    frames, width = 10_000, 1024
    pool = Pool(
        [str(row) for row in range(frames)],
        torch.arange(frames + 1),
        box_embeddings=torch.rand(frames, width, generator=torch.Generator().manual_seed(0)),
    )
    bodies = embeddings_json(pool, max_bytes=1 << 20)
    tracemalloc.start()
    try:
        total = sum(len(next(bodies).body) for _ in range(8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 7 << 20
    assert peak < 16 << 20
