"""A copy of a server's directory, taken while the server works."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from own_server import serving_here
from server_calls import SAMPLING, Api, frames, sampling, vector

from cval_torch.errors import InvalidInputError
from cval_torch.service.server import backup
from cval_torch.service.server.backup import copy_data
from cval_torch.service.server.settings import Limits


def test_a_copy_of_a_running_server_is_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads go on while it is copied, each of which is in the copy whole or not at all; a task waits in it."""
    source, target = tmp_path / "data", tmp_path / "backups" / "monday"
    with monkeypatch.context() as still, serving_here(source, Limits(answer_at_once=3)) as url:
        still.setattr("cval_torch.service.server.jobs.JobRunner.wake", lambda self: None)
        api = Api(url)
        dataset_id = api.dataset()
        path = f"/dataset/{dataset_id}/training/embeddings"
        task = api("POST", SAMPLING, sampling(frames=frames(0.9, 0.8, 0.6, 0.7))).json()["task_id"]
        done = api("POST", SAMPLING, sampling()).json()
        over = threading.Event()

        def upload() -> None:
            other, number = Api(url), 0
            while not over.is_set():
                other("POST", path, [vector(number, frame_id=f"{number}-{row}") for row in range(9)])
                number += 1
            other.session.close()

        uploading = threading.Thread(target=upload)
        uploading.start()
        try:
            assert copy_data(source, target) == 1
        finally:
            over.set()
            uploading.join()
        api.session.close()
    restored = tmp_path / "restored"
    assert copy_data(target, restored) == 1
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (restored, *restored.rglob("*"))}
    assert modes == {"restored": 0o700, "tasks": 0o700, "cval.sqlite3": 0o600, f"{task}.pool": 0o600}
    with serving_here(restored) as url:
        api = Api(url)
        assert api.result(task)["result"] == ["f2", "f3"]
        assert api("GET", f"/result/{done['task_id']}").json() == done
        names = [frame["frame_id"] for frame in api("GET", f"{path}/meta").json()["frames"]]
        assert len(names) % 9 == 0
        assert names == [f"{number}-{row}" for number in range(len(names) // 9) for row in range(9)]
        api.session.close()


def test_a_task_that_ends_meanwhile_is_copied_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_here(tmp_path / "data"):
        pass
    file = tmp_path / "data" / "cval.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO tasks (id, owner, state, time_start) VALUES ('t', 'me', 'running', 1)")
    real = backup._copy_pool

    def end_it(*given: object) -> bool:
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE tasks SET state = 'done', result = '[]'")
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "_copy_pool", end_it)
    assert copy_data(tmp_path / "data", tmp_path / "copy") == 0
    with sqlite3.connect(tmp_path / "copy" / "cval.sqlite3") as connection:
        assert connection.execute("SELECT state, result FROM tasks").fetchall() == [("done", "[]")]


def test_what_is_no_server_or_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"is not the directory of a server: it has no cval\.sqlite3"):
        copy_data(tmp_path, tmp_path / "new")
    (tmp_path / "cval.sqlite3").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(InvalidInputError, match="is there already"):
        copy_data(tmp_path, tmp_path)
    with pytest.raises(sqlite3.DatabaseError):
        copy_data(tmp_path, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["cval.sqlite3"], "nothing half done is left"
