"""Uploads that break off, go on, and are cut to size."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from client_calls import CANARY, Clock, connect
from fault_server import Request, answer, faulty, forward, reset, stores
from own_server import serving_here

from cval_torch.errors import (
    InvalidInputError,
    ProtocolError,
)
from cval_torch.pool.pool import Pool
from cval_torch.service.client import CVALConnection
from cval_torch.service.client.models import FrameEmbeddingModel
from cval_torch.service.rest import RestBackend


def embeddings_of(*values: float, names: str = "abc") -> list[dict[str, Any]]:
    """Frames `a`, `b` and `c` with one vector each."""
    return [
        {"frame_id": name, "embeddings": [{"embedding_id": "0", "embedding": [value]}]}
        for name, value in zip(names, values, strict=True)
    ]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_here(tmp_path_factory.mktemp("own"), keys=[(None, CANARY)]) as url:
        yield url


def test_a_broken_upload_is_sent_again_unless_all_of_it_is_there(own: str, clock: Clock) -> None:
    """What was there before under the same names is not taken for it."""
    through = forward(own)

    def lose_the_answer(connection: socket.socket, request: Request) -> None:
        deaf, other = socket.socketpair()
        with deaf, other:
            through(deaf, request)
        reset(connection, request)

    with faulty(through) as server:
        cval = connect(server, clock)
        stored = cval.embedding(cval.dataset().create("n"), "training")
        for values, breaks, posts in [
            ((1.0, 2.0, 3.0), reset, 2),
            ((1.0, 2.5, 3.0), reset, 2),  # the first and the last are as they were
            ((4.0, 5.0, 6.0), lose_the_answer, 1),
        ]:
            server.requests.clear()
            server.behaviours[:] = [breaks, through]
            meta = stored.upload_many(embeddings_of(*values))
            assert (meta.frames_quantity, meta.frames[0].embeddings) == (3, ["0"])
            assert [frame.model_dump() for frame in stored.get_many()] == embeddings_of(*values)
            assert [request.method for request in server.requests].count("POST") == posts


def test_an_answer_that_counts_wrong_is_looked_into(own: str, clock: Clock) -> None:
    """It may be a service that counts otherwise, or one that has not stored all of it."""
    through = forward(own)
    wrong = answer({"frames_quantity": 1, "frames": [{"frame_id": "a", "embeddings_quantity": 1, "embeddings": ["0"]}]})
    with faulty(through) as server:
        cval = connect(server, clock)
        stored = cval.embedding(cval.dataset().create("n"), "test")
        stored.upload_many(embeddings_of(1.0, 2.0, 3.0))
        for values in ((1.0, 2.0, 3.0), (1.0, 2.0, 4.0)):
            server.requests.clear()
            server.behaviours[:] = [wrong, through]
            if values[-1] == 3.0:
                assert stored.upload_many(embeddings_of(*values)).frames_quantity == 1
            else:
                with pytest.raises(
                    ProtocolError, match="3 frames were uploaded, and the service says that it stored 1"
                ):
                    stored.upload_many(embeddings_of(*values))


def test_a_service_that_does_not_look_at_the_limits_is_found_out(clock: Clock) -> None:
    page = [{"frame_id": str(row), "embeddings_quantity": 0, "embeddings": []} for row in range(1000)]
    pool = Pool(["a"], torch.arange(2), box_embeddings=torch.rand(1, 2))
    for frames in (page, [*page, {**page[0], "frame_id": "more"}]):
        with faulty(answer({"frames_quantity": len(frames), "frames": frames})) as server:
            with pytest.raises(ProtocolError, match="does not look at `start_limit`"):
                connect(server, clock).embedding("d", "training").upload_pool(pool, resume=True, progress=False)
            assert len(server.requests) <= 2


def test_an_upload_goes_on_where_it_was(clock: Clock) -> None:
    pool = Pool(["a", "b", "c"], torch.arange(4), box_embeddings=torch.rand(3, 2))
    stored = {"frames_quantity": 1, "frames": [{"frame_id": "b", "embeddings_quantity": 1, "embeddings": ["1"]}]}
    with faulty(answer(stored), stores) as server:
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
    with faulty(stores) as server:
        connect(server).embedding("d", "test").upload_many(
            FrameEmbeddingModel.model_validate(frame) for frame in frames
        )
        sent = [json.loads(request.body) for request in server.requests]
        assert all(len(request.body) <= 2000 for request in server.requests)
    assert [frame for body in sent for frame in body] == frames
    assert len(sent) > 3
    with faulty(stores) as server, pytest.raises(InvalidInputError, match="number 0 is not"):
        connect(server).embedding("d", "test").upload_many([{"frame_id": "x" * 200, "embeddings": []}])
