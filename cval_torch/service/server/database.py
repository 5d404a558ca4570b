"""The SQLite file of a server: its connections, its format, and how it changes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError

BUSY_SECONDS = 10.0
"""How long a change waits for others."""

_POLL_SECONDS = 0.05
_READERS_KEPT = 8

FORMATS = (
    """
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
    CREATE INDEX IF NOT EXISTS tasks_finished ON tasks (owner, number) WHERE state IN ('done', 'failed')
    """,
    """
    ALTER TABLE datasets ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE datasets SET bytes = (SELECT coalesce(sum(length(e.vector)), 0)
        FROM frames AS f JOIN embeddings AS e ON e.frame = f.key WHERE f.dataset = datasets.id);
    ALTER TABLE tasks ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0
    """,
)
"""What leads from each format of the file to the next one; `PRAGMA user_version` is how many were applied."""


class Database:
    """One SQLite file in WAL mode. Any number of threads and processes may have one on the same file.

    Who reads has a connection of its own and waits for nobody. Who writes waits for the others who do.

    Args:
        path: made if need be, for this user alone.

    Raises:
        InvalidInputError: the file has a format of a later version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._is_closed = False
        self._connection = self._connect(_POLL_SECONDS)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._bring_up_to_date()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._is_closed = True
            self._connection.close()
            while self._readers:
                self._readers.pop().close()

    def read(self, query: str, *values: object) -> list[Any]:
        """The rows of a query."""
        with self.reading() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else has at the time."""
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._connect(BUSY_SECONDS)
            connection.execute("PRAGMA query_only = ON")
        try:
            yield connection
        finally:
            if self._is_closed or len(self._readers) >= _READERS_KEPT:
                connection.close()
            else:
                self._readers.append(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on the disk when it ends, or none of it.

        Raises:
            sqlite3.OperationalError: others kept the file for `BUSY_SECONDS`, or it cannot be written.
        """
        end = time.monotonic() + BUSY_SECONDS
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            raise sqlite3.OperationalError("database is locked")
        try:
            self._begin(end)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has ended it itself where the disk is full
                    self._connection.execute("ROLLBACK")
                raise
        finally:
            self._lock.release()

    def _begin(self, end: float) -> None:
        """SQLite's own waits become so long that a lock which is free for moments would not be seen."""
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= end:
                    raise
            else:
                return

    def _connect(self, timeout: float) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=timeout, isolation_level=None, check_same_thread=False)

    def _bring_up_to_date(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(FORMATS):
            self._connection.close()
            raise InvalidInputError(
                f"{self._path} has format {version}, and this version of cval_torch knows formats up to "
                f"{len(FORMATS)}: upgrade cval_torch, or restore a backup of before"
            )
        if version == len(FORMATS):
            return
        with self.writing() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()  # another process may have been first
            for script in FORMATS[version:]:
                for statement in script.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(FORMATS)}")


def new_id() -> str:
    """An id that nobody can guess."""
    return str(uuid.uuid4())
