"""Tasks that run beside the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from own_server import KEY, own_server, serving_here
from running_processes import children_of, wait_until
from server_calls import OTHER, SAMPLING, Api, frames, sampling

from cval_torch.service.server.jobs import JobRunner
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.tasks import MOST_ATTEMPTS
from cval_torch.service.server.work import Work
from cval_torch.service.server.worker import WorkerDiedError


def workers_here() -> set[int]:
    """Processes of this one that are workers of a server."""
    return {
        pid for pid in children_of(os.getpid()) if b"service.server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_large_requests_become_tasks_and_large_bodies_go_through_files(tmp_path: Path) -> None:
    limits = Limits(answer_at_once=5, waiting_tasks=3)
    before = workers_here()
    with serving_here(tmp_path, limits, keys=[(None, KEY), ("second", OTHER)]) as url:
        api, other = Api(url), Api(url, OTHER)
        small = api("POST", SAMPLING, sampling())
        assert small.json()["result"] == ["f1", "f0"]
        many = sampling(frames=frames(*[0.9] * 6, 0.6))
        first, *large = [api("POST", SAMPLING, many).json() for _ in range(3)]
        assert [(task["result"], task["time_end"]) for task in (first, *large)] == [(None, None)] * 3
        busy = api("POST", SAMPLING, sampling(frames=frames(*[0.9] * 7)))
        assert (busy.status_code, busy.headers["Retry-After"]) == (429, "5")
        others = other("POST", SAMPLING, many).json()
        # a task is cancelled, whether it runs or waits; nobody else may do so
        last = api("POST", SAMPLING, sampling()).json()
        assert other("DELETE", f"/result/{first['task_id']}").status_code == 404
        for task in (first, last):
            assert api("DELETE", f"/result/{task['task_id']}").status_code == 200
            assert api("GET", f"/result/{task['task_id']}").status_code == 404
            assert api("DELETE", f"/result/{task['task_id']}").status_code == 404
        # more than 1 MiB, without a declared length too: parsed by another process
        wide = json.dumps(sampling(frames=frames(0.5))).encode().ljust(2 << 20)
        assert api("POST", SAMPLING, data=wide).json()["result"] == ["f0"]
        assert api("POST", SAMPLING, data=iter([wide[: 1 << 20], wide[1 << 20 :]])).json()["result"] == ["f0"]
        assert api("POST", SAMPLING, data=b"[" * (2 << 20)).status_code == 422
        ended = [api.result(task["task_id"]) for task in large]
        assert [task["result"] for task in ended] == [["f6", "f0"]] * 2
        turn = other.result(others["task_id"])["time_end"]
        assert turn < ended[1]["time_end"], "owners by turns: it came last, and did not wait for all that came before"
        failing = api(
            "POST", SAMPLING, sampling(frames=[{"frame_id": str(row)} for row in range(6)], use_null_detections=False)
        )
        assert api.result(failing.json()["task_id"])["detail"].endswith("frame '0' has no boxes")
        assert api("GET", f"/result/{failing.json()['task_id']}").status_code == 409
        assert api("GET", "/results").json()[0]["result"] is None
        assert len(workers_here() - before) == 2
        api.session.close()
        other.session.close()
        assert list((tmp_path / "incoming").iterdir()) == []
    assert workers_here() <= before, "the end of a server is that of its workers"
    assert list((tmp_path / "tasks").iterdir()) == []


def test_no_more_tasks_wait_than_may_however_many_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look before, which a second request may take before the first one is written."""
    monkeypatch.setattr("cval_torch.service.server.work.check_waiting", lambda count, most: None)
    monkeypatch.setattr("cval_torch.service.server.jobs.JobRunner.wake", lambda self: None)
    with serving_here(tmp_path, Limits(answer_at_once=2, waiting_tasks=2, datasets=3)) as url:
        api = Api(url)
        assert [api("POST", SAMPLING, sampling()).status_code for _ in range(4)] == [200, 200, 429, 429]
        assert len(list((tmp_path / "tasks").iterdir())) == 2, "what is not taken leaves nothing"
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(lambda _: api("POST", "/dataset", {}), range(8)))
        assert sorted(answer.status_code for answer in made) == [200] * 3 + [409] * 5
        assert {answer.json()["detail"] for answer in made if answer.status_code == 409} == {
            "a key has at most 3 datasets"
        }
        api.session.close()


class DyingWorker:
    """A worker whose process is killed whatever it is asked."""

    calls = 0

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        self.calls += 1
        raise WorkerDiedError("its process ended before it was done")

    def close(self) -> None:
        return


def test_a_task_that_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    async def run(work: Work, worker: Any) -> None:
        runner = JobRunner(work, worker, Limits())
        runner.start()
        while work.tasks.unfinished():
            await asyncio.sleep(0.01)
        await runner.stop()

    work = Work(tmp_path, Limits())
    task = work.tasks.add("me", None, start=1.0, stages="[]")
    worker = DyingWorker()
    asyncio.run(run(work, worker))
    ended = work.tasks.get(task.id)
    work.close()
    assert worker.calls == MOST_ATTEMPTS
    assert ended is not None
    assert (ended.state, ended.problem) == ("failed", "given up after 3 attempts: its process ended before it was done")


def test_tasks_run_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """What a server before left running comes last; an error of our own fails its task, and the next one is run."""
    ran: list[str] = []

    class Noting:
        def call(self, method: str, task_id: str, *, seconds: float | None = None) -> None:
            assert (method, seconds) == ("run_task", 7.0)
            ran.append(task_id)
            if len(ran) == 2:
                raise RuntimeError("a bug")
            work.tasks.finish(task_id, result=["f"])

        def close(self) -> None:
            ran.append("closed")

    work = Work(tmp_path, Limits())
    tasks = [work.tasks.add("me", None, start=float(row), stages="[]").id for row in range(3)]
    assert work.tasks.claim({}) is not None
    work.sweep()

    async def run() -> None:
        runner = JobRunner(work, Noting(), Limits(task_seconds=7.0))  # type: ignore[arg-type]
        runner.start()
        while work.tasks.unfinished():
            await asyncio.sleep(0.01)
        tasks.append(work.tasks.add("me", None, start=9.0, stages="[]").id)
        runner.wake()
        while work.tasks.unfinished():
            await asyncio.sleep(0.01)
        await runner.stop()

    asyncio.run(run())
    states = [task.state for task_id in reversed(work.tasks.newest("me", None, 9)) if (task := work.tasks.get(task_id))]
    failed = work.tasks.get(tasks[2])
    work.close()
    assert ran == [tasks[1], tasks[2], tasks[0], tasks[3], "closed"]
    assert states == ["done", "done", "failed", "done"]
    assert failed is not None
    assert failed.problem == "an internal error; the server's log has it", "what went wrong is no stranger's business"


def test_a_task_that_is_cancelled_while_it_runs_ends_with_its_worker(tmp_path: Path) -> None:
    """One that waits leaves the worker alone."""
    running, killed = threading.Event(), threading.Event()

    class Busy:
        def call(self, method: str, task_id: str, *, seconds: float | None = None) -> None:
            running.set()
            assert killed.wait(30)
            raise WorkerDiedError("its process ended before it was done")

        def kill(self) -> None:
            killed.set()

        close = kill

    async def run() -> None:
        runner = JobRunner(work, Busy(), Limits())  # type: ignore[arg-type]
        runner.start()
        assert await asyncio.to_thread(running.wait, 30)
        for task_id in (waits, runs):
            assert not killed.is_set()
            assert work.delete_task(task_id, "me")
            await runner.cancel(task_id)
        assert killed.is_set()
        await runner.stop()

    work = Work(tmp_path, Limits())
    runs, waits = [work.tasks.add("me", None, start=1.0, stages="[]").id for _ in range(2)]
    asyncio.run(run())
    assert work.tasks.unfinished() == []
    work.close()


def allow_files_of(pid: int, size: int) -> None:
    """Let a process write only files of so many bytes, as if the disk were full; -1 lets it write all."""
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_a_full_disk_and_an_interrupt_end_neither_the_runner_nor_its_tasks(tmp_path: Path) -> None:
    """The second task waits while nothing can be written; Ctrl-C in a terminal reaches the worker, too."""
    with own_server(tmp_path, "--answer-at-once", "2") as server:
        api = Api(server.url)
        large = sampling(frames=frames(*[0.9] * 6, 0.6))
        tasks = [api("POST", SAMPLING, large).json()["task_id"] for _ in range(2)]
        wait_until(lambda: len(children_of(server.process.pid)) == 2)
        small, worker = children_of(server.process.pid)
        for pid in (small, worker, server.process.pid):
            allow_files_of(pid, 1)
        wait_until(lambda: "tasks wait" in server.log)
        refused = api("POST", SAMPLING, sampling())
        assert (refused.status_code, "detail" in refused.json()) in [(503, True), (507, True)]
        os.kill(worker, signal.SIGINT)
        allow_files_of(worker, -1)
        assert api.result(tasks[0])["result"] == ["f6", "f0"], "the worker writes down what it had chosen"
        seen = server.log.count("tasks wait")
        wait_until(lambda: server.log.count("tasks wait") > seen)
        allow_files_of(server.process.pid, -1)
        assert api.result(tasks[1])["result"] == ["f6", "f0"]
        assert children_of(server.process.pid) == [small, worker]
        allow_files_of(server.process.pid, 1)
        api.session.close()
        server.stop()
        assert server.process.returncode in (0, -signal.SIGTERM), "it was told once, and ended"
        assert "Application shutdown complete" in server.log


def test_a_task_that_takes_too_long_fails_at_once(tmp_path: Path) -> None:
    """A worker takes longer than this only to begin."""
    with serving_here(tmp_path, Limits(answer_at_once=2, task_seconds=0.05)) as url:
        api = Api(url)
        task = api("POST", SAMPLING, sampling()).json()["task_id"]
        assert api.result(task)["detail"] == f"task {task} failed: it took longer than 0 s"
        large = api("POST", SAMPLING, data=b" " * (2 << 20))
        assert (large.status_code, large.headers["Retry-After"]) == (503, "5")
        assert large.json()["detail"] == "the request was given up: it took longer than 0 s"
        api.session.close()
