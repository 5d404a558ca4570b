"""Uploads are checked, and wait in a file."""

from __future__ import annotations

import io
import json

import pytest

from cval_torch.service.protocol import Embedding, FrameEmbedding
from cval_torch.service.server.incoming import Portion
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.uploads import Upload

LIMITS = Limits(frames=3, vector_length=2, id_length=3)
HALF = b"\x00\x00\x00\x3f"


def frame(frame_id: str, *names: str, length: int = 1) -> FrameEmbedding:
    embeddings = [Embedding(embedding_id=name, embedding=[0.5] * length) for name in names]
    return FrameEmbedding(frame_id=frame_id, embeddings=embeddings)


def test_what_was_taken_comes_back_and_is_named() -> None:
    file = io.BytesIO()
    upload = Upload(file, LIMITS)
    upload.take(Portion([frame("a", "é", '"'), frame("b")], unended=True))
    upload.take(Portion([frame("b", "0", length=2)], continued=True))
    upload.take(Portion([frame("a", "1")]))
    upload.check()
    rows = list(upload.rows())
    assert rows == [
        ("a", [("é", HALF), ('"', HALF)]),
        ("b", []),
        ("b", [("0", HALF * 2)]),
        ("a", [("1", HALF)]),
    ]
    assert json.loads(upload.answer()) == {
        "frames_quantity": 3,
        "frames": [
            {"frame_id": "a", "embeddings_quantity": 2, "embeddings": ["é", '"']},
            {"frame_id": "b", "embeddings_quantity": 1, "embeddings": ["0"]},
            {"frame_id": "a", "embeddings_quantity": 1, "embeddings": ["1"]},
        ],
    }


def test_nothing_is_an_upload_too() -> None:
    upload = Upload(io.BytesIO(), LIMITS)
    upload.check()
    assert list(upload.rows()) == []
    assert json.loads(upload.answer()) == {"frames_quantity": 0, "frames": []}


def test_the_first_refusal_is_said_unless_there_are_too_many_frames() -> None:
    upload = Upload(io.BytesIO(), LIMITS)
    upload.take(Portion([frame("a", "long"), frame("b", "0", length=3)]))
    with pytest.raises(RefusedError, match="at most 3 characters of an embedding id of frame 'a' are taken; got 4"):
        upload.check()
    upload.take(Portion([frame("c"), frame("d"), frame("e")]))
    with pytest.raises(RefusedError, match="at most 3 frames are taken; got 5"):
        upload.check()


def test_after_a_refusal_nothing_more_is_written() -> None:
    file = io.BytesIO()
    upload = Upload(file, LIMITS)
    upload.take(Portion([frame("a", "0"), frame("b", "long")]))
    size = len(file.getvalue())
    upload.take(Portion([frame("c", "0")]))
    assert len(file.getvalue()) == size
    files = [io.BytesIO(), io.BytesIO()]
    for file, frames in zip(files, (3, 9), strict=True):
        Upload(file, LIMITS).take(Portion([frame(str(row), "0") for row in range(frames)]))
    assert files[0].getvalue() == files[1].getvalue(), "frames beyond the bound are counted, and not kept"
