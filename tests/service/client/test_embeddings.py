"""Uploads that break off, go on, and are cut to size."""

from __future__ import annotations

import json

import pytest
import torch
from client_calls import CANARY, ONE, STORED, Clock, connect
from fault_server import answer, faulty, reset

from cval_torch.errors import (
    InvalidInputError,
)
from cval_torch.pool.pool import Pool
from cval_torch.service.client import CVALConnection
from cval_torch.service.client.models import FrameEmbeddingModel
from cval_torch.service.rest import RestBackend


@pytest.mark.parametrize("arrived", [True, False])
def test_a_broken_upload_is_sent_again_only_if_it_did_not_arrive(clock: Clock, arrived: bool) -> None:
    probe = answer(ONE) if arrived else answer({"detail": "no"}, 404)
    with faulty(reset, probe, answer(STORED)) as server:
        meta = connect(server, clock).embedding("d", "training").upload_many([ONE])
        methods = [request.method for request in server.requests]
    assert methods == (["POST", "GET"] if arrived else ["POST", "GET", "POST"])
    if arrived:
        assert (meta.frames_quantity, meta.frames[0].embeddings) == (1, ["0"])


def test_an_upload_goes_on_where_it_was(clock: Clock) -> None:
    pool = Pool(["a", "b", "c"], torch.arange(4), box_embeddings=torch.rand(3, 2))
    stored = {"frames_quantity": 1, "frames": [{"frame_id": "b", "embeddings_quantity": 1, "embeddings": ["1"]}]}
    with faulty(answer(stored), answer(STORED)) as server:
        assert connect(server).embedding("d", "training").upload_pool(pool, resume=True, progress=False) == 2
        (sent,) = [json.loads(request.body) for request in server.requests if request.method == "POST"]
    assert [(frame["frame_id"], frame["embeddings"][0]["embedding_id"]) for frame in sent] == [("a", "0"), ("c", "2")]


def test_a_part_is_one_of_three() -> None:
    connection = CVALConnection(CANARY, "http://127.0.0.1:1/api")
    with pytest.raises(InvalidInputError, match="one of training, test, validation; got 'train'"):
        connection.embedding("d", "train")
    with pytest.raises(InvalidInputError, match="one of training"):
        RestBackend(api_key=CANARY, part_of_dataset="train")  # type: ignore[arg-type]


def test_uploads_are_cut_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [
        {"frame_id": str(row), "embeddings": [{"embedding_id": "0", "embedding": [0.5] * 50}]} for row in range(40)
    ]
    monkeypatch.setattr("cval_torch.service.client.embeddings.UPLOAD_BYTES", 2000)
    with faulty(answer(STORED)) as server:
        connect(server).embedding("d", "test").upload_many(
            FrameEmbeddingModel.model_validate(frame) for frame in frames
        )
        sent = [json.loads(request.body) for request in server.requests]
        assert all(len(request.body) <= 2000 for request in server.requests)
    assert [frame for body in sent for frame in body] == frames
    assert len(sent) > 3
    with faulty(answer(STORED)) as server, pytest.raises(InvalidInputError, match="number 0 is not"):
        connect(server).embedding("d", "test").upload_many([{"frame_id": "x" * 200, "embeddings": []}])
