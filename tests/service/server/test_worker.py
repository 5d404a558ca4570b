"""Work in a process of its own: what it returns and raises, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cval_torch.service.server.database import Database
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.store import Store
from cval_torch.service.server.worker import Worker, WorkerDiedError

BODY = json.dumps([{"frame_id": "a", "embeddings": [{"embedding_id": "0", "embedding": [1.0, 2.0]}]}]).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[Worker]:
    """One for all tests: a fresh interpreter takes seconds."""
    database = Database(folder / "cval.sqlite3")
    with database.writing() as connection:
        connection.execute("INSERT INTO datasets (id, owner, created) VALUES ('d', 'me', 0)")
    database.close()
    worker = Worker(folder, Limits(vector_length=2))
    yield worker
    worker.close()


def pid_of(worker: Worker) -> int:
    assert worker.pid is not None
    return worker.pid


def test_it_does_the_work_and_keeps_its_process(worker: Worker, folder: Path) -> None:
    said = worker.call("store_embeddings", "d", "training", BODY)
    assert json.loads(said) == {
        "frames_quantity": 1,
        "frames": [{"frame_id": "a", "embeddings_quantity": 1, "embeddings": ["0"]}],
    }
    first = pid_of(worker)
    assert first != os.getpid()
    database = Database(folder / "cval.sqlite3")
    assert Store(database).embedding("d", "training", "a", "0") == b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    database.close()
    worker.call("store_embeddings", "d", "training", BODY)
    assert pid_of(worker) == first


def test_refusals_come_through_and_other_errors_by_name(worker: Worker) -> None:
    before = pid_of(worker) if worker.pid is not None else None
    with pytest.raises(RefusedError) as caught:
        worker.call("store_embeddings", "d", "training", BODY.replace(b"2.0", b"2.0, 3.0"))
    assert caught.value.status == 413
    with pytest.raises(RuntimeError, match=r"^AttributeError: .*no_such_method"):
        worker.call("no_such_method")
    assert before in (None, pid_of(worker)), "an error ends no process"


def test_a_process_that_is_killed_is_an_error_and_the_next_call_starts_another(worker: Worker) -> None:
    worker.call("store_embeddings", "d", "test", BODY)
    first = pid_of(worker)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="its process ended before it was done"):
        worker.call("store_embeddings", "d", "test", BODY)
    worker.call("store_embeddings", "d", "test", BODY)
    assert pid_of(worker) != first


def test_work_that_takes_too_long_is_ended(worker: Worker) -> None:
    worker.call("store_embeddings", "d", "test", BODY)
    first = pid_of(worker)
    os.kill(first, signal.SIGSTOP)  # it does not answer, however long one waits
    with pytest.raises(WorkerDiedError, match="it took longer than 0 s"):
        worker.call("store_embeddings", "d", "test", BODY, seconds=0.01)
    assert worker.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_process_that_has_grown_ends_after_its_answer(folder: Path) -> None:
    worker = Worker(folder, Limits(vector_length=2), growth=-1)
    assert json.loads(worker.call("store_embeddings", "d", "test", BODY))["frames_quantity"] == 1
    assert worker.pid is None
    worker.close()


def test_nothing_runs_before_the_first_call_and_after_the_end(tmp_path: Path) -> None:
    worker = Worker(tmp_path, Limits())
    worker.kill()
    assert worker.pid is None
    assert list(tmp_path.iterdir()) == []
