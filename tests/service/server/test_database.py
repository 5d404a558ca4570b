"""The file of a server: who waits for whom, and its format."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from own_server import KEY, serving_here
from server_calls import Api, vector

from cval_torch.errors import InvalidInputError
from cval_torch.service.server.database import FORMATS, Database, new_id
from cval_torch.service.server.service import Service
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.store import Store


def test_who_reads_waits_for_nobody_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the file, and a request waits to write: that is not answered, and all others are."""
    monkeypatch.setattr("cval_torch.service.server.database.BUSY_SECONDS", 3.0)
    with serving_here(tmp_path) as url, ThreadPoolExecutor(16) as threads:
        api = Api(url)
        dataset_id = api.dataset()
        path = f"/dataset/{dataset_id}/training/embeddings"
        api("POST", path, [vector(1.0)])
        holder = sqlite3.connect(tmp_path / "cval.sqlite3", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        writes = [threads.submit(Api(url), "POST", "/dataset", {}) for _ in range(8)]
        writes += [threads.submit(Api(url), "DELETE", path) for _ in range(4)]
        for _ in range(3):
            assert api("GET", path).json() == [vector(1.0)]
            assert api("GET", f"/dataset/{dataset_id}").status_code == 200
            for name in ("livez", "readyz", "healthz"):
                assert requests.get(f"{url.removesuffix('/api')}/{name}", timeout=30).json()["status"] == "ok"
        assert not any(write.done() for write in writes[:4])
        refused = writes[0].result()
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert refused.json() == {"detail": "the server's files cannot be used at the moment"}
        holder.execute("ROLLBACK")
        holder.close()
        assert api("POST", "/dataset", {}).status_code == 200
        api.session.close()


def test_who_waits_to_write_has_the_file_as_soon_as_it_is_free(tmp_path: Path) -> None:
    first, second = Database(tmp_path / "a.sqlite3"), Database(tmp_path / "a.sqlite3")
    with ThreadPoolExecutor(1) as threads:
        with first.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('a', 'b')")
            waiting = threads.submit(Store(second).salt)
            assert second.read("SELECT count(*) FROM meta") == [(0,)]
        assert waiting.result() == Store(first).salt()
    assert sorted(second.read("SELECT name FROM meta")) == [("a",), ("salt",)]
    first.close()
    second.close()


def test_a_change_is_on_the_disk_before_it_is_answered_and_leaves_no_orphans(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite3")
    with database.writing() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    with pytest.raises(sqlite3.IntegrityError), database.writing() as connection:
        connection.executemany("INSERT INTO meta VALUES (?, 'b')", [("a",), ("a",)])
    with pytest.raises(sqlite3.OperationalError, match="readonly"), database.reading() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    assert database.read("SELECT * FROM meta") == []
    database.close()


def test_a_full_disk_is_told_and_what_comes_after_there_is_room_is_written(tmp_path: Path) -> None:
    """SQLite itself ends the change then."""
    database = Database(tmp_path / "a.sqlite3")
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    for room, written in ((0, False), (100_000, True)):
        database._connection.execute(f"PRAGMA max_page_count = {pages + room}")
        told = contextlib.nullcontext() if written else pytest.raises(sqlite3.OperationalError, match="is full")
        with told, database.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('a', zeroblob(1000000))")
        assert database.read("SELECT count(*) FROM meta") == [(int(written),)]
    database.close()


def test_a_file_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "cval.sqlite3", isolation_level=None)
    old.executescript(FORMATS[0])
    old.execute("INSERT INTO datasets VALUES ('d', 'me', NULL, NULL, NULL, 0)")
    old.execute("INSERT INTO frames VALUES (1, 'd', 'test', 'f')")
    old.execute("INSERT INTO embeddings VALUES (1, '0', x'00000000')")
    old.execute("INSERT INTO tasks (id, owner, state, time_start, attempts) VALUES ('t', 'me', 'running', 1, 2)")
    old.close()
    for _ in range(2):
        database = Database(tmp_path / "cval.sqlite3")
        assert database.read("PRAGMA user_version") == [(len(FORMATS),)]
        assert database.read("SELECT id, bytes FROM datasets") == [("d", 4)]
        assert database.read("SELECT id, restarts FROM tasks") == [("t", 0)]
        database.close()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    later = sqlite3.connect(tmp_path / "cval.sqlite3", isolation_level=None)
    later.execute(f"PRAGMA user_version = {len(FORMATS) + 1}")
    later.close()
    before = (tmp_path / "cval.sqlite3").read_bytes()
    with pytest.raises(InvalidInputError, match=r"has format 3, and this version .* up to 2: upgrade cval_torch"):
        Service(tmp_path, [(None, KEY)], Limits())
    assert (tmp_path / "cval.sqlite3").read_bytes()[100:] == before[100:]


def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    data = tmp_path / "made"
    with serving_here(data) as url:
        api = Api(url)
        api.dataset()
        api.session.close()
        modes = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode) for path in (data, *data.rglob("*"))}
        folders = {path for path in modes if (tmp_path / path).is_dir()}
    assert {path.name for path in modes} >= {"made", "cval.sqlite3", "cval.sqlite3-wal", "lock", "tasks", "incoming"}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path in folders else 0o600)} == {}


def test_ids_are_not_guessed() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 36 for each in ids)
