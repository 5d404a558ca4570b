"""What a server keeps of tasks: selections that were asked for, and what came of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_core import to_json

from cval_torch.service.server.database import Database, new_id
from cval_torch.service.server.settings import RefusedError

MOST_ATTEMPTS = 3
"""After so many deaths of its worker a task is given up."""
MOST_RESTARTS = 100
"""After so many deaths of the server while it ran a task is given up, too."""

_COLUMNS = "id, owner, dataset, state, time_start, time_end, stages, problem, attempts, restarts, result"
_UNFINISHED = "state IN ('queued', 'running')"


@dataclass(frozen=True)
class Task:
    """A selection that was asked for.

    Attributes:
        state: `queued`, `running`, `done` or `failed`.
        attempts: how often its worker died.
        restarts: how often the server died while it ran.
        result_json: the chosen frame ids, as JSON.
    """

    id: str
    owner: str
    dataset: str | None
    state: str
    time_start: float
    time_end: float | None
    stages: str | None
    problem: str | None
    attempts: int
    restarts: int
    result_json: str | None

    @property
    def result(self) -> list[str] | None:
        """The chosen frame ids."""
        found: list[str] | None = None if self.result_json is None else json.loads(self.result_json)
        return found

    def payload(self) -> bytes:
        """As the protocol has it. A result of many frames is not read for that."""
        before = {
            "task_id": self.id,
            "dataset_id": self.dataset,
            "time_start": self.time_start,
            "time_end": self.time_end,
            "type_of_task": "detection",
            "action": "sampling",
            "weights": None,
        }
        return b'%b,"result":%b,"queue_info":null}' % (to_json(before)[:-1], (self.result_json or "null").encode())


class Tasks:
    """The tasks in the file of a server. A method returns once its change is on the disk.

    Args:
        database: the file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        owner: str,
        dataset_id: str | None,
        *,
        start: float,
        stages: str | None = None,
        result: list[str] | None = None,
        task_id: str | None = None,
        keep: int | None = None,
        most_waiting: int | None = None,
    ) -> Task:
        """A task that began at `start` (unix seconds): done if there is a `result`, else waiting for its turn.

        Of the owner's finished tasks all but the newest `keep` are removed (None: none).

        Raises:
            RefusedError: 429, it would wait, and `most_waiting` of the owner's do.
        """
        state, end = ("queued", None) if result is None else ("done", time.time())
        text = None if result is None else json.dumps(result)
        task = Task(task_id or new_id(), owner, dataset_id, state, start, end, stages, None, 0, 0, text)
        with self._database.writing() as connection:
            if result is None and most_waiting is not None:
                query = f"SELECT count(*) FROM tasks WHERE {_UNFINISHED} AND owner = ?"  # noqa: S608
                check_waiting(connection.execute(query, (owner,)).fetchone()[0], most_waiting)
            connection.execute(
                "INSERT INTO tasks (id, owner, dataset, state, time_start, time_end, stages, result) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (task.id, owner, dataset_id, state, start, end, stages, text),
            )
            if keep is not None:
                connection.execute(
                    "DELETE FROM tasks WHERE owner = ? AND state IN ('done', 'failed') AND number <= "
                    "(SELECT number FROM tasks WHERE owner = ? AND state IN ('done', 'failed') "
                    "ORDER BY number DESC LIMIT 1 OFFSET ?)",
                    (owner, owner, keep),
                )
        return task

    def get(self, task_id: str, owner: str | None = None) -> Task | None:
        """The task, if it is the owner's (None: whoever's)."""
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM tasks WHERE id = ? AND (owner = ? OR ? IS NULL)",  # noqa: S608
            *(task_id, owner, owner),
        )
        return Task(*rows[0]) if rows else None

    def newest(self, owner: str, dataset_id: str | None, limit: int) -> list[str]:
        """The ids of the owner's tasks, newest first."""
        rows = self._database.read(
            "SELECT id FROM tasks WHERE owner = ? AND (dataset = ? OR ? IS NULL) ORDER BY number DESC LIMIT ?",
            *(owner, dataset_id, dataset_id, limit),
        )
        return [task_id for (task_id,) in rows]

    def unfinished(self, owner: str | None = None) -> list[tuple[str, float]]:
        """The (id, start) of the owner's tasks (None: of all) that are not finished, the oldest first."""
        return self._database.read(
            f"SELECT id, time_start FROM tasks WHERE {_UNFINISHED} AND (owner = ? OR ? IS NULL) ORDER BY number",  # noqa: S608
            *(owner, owner),
        )

    def requeue(self) -> None:
        """What ran when the last server died waits again; what has seen that too often is given up."""
        with self._database.writing() as connection:
            connection.execute("UPDATE tasks SET state = 'queued', restarts = restarts + 1 WHERE state = 'running'")
            connection.execute(
                "UPDATE tasks SET state = 'failed', time_end = ?, problem = ? WHERE state = 'queued' AND restarts >= ?",
                (time.time(), f"given up: the server ended {MOST_RESTARTS} times while it ran", MOST_RESTARTS),
            )

    def claim(self, served: Mapping[str, int]) -> Task | None:
        """Mark the next task as running.

        It is the next one of the owner who was served the longest ago: of those on which no server died, the oldest.

        Args:
            served: by owner, when it was last: a larger number is later.
        """
        with self._database.writing() as connection:
            waiting = connection.execute("SELECT owner, restarts, number FROM tasks WHERE state = 'queued'").fetchall()
            if not waiting:
                return None
            _, _, number = min(waiting, key=lambda row: (served.get(row[0], 0), *row[1:]))
            connection.execute("UPDATE tasks SET state = 'running' WHERE number = ?", (number,))
            row = connection.execute(f"SELECT {_COLUMNS} FROM tasks WHERE number = ?", (number,)).fetchone()  # noqa: S608
        return Task(*row)

    def release(self, task_id: str) -> None:
        """Let it wait again, as if it had not been begun."""
        with self._database.writing() as connection:
            connection.execute("UPDATE tasks SET state = 'queued' WHERE id = ? AND state = 'running'", (task_id,))

    def count_attempt(self, task_id: str) -> int:
        """Its worker died: let it wait again; how often that has been."""
        with self._database.writing() as connection:
            connection.execute("UPDATE tasks SET attempts = attempts + 1, state = 'queued' WHERE id = ?", (task_id,))
            row = connection.execute("SELECT attempts FROM tasks WHERE id = ?", (task_id,)).fetchone()
        return 0 if row is None else int(row[0])

    def finish(self, task_id: str, *, result: list[str] | None = None, problem: str | None = None) -> None:
        """The end of a task: its frame ids, or why there are none."""
        text = None if result is None else json.dumps(result)
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE tasks SET state = ?, time_end = ?, result = ?, problem = ? WHERE id = ?",
                ("failed" if result is None else "done", time.time(), text, problem, task_id),
            )

    def delete(self, task_id: str, owner: str) -> bool:
        """Forget the owner's task, whatever its state; whether there was one."""
        with self._database.writing() as connection:
            return connection.execute("DELETE FROM tasks WHERE id = ? AND owner = ?", (task_id, owner)).rowcount > 0


def check_waiting(count: int, most: int) -> None:
    """Raise RefusedError, 429, if as many tasks wait as may."""
    if count >= most:
        raise RefusedError(429, f"{most} tasks of this key are waiting already")
