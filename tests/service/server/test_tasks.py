"""What the server keeps of tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cval_torch.service.server.database import Database
from cval_torch.service.server.settings import RefusedError
from cval_torch.service.server.tasks import MOST_RESTARTS, Task, Tasks, check_waiting


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    database = Database(tmp_path / "a.sqlite3")
    yield Tasks(database)
    database.close()


def got(tasks: Tasks, task_id: str) -> Task:
    found = tasks.get(task_id)
    assert found is not None
    return found


def claimed(tasks: Tasks, **served: int) -> str | None:
    task = tasks.claim(served)
    return None if task is None else task.id


def test_a_task_goes_through_its_states(tasks: Tasks) -> None:
    first = tasks.add("me", None, start=1.0, stages="[1]")
    second = tasks.add("me", "d", start=2.0, stages="[2]", task_id="second")
    done = tasks.add("me", "d", start=3.0, result=["f"])
    assert (first.state, second.id, done.state, done.result) == ("queued", "second", "done", ["f"])
    assert tasks.unfinished("me") == tasks.unfinished() == [(first.id, 1.0), ("second", 2.0)]
    assert tasks.unfinished("you") == []
    assert [claimed(tasks) for _ in range(3)] == [first.id, "second", None], "the longest waiting first"
    assert (got(tasks, first.id).state, got(tasks, first.id).stages) == ("running", "[1]")
    assert len(tasks.unfinished("me")) == 2
    tasks.release("second")
    tasks.requeue()
    assert [claimed(tasks), claimed(tasks)] == ["second", first.id], "behind those that no server died with"
    tasks.finish(first.id, result=["b", "a"])
    tasks.finish("second", problem="too much")
    ended, failed = got(tasks, first.id), got(tasks, "second")
    assert (ended.state, ended.result, ended.restarts, ended.attempts) == ("done", ["b", "a"], 1, 0)
    assert (failed.state, failed.problem, failed.result) == ("failed", "too much", None)
    payload = json.loads(ended.payload())
    assert (payload["result"], payload["queue_info"], payload["time_end"] >= 1.0) == (["b", "a"], None, True)
    assert tasks.get(first.id, "you") is None
    assert tasks.newest("me", None, 2) == [done.id, "second"]
    assert tasks.newest("me", "d", 9) == [done.id, "second"]
    assert tasks.delete("second", "you") is False
    assert [tasks.delete("second", "me") for _ in range(2)] == [True, False]


def test_owners_have_their_turns(tasks: Tasks) -> None:
    mine = [tasks.add("me", None, start=1.0, stages="[]").id for _ in range(3)]
    yours = [tasks.add("you", None, start=2.0, stages="[]").id for _ in range(2)]
    served: dict[str, int] = {}
    order = []
    while (task := tasks.claim(served)) is not None:
        served[task.owner] = len(order) + 1
        order.append(task.id)
    assert order == [mine[0], yours[0], mine[1], yours[1], mine[2]]


def test_deaths_of_workers_and_of_servers_are_counted_apart(tasks: Tasks) -> None:
    task_id = tasks.add("me", None, start=1.0, stages="[]").id
    for attempt in (1, 2):
        tasks.claim({})
        assert tasks.count_attempt(task_id) == attempt
    for restart in range(1, MOST_RESTARTS):
        tasks.claim({})
        tasks.requeue()
        assert (got(tasks, task_id).restarts, got(tasks, task_id).state) == (restart, "queued")
    tasks.claim({})
    tasks.requeue()
    ended = got(tasks, task_id)
    assert (ended.state, ended.problem) == ("failed", "given up: the server ended 100 times while it ran")
    assert tasks.count_attempt("none") == 0


def test_so_many_wait_and_no_more(tasks: Tasks) -> None:
    check_waiting(1, 2)
    tasks.add("me", None, start=1.0, stages="[]", most_waiting=1)
    with pytest.raises(RefusedError, match="1 tasks of this key are waiting already"):
        tasks.add("me", None, start=1.0, stages="[]", most_waiting=1)
    tasks.add("me", None, start=1.0, result=["a"], most_waiting=1)
    tasks.add("you", None, start=1.0, stages="[]", most_waiting=1)
    assert len(tasks.unfinished()) == 2


def test_two_servers_files_and_two_views_of_one(tmp_path: Path) -> None:
    first, second = Database(tmp_path / "a.sqlite3"), Database(tmp_path / "a.sqlite3")
    task = Tasks(first).add("me", None, start=1.0, stages="[]")
    assert claimed(Tasks(second)) == task.id
    assert claimed(Tasks(first)) is None
    first.close()
    second.close()
    third = Database(tmp_path / "a.sqlite3")
    assert Tasks(third).get(task.id) is not None, "it is on the disk"
    third.close()
