"""What a server keeps of datasets and their embeddings."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice

from cval_torch.service.protocol import Dataset, DatasetRequest
from cval_torch.service.server.database import Database, new_id
from cval_torch.service.server.settings import RefusedError

PORTION_BYTES = 1 << 20
PORTION_FRAMES = 1000
_PORTION_SECONDS = 0.05  # of a deletion
_PAUSE_SECONDS = 0.01
_NOBODY = ""
_PARTS = "('training', 'test', 'validation')"

Vectors = Sequence[tuple[str, bytes]]
"""(embedding id, float32 bytes) of one frame."""


class Store:
    """Datasets and embeddings in the file of a server. A method returns once its change is on the disk.

    Nothing holds the file for long: what is large is written and deleted in portions, and is seen all at once.

    Args:
        database: the file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def salt(self) -> bytes:
        """Secret bytes of this store, made when it was."""
        with self._database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('salt', ?)", (secrets.token_bytes(32),))
            value: bytes = connection.execute("SELECT value FROM meta WHERE name = 'salt'").fetchone()[0]
        return value

    def sweep(self) -> None:
        """Remove what a server that was killed had not written, or deleted, to its end."""
        for dataset_id, part in self._database.read(
            f"SELECT DISTINCT dataset, part FROM frames WHERE part NOT IN {_PARTS}"  # noqa: S608
        ):
            self.delete_embeddings(dataset_id, part)
        for (dataset_id,) in self._database.read("SELECT id FROM datasets WHERE owner = ?", _NOBODY):
            self.delete_dataset(dataset_id)

    # Datasets

    def create_dataset(self, owner: str, request: DatasetRequest, *, most: int | None = None) -> str:
        """Make a dataset; its id is returned.

        Raises:
            RefusedError: 409, the owner has `most` already.
        """
        dataset_id = new_id()
        storage = request.storage_config.model_dump_json() if request.storage_config else None
        row = (dataset_id, owner, request.dataset_name, request.dataset_description, storage, time.time())
        with self._database.writing() as connection:
            (count,) = connection.execute("SELECT count(*) FROM datasets WHERE owner = ?", (owner,)).fetchone()
            if most is not None and count >= most:
                raise RefusedError(409, f"a key has at most {most} datasets")
            connection.execute(
                "INSERT INTO datasets (id, owner, name, description, storage, created) VALUES (?, ?, ?, ?, ?, ?)", row
            )
        return dataset_id

    def update_dataset(self, dataset_id: str, request: DatasetRequest) -> None:
        """Change what is not None."""
        storage = request.storage_config.model_dump_json() if request.storage_config else None
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE datasets SET name = coalesce(?, name), description = coalesce(?, description), "
                "storage = coalesce(?, storage) WHERE id = ?",
                (request.dataset_name, request.dataset_description, storage, dataset_id),
            )

    def dataset(self, owner: str, dataset_id: str) -> Dataset | None:
        """The owner's dataset of that id."""
        rows = self._database.read(
            "SELECT id, name, description FROM datasets WHERE id = ? AND owner = ?", dataset_id, owner
        )
        return _dataset(rows[0]) if rows else None

    def datasets(self, owner: str) -> list[Dataset]:
        """All of the owner's, the oldest first."""
        rows = self._database.read(
            "SELECT id, name, description FROM datasets WHERE owner = ? ORDER BY created, rowid", owner
        )
        return [_dataset(row) for row in rows]

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove it and its embeddings: nobody finds it any more from the beginning."""
        with self._database.writing() as connection:
            connection.execute("UPDATE datasets SET owner = ? WHERE id = ?", (_NOBODY, dataset_id))
        self._delete_frames("dataset = ?", dataset_id)
        with self._database.writing() as connection:
            connection.execute("DELETE FROM datasets WHERE id = ?", (dataset_id,))

    # Embeddings

    def add_embeddings(
        self, dataset_id: str, part: str, frames: Iterable[tuple[str, Vectors]], *, most_bytes: int | None = None
    ) -> None:
        """Store vectors, all or none. A vector that is there already is replaced, in its place.

        Args:
            dataset_id: of a dataset.
            part: of it.
            frames: in their order.
            most_bytes: of all vectors of the dataset's owner.

        Raises:
            RefusedError: 404, the dataset was deleted meanwhile; 507, the owner has too much.
        """
        portions = _portions(frames)
        begin = list(islice(portions, 2))
        aside = part if len(begin) < 2 else f"{part} {new_id()}"  # a part that nobody can ask for
        try:
            for portion in chain(begin, portions):
                with self._database.writing() as connection:
                    _insert(connection, dataset_id, aside, portion, most_bytes)
                if aside != part:
                    pause()
            if aside != part:
                with self._database.writing() as connection:
                    _move(connection, dataset_id, aside, part)
        except sqlite3.IntegrityError as error:
            raise RefusedError(404, f"dataset {dataset_id!r} was deleted during the upload") from error
        except BaseException:
            if aside != part:
                self.delete_embeddings(dataset_id, aside)
            raise

    def frames(self, dataset_id: str, part: str, start: int, stop: int) -> list[tuple[int, str]]:
        """The (key, frame id) of frames `start:stop`, in the order in which they came."""
        return self._database.read(
            "SELECT key, frame_id FROM frames WHERE dataset = ? AND part = ? ORDER BY key LIMIT ? OFFSET ?",
            *(dataset_id, part, max(0, stop - start), start),
        )

    def vectors(self, key: int, after: int, limit: int) -> list[tuple[int, str, bytes]]:
        """(place, embedding id, vector) of at most `limit` embeddings of the frame, after that place."""
        return self._database.read(
            "SELECT rowid, embedding_id, vector FROM embeddings WHERE frame = ? AND rowid > ? ORDER BY rowid LIMIT ?",
            *(key, after, limit),
        )

    def names(self, key: int) -> list[str]:
        """The ids of a frame's embeddings."""
        rows = self._database.read("SELECT embedding_id FROM embeddings WHERE frame = ? ORDER BY rowid", key)
        return [name for (name,) in rows]

    def embedding(self, dataset_id: str, part: str, frame_id: str, embedding_id: str) -> bytes | None:
        """One vector."""
        rows = self._database.read(
            "SELECT e.vector FROM frames AS f JOIN embeddings AS e ON e.frame = f.key "
            "WHERE f.dataset = ? AND f.part = ? AND f.frame_id = ? AND e.embedding_id = ?",
            *(dataset_id, part, frame_id, embedding_id),
        )
        return rows[0][0] if rows else None

    def delete_embeddings(self, dataset_id: str, part: str) -> None:
        """Remove all that is in the part now."""
        self._delete_frames("dataset = ? AND part = ?", dataset_id, part)

    def delete_embedding(self, dataset_id: str, part: str, frame_id: str, embedding_id: str | None) -> bool:
        """Remove one vector, or with None the frame; whether there was something to remove."""
        place = (dataset_id, part, frame_id)
        with self._database.writing() as connection:
            found = connection.execute(
                "SELECT key FROM frames WHERE dataset = ? AND part = ? AND frame_id = ?", place
            ).fetchone()
            if found is None:
                return False
            named, values = ("", found) if embedding_id is None else (" AND embedding_id = ?", (*found, embedding_id))
            count, size = connection.execute(
                f"SELECT count(*), coalesce(sum(length(vector)), 0) FROM embeddings WHERE frame = ?{named}",  # noqa: S608
                values,
            ).fetchone()
            connection.execute(f"DELETE FROM embeddings WHERE frame = ?{named}", values)  # noqa: S608
            gone = connection.execute(
                "DELETE FROM frames WHERE key = ? AND NOT EXISTS (SELECT 1 FROM embeddings WHERE frame = frames.key)",
                found,
            ).rowcount
            _count(connection, dataset_id, -size)
        return bool(count or (gone and embedding_id is None))

    def vectors_of(self, dataset_id: str, frame_id: str, names: Collection[str]) -> dict[str, bytes]:
        """Those vectors of a frame, by their names, from all parts; where several have a name, from `training`."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT e.embedding_id, e.vector FROM frames AS f JOIN embeddings AS e ON e.frame = f.key "  # noqa: S608
                f"WHERE f.dataset = ? AND f.part IN {_PARTS} AND f.frame_id = ? "
                "ORDER BY f.part = 'training', f.part DESC",
                (dataset_id, frame_id),
            )
            return {name: vector for name, vector in rows if name in names}

    def _delete_frames(self, where: str, *values: str) -> None:
        """Some frames at a time, as many as take little time; none of those that come meanwhile."""
        (last,) = self._database.read(f"SELECT max(key) FROM frames WHERE {where}", *values)[0]  # noqa: S608
        count = 64
        while last is not None:
            with self._database.writing() as connection:
                began = time.monotonic()  # others who write make no portion smaller
                keys = [
                    key
                    for (key,) in connection.execute(
                        f"SELECT key FROM frames WHERE {where} AND key <= ? ORDER BY key LIMIT ?",  # noqa: S608
                        (*values, last, count),
                    )
                ]
                for key in keys:
                    connection.execute(
                        "UPDATE datasets SET bytes = bytes - (SELECT coalesce(sum(length(vector)), 0) FROM embeddings "
                        "WHERE frame = ?) WHERE id = ?",
                        (key, values[0]),
                    )
                connection.executemany("DELETE FROM frames WHERE key = ?", [(key,) for key in keys])
            if len(keys) < count:
                return
            count = max(1, count // 2 if time.monotonic() - began > _PORTION_SECONDS else count * 2)
            pause()


def pause() -> None:
    """Leave others their turn to write."""
    time.sleep(_PAUSE_SECONDS)


def _portions(frames: Iterable[tuple[str, Vectors]]) -> Iterator[list[tuple[str, Vectors]]]:
    held, size = list[tuple[str, Vectors]](), 0
    for frame_id, vectors in frames:
        held.append((frame_id, vectors))
        size += sum(len(vector) for _, vector in vectors)
        if size >= PORTION_BYTES or len(held) >= PORTION_FRAMES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _insert(
    connection: sqlite3.Connection,
    dataset_id: str,
    part: str,
    frames: Iterable[tuple[str, Vectors]],
    most_bytes: int | None,
) -> None:
    added = 0
    for frame_id, vectors in frames:
        place = (dataset_id, part, frame_id)
        cursor = connection.execute(
            "INSERT INTO frames (dataset, part, frame_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", place
        )
        key, sizes = cursor.lastrowid, dict[str, int]()
        if not cursor.rowcount:
            query = "SELECT key FROM frames WHERE dataset = ? AND part = ? AND frame_id = ?"
            (key,) = connection.execute(query, place).fetchone()
            sizes = dict(
                connection.execute("SELECT embedding_id, length(vector) FROM embeddings WHERE frame = ?", (key,))
            )
        connection.executemany(
            "INSERT INTO embeddings VALUES (?, ?, ?) "
            "ON CONFLICT (frame, embedding_id) DO UPDATE SET vector = excluded.vector",
            [(key, embedding_id, vector) for embedding_id, vector in vectors],
        )
        for embedding_id, vector in vectors:
            added += len(vector) - sizes.get(embedding_id, 0)
            sizes[embedding_id] = len(vector)
    _count(connection, dataset_id, added)
    if most_bytes is not None and added > 0:
        (held,) = connection.execute(
            "SELECT sum(bytes) FROM datasets WHERE owner = (SELECT owner FROM datasets WHERE id = ?)", (dataset_id,)
        ).fetchone()
        if held is not None and held > most_bytes:
            raise RefusedError(507, f"the embeddings of a key have at most {most_bytes} bytes: delete some of them")


def _move(connection: sqlite3.Connection, dataset_id: str, aside: str, part: str) -> None:
    """Put frames where they belong. Those that are there already take over the vectors."""
    both = (
        "FROM frames AS new JOIN frames AS old ON old.dataset = new.dataset AND old.part = ? AND "
        "old.frame_id = new.frame_id JOIN embeddings AS e ON e.frame = new.key "
    )
    new = "WHERE new.dataset = ? AND new.part = ?"
    (replaced,) = connection.execute(
        f"SELECT coalesce(sum(length(o.vector)), 0) {both} "
        f"JOIN embeddings AS o ON o.frame = old.key AND o.embedding_id = e.embedding_id {new}",
        (part, dataset_id, aside),
    ).fetchone()
    connection.execute(
        f"INSERT INTO embeddings SELECT old.key, e.embedding_id, e.vector {both} {new} ORDER BY new.key, e.rowid "
        "ON CONFLICT (frame, embedding_id) DO UPDATE SET vector = excluded.vector",
        (part, dataset_id, aside),
    )
    connection.execute(
        "DELETE FROM frames WHERE dataset = ? AND part = ? AND frame_id IN ("
        "SELECT frame_id FROM frames WHERE dataset = ? AND part = ?)",
        (dataset_id, aside, dataset_id, part),
    )
    connection.execute("UPDATE frames SET part = ? WHERE dataset = ? AND part = ?", (part, dataset_id, aside))
    _count(connection, dataset_id, -replaced)


def _count(connection: sqlite3.Connection, dataset_id: str, added: int) -> None:
    connection.execute("UPDATE datasets SET bytes = bytes + ? WHERE id = ?", (added, dataset_id))


def _dataset(row: tuple[str, str | None, str | None]) -> Dataset:
    return Dataset(dataset_id=row[0], dataset_name=row[1], dataset_description=row[2])
