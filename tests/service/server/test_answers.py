"""Answers that may be large take little memory, through a socket too."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from own_server import KEY, serving_here
from server_calls import Api

from cval_torch.service.protocol import DatasetRequest
from cval_torch.service.server.answers import embedding_answer, list_answer
from cval_torch.service.server.database import Database
from cval_torch.service.server.keys import KeyRing
from cval_torch.service.server.store import Store
from cval_torch.service.server.tasks import Tasks

MIB = 1 << 20


def test_large_answers_take_memory_for_a_piece(tmp_path: Path) -> None:
    """40 results of 1 MiB each, and 400 frames of 8192 numbers, which are 30 MiB of JSON."""
    database = Database(tmp_path / "cval.sqlite3")
    store, tasks = Store(database), Tasks(database)
    owner = KeyRing([(None, KEY)], salt=store.salt()).owner_of(f"user_api_key:{KEY}".encode())
    assert owner is not None
    names = [f"{row:062d}" for row in range(16_000)]
    for _ in range(40):
        tasks.add(owner, None, start=1.0, result=names)
    dataset_id = store.create_dataset(owner, DatasetRequest())
    numbers = np.random.default_rng(0).random(8192, dtype=np.float32)
    store.add_embeddings(dataset_id, "test", ((str(row), [("0", numbers.tobytes())]) for row in range(400)))
    database.close()
    with serving_here(tmp_path) as url:
        api = Api(url)
        for path, least in (("/results?limit=100", 40 * MIB), (f"/dataset/{dataset_id}/test/embeddings", 25 * MIB)):
            with api("GET", path, stream=True) as answer:
                tracemalloc.start()
                size, begin, end = 0, b"", b""
                for piece in answer.iter_content(1 << 16):
                    begin, end, size = begin or piece, (end + piece)[-2:], size + len(piece)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            assert size > least
            assert peak < 8 * MIB
            assert (begin[:2], end) == (b"[{", b"}]")
        one = api("GET", f"/dataset/{dataset_id}/test/embeddings", params={"start_limit": 399}).json()
        assert np.array_equal(np.float32(one[0]["embeddings"][0]["embedding"]), numbers)
        assert len(api("GET", "/results").json()) == 40
        api.session.close()


def test_frames_of_many_embeddings_and_of_none(api: Api) -> None:
    path = f"/dataset/{api.dataset()}/test/embeddings"
    sent = [
        {"frame_id": name, "embeddings": [{"embedding_id": str(row), "embedding": [row]} for row in range(count)]}
        for name, count in (("none", 0), ("many", 150), ("one", 1))
    ]
    meta = api("POST", path, sent).json()
    assert api("GET", path).json() == sent
    assert api("GET", f"{path}/meta").json() == meta


@pytest.mark.parametrize("vector", [[], [0.1, -3e8]])
def test_one_embedding(vector: list[float]) -> None:
    said = json.loads(embedding_answer('"a', "é", np.array(vector, dtype="<f4").tobytes()))
    assert said == {"frame_id": '"a', "embeddings": [{"embedding_id": "é", "embedding": vector}]}


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_a_list_in_pieces(count: int) -> None:
    pieces = list(list_answer(range(count), lambda number: str(number).encode()))
    assert json.loads(b"".join(pieces)) == list(range(count))
    assert (len(pieces) > 1) is (count == 5000)
