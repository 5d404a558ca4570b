"""What a server keeps: datasets, embeddings and tasks, in one SQLite file."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cval_torch.service.protocol import Dataset, DatasetRequest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS datasets (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT, description TEXT, storage TEXT, created REAL NOT NULL);
CREATE INDEX IF NOT EXISTS datasets_of ON datasets (owner, created);
CREATE TABLE IF NOT EXISTS frames (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset TEXT NOT NULL REFERENCES datasets ON DELETE CASCADE, part TEXT NOT NULL, frame_id TEXT NOT NULL,
    UNIQUE (dataset, part, frame_id));
CREATE INDEX IF NOT EXISTS frames_in_order ON frames (dataset, part, key);
CREATE TABLE IF NOT EXISTS embeddings (
    frame INTEGER NOT NULL REFERENCES frames ON DELETE CASCADE, embedding_id TEXT NOT NULL, vector BLOB NOT NULL,
    UNIQUE (frame, embedding_id));
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, dataset TEXT,
    state TEXT NOT NULL, time_start REAL NOT NULL, time_end REAL, stages TEXT, result TEXT, problem TEXT,
    attempts INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS tasks_of ON tasks (owner, number);
CREATE INDEX IF NOT EXISTS tasks_in_state ON tasks (state, number);
CREATE INDEX IF NOT EXISTS tasks_finished ON tasks (owner, number) WHERE state IN ('done', 'failed');
"""

BUSY_SECONDS = 10.0
"""How long a change waits for others."""

Vectors = Sequence[tuple[str, bytes]]
"""(embedding id, float32 bytes) of one frame."""


@dataclass(frozen=True)
class Task:
    """A selection that was asked for. `state` is `queued`, `running`, `done` or `failed`."""

    id: str
    owner: str
    dataset: str | None
    state: str
    time_start: float
    time_end: float | None
    stages: str | None
    problem: str | None
    attempts: int
    result: list[str] | None

    def payload(self) -> dict[str, Any]:
        """As the protocol has it."""
        return {
            "task_id": self.id,
            "dataset_id": self.dataset,
            "time_start": self.time_start,
            "time_end": self.time_end,
            "type_of_task": "detection",
            "action": "sampling",
            "weights": None,
            "result": self.result,
            "queue_info": None,
        }


class Store:
    """One SQLite file in WAL mode. A method returns once its change is on the disk.

    Any number of threads and processes may have one on the same file.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def salt(self) -> bytes:
        """Secret bytes of this store, made when it was."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('salt', ?)", (secrets.token_bytes(32),))
            value: bytes = connection.execute("SELECT value FROM meta WHERE name = 'salt'").fetchone()[0]
        return value

    # Datasets

    def create_dataset(self, owner: str, request: DatasetRequest) -> str:
        """Make a dataset; its id is returned."""
        dataset_id = new_id()
        storage = request.storage_config.model_dump_json() if request.storage_config else None
        row = (dataset_id, owner, request.dataset_name, request.dataset_description, storage, time.time())
        with self._writing() as connection:
            connection.execute("INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?)", row)
        return dataset_id

    def update_dataset(self, dataset_id: str, request: DatasetRequest) -> None:
        """Change what is not None."""
        storage = request.storage_config.model_dump_json() if request.storage_config else None
        with self._writing() as connection:
            connection.execute(
                "UPDATE datasets SET name = coalesce(?, name), description = coalesce(?, description), "
                "storage = coalesce(?, storage) WHERE id = ?",
                (request.dataset_name, request.dataset_description, storage, dataset_id),
            )

    def dataset(self, owner: str, dataset_id: str) -> Dataset | None:
        """The owner's dataset of that id."""
        rows = self._read("SELECT id, name, description FROM datasets WHERE id = ? AND owner = ?", dataset_id, owner)
        return _dataset(rows[0]) if rows else None

    def datasets(self, owner: str) -> list[Dataset]:
        """All of the owner's, the oldest first."""
        rows = self._read("SELECT id, name, description FROM datasets WHERE owner = ? ORDER BY created, rowid", owner)
        return [_dataset(row) for row in rows]

    def count_datasets(self, owner: str) -> int:
        """How many the owner has."""
        return int(self._read("SELECT count(*) FROM datasets WHERE owner = ?", owner)[0][0])

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove it and its embeddings."""
        with self._writing() as connection:
            connection.execute("DELETE FROM datasets WHERE id = ?", (dataset_id,))

    # Embeddings

    def add_embeddings(self, dataset_id: str, part: str, frames: Iterable[tuple[str, Vectors]]) -> None:
        """Store vectors, all or none. A vector that is there already is replaced, in its place."""
        with self._writing() as connection:
            for frame_id, vectors in frames:
                place = (dataset_id, part, frame_id)
                connection.execute(
                    "INSERT INTO frames (dataset, part, frame_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", place
                )
                (key,) = connection.execute(
                    "SELECT key FROM frames WHERE dataset = ? AND part = ? AND frame_id = ?", place
                ).fetchone()
                connection.executemany(
                    "INSERT INTO embeddings VALUES (?, ?, ?) "
                    "ON CONFLICT (frame, embedding_id) DO UPDATE SET vector = excluded.vector",
                    [(key, embedding_id, vector) for embedding_id, vector in vectors],
                )

    def embeddings(
        self, dataset_id: str, part: str, start: int, stop: int, *, vectors: bool
    ) -> list[tuple[str, list[tuple[str, bytes]]]]:
        """Frames `start:stop` in the order in which they came, with their embeddings; empty bytes without `vectors`."""
        rows = self._read(
            f"SELECT f.key, f.frame_id, e.embedding_id, {'e.vector' if vectors else 'NULL'} FROM ("  # noqa: S608
            "SELECT key, frame_id FROM frames WHERE dataset = ? AND part = ? ORDER BY key LIMIT ? OFFSET ?) AS f "
            "LEFT JOIN embeddings AS e ON e.frame = f.key ORDER BY f.key, e.rowid",
            *(dataset_id, part, max(0, stop - start), start),
        )
        frames: dict[int, tuple[str, list[tuple[str, bytes]]]] = {}
        for key, frame_id, embedding_id, vector in rows:
            held = frames.setdefault(key, (frame_id, []))[1]
            if embedding_id is not None:
                held.append((embedding_id, vector or b""))
        return list(frames.values())

    def embedding(self, dataset_id: str, part: str, frame_id: str, embedding_id: str) -> bytes | None:
        """One vector."""
        rows = self._read(
            "SELECT e.vector FROM frames AS f JOIN embeddings AS e ON e.frame = f.key "
            "WHERE f.dataset = ? AND f.part = ? AND f.frame_id = ? AND e.embedding_id = ?",
            *(dataset_id, part, frame_id, embedding_id),
        )
        return rows[0][0] if rows else None

    def delete_embeddings(self, dataset_id: str, part: str) -> None:
        """Remove all of the part."""
        with self._writing() as connection:
            connection.execute("DELETE FROM frames WHERE dataset = ? AND part = ?", (dataset_id, part))

    def delete_embedding(self, dataset_id: str, part: str, frame_id: str, embedding_id: str | None) -> bool:
        """Remove one vector, or with None the frame; whether there was something to remove."""
        place = (dataset_id, part, frame_id)
        with self._writing() as connection:
            if embedding_id is None:
                found = connection.execute(
                    "DELETE FROM frames WHERE dataset = ? AND part = ? AND frame_id = ?", place
                ).rowcount
            else:
                found = connection.execute(
                    "DELETE FROM embeddings WHERE embedding_id = ? AND frame IN ("
                    "SELECT key FROM frames WHERE dataset = ? AND part = ? AND frame_id = ?)",
                    (embedding_id, *place),
                ).rowcount
                connection.execute(
                    "DELETE FROM frames WHERE dataset = ? AND part = ? AND frame_id = ? "
                    "AND NOT EXISTS (SELECT 1 FROM embeddings WHERE frame = frames.key)",
                    place,
                )
        return found > 0

    def vectors_of(self, dataset_id: str, frame_id: str, names: Collection[str]) -> dict[str, bytes]:
        """Those vectors of a frame, by their names, from all parts; where several have a name, from `training`."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT e.embedding_id, e.vector FROM frames AS f JOIN embeddings AS e ON e.frame = f.key "
                "WHERE f.dataset = ? AND f.part IN ('test', 'training', 'validation') AND f.frame_id = ? "
                "ORDER BY f.part = 'training', f.part DESC",
                (dataset_id, frame_id),
            )
            return {name: vector for name, vector in rows if name in names}

    # Tasks

    def add_task(
        self,
        owner: str,
        dataset_id: str | None,
        *,
        start: float,
        stages: str | None = None,
        result: list[str] | None = None,
        task_id: str | None = None,
        keep: int | None = None,
    ) -> Task:
        """A task that began at `start` (unix seconds): done if there is a `result`, else waiting for its turn.

        Of the owner's finished tasks all but the newest `keep` are removed (None: none).
        """
        state, end = ("queued", None) if result is None else ("done", time.time())
        task = Task(task_id or new_id(), owner, dataset_id, state, start, end, stages, None, 0, result)
        kept = None if result is None else json.dumps(result)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO tasks (id, owner, dataset, state, time_start, time_end, stages, result) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (task.id, owner, dataset_id, state, start, end, stages, kept),
            )
            if keep is not None:
                connection.execute(
                    "DELETE FROM tasks WHERE owner = ? AND state IN ('done', 'failed') AND number <= "
                    "(SELECT number FROM tasks WHERE owner = ? AND state IN ('done', 'failed') "
                    "ORDER BY number DESC LIMIT 1 OFFSET ?)",
                    (owner, owner, keep),
                )
        return task

    def task(self, task_id: str, owner: str | None = None) -> Task | None:
        """The task, if it is the owner's (None: whoever's)."""
        found = self._tasks("WHERE id = ? AND (owner = ? OR ? IS NULL)", task_id, owner, owner)
        return found[0] if found else None

    def tasks(self, owner: str, dataset_id: str | None, limit: int) -> list[Task]:
        """The owner's, newest first."""
        return self._tasks(
            "WHERE owner = ? AND (dataset = ? OR ? IS NULL) ORDER BY number DESC LIMIT ?",
            *(owner, dataset_id, dataset_id, limit),
        )

    def count_waiting(self, owner: str | None) -> int:
        """How many of the owner's tasks (None: of all) are not finished."""
        query = "SELECT count(*) FROM tasks WHERE state IN ('queued', 'running') AND (owner = ? OR ? IS NULL)"
        return int(self._read(query, owner, owner)[0][0])

    def requeue(self) -> None:
        """What ran when the last server ended waits again."""
        with self._writing() as connection:
            connection.execute("UPDATE tasks SET state = 'queued' WHERE state = 'running'")

    def claim_task(self) -> str | None:
        """Mark the task that waits longest as running; its id."""
        with self._writing() as connection:
            row = connection.execute("SELECT id FROM tasks WHERE state = 'queued' ORDER BY number LIMIT 1").fetchone()
            if row is None:
                return None
            connection.execute("UPDATE tasks SET state = 'running', attempts = attempts + 1 WHERE id = ?", row)
        return str(row[0])

    def finish_task(self, task_id: str, *, result: list[str] | None = None, problem: str | None = None) -> None:
        """The end of a task: its frame ids, or why there are none."""
        kept = None if result is None else json.dumps(result)
        with self._writing() as connection:
            connection.execute(
                "UPDATE tasks SET state = ?, time_end = ?, result = ?, problem = ? WHERE id = ?",
                ("failed" if result is None else "done", time.time(), kept, problem, task_id),
            )

    def release_task(self, task_id: str) -> None:
        """Let it wait again."""
        with self._writing() as connection:
            connection.execute("UPDATE tasks SET state = 'queued' WHERE id = ?", (task_id,))

    def _tasks(self, where: str, *values: object) -> list[Task]:
        rows = self._read(
            "SELECT id, owner, dataset, state, time_start, time_end, stages, problem, attempts, result "  # noqa: S608
            f"FROM tasks {where}",
            *values,
        )
        return [_task(row) for row in rows]

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on the disk when it ends, or none of it."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has ended it itself where the disk is full
                    self._connection.execute("ROLLBACK")
                raise


def new_id() -> str:
    """An id that nobody can guess."""
    return str(uuid.uuid4())


def _dataset(row: tuple[str, str | None, str | None]) -> Dataset:
    return Dataset(dataset_id=row[0], dataset_name=row[1], dataset_description=row[2])


def _task(row: Sequence[Any]) -> Task:
    task_id, owner, dataset, state, start, end, stages, problem, attempts, result = row
    kept = json.loads(result) if result else None
    return Task(task_id, owner, dataset, state, start, end, stages, problem, attempts, kept)
