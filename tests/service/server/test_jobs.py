"""Tasks that run beside the server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from own_server import serving_here
from server_calls import SAMPLING, Api, frames, sampling

from cval_torch.service.server.jobs import MOST_ATTEMPTS, JobRunner
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.work import Work
from cval_torch.service.server.worker import WorkerDiedError


def test_large_requests_become_tasks_and_large_bodies_go_through_files(tmp_path: Path) -> None:
    limits = Limits(answer_at_once=5, waiting_tasks=2)
    with serving_here(tmp_path, limits) as url:
        api = Api(url)
        small = api("POST", SAMPLING, sampling())
        assert small.json()["result"] == ["f1", "f0"]
        large = [api("POST", SAMPLING, sampling(frames=frames(*[0.9] * 6, 0.6))).json() for _ in range(2)]
        assert [task["result"] for task in large] == [None, None]
        assert [task["time_end"] for task in large] == [None, None]
        busy = api("POST", SAMPLING, sampling(frames=frames(*[0.9] * 7)))
        assert (busy.status_code, busy.headers["Retry-After"]) == (429, "5")
        # more than 1 MiB, without a declared length too: parsed by another process
        wide = json.dumps(sampling(frames=frames(0.5))).encode().ljust(2 << 20)
        assert api("POST", SAMPLING, data=wide).json()["result"] == ["f0"]
        assert api("POST", SAMPLING, data=iter([wide[: 1 << 20], wide[1 << 20 :]])).json()["result"] == ["f0"]
        assert api("POST", SAMPLING, data=b"[" * (2 << 20)).status_code == 422
        for task in large:
            assert api.result(task["task_id"])["result"] == ["f6", "f0"]
        failing = api(
            "POST", SAMPLING, sampling(frames=[{"frame_id": str(row)} for row in range(6)], use_null_detections=False)
        )
        assert api.result(failing.json()["task_id"])["detail"].endswith("frame '0' has no boxes")
        assert api("GET", f"/result/{failing.json()['task_id']}").status_code == 409
        assert api("GET", "/results").json()[0]["result"] is None
        api.session.close()
        assert list((tmp_path / "incoming").iterdir()) == []
    assert list((tmp_path / "tasks").iterdir()) == []


class DyingWorker:
    """A worker whose process is killed whatever it is asked."""

    calls = 0

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        self.calls += 1
        raise WorkerDiedError("its process ended before it was done")

    def kill(self) -> None:
        return


def test_a_task_that_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    async def run(work: Work, worker: Any) -> None:
        runner = JobRunner(work, worker, Limits())
        runner.start()
        while work.store.count_waiting(None):
            await asyncio.sleep(0.01)
        await runner.stop()

    work = Work(tmp_path, Limits())
    task = work.store.add_task("me", None, start=1.0, stages="[]")
    worker = DyingWorker()
    asyncio.run(run(work, worker))
    ended = work.store.task(task.id)
    work.close()
    assert worker.calls == MOST_ATTEMPTS
    assert ended is not None
    assert (ended.state, ended.problem) == ("failed", "given up after 3 attempts: its process ended before it was done")


def test_tasks_run_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """Also what a server before left running; an error of our own fails its task, and the next one is run."""
    ran: list[str] = []

    class Noting:
        def call(self, method: str, task_id: str, *, seconds: float | None = None) -> None:
            assert (method, seconds) == ("run_task", 7.0)
            ran.append(task_id)
            if len(ran) == 2:
                raise RuntimeError("a bug")
            work.store.finish_task(task_id, result=["f"])

        def kill(self) -> None:
            ran.append("killed")

    work = Work(tmp_path, Limits())
    tasks = [work.store.add_task("me", None, start=float(row), stages="[]").id for row in range(3)]
    assert work.store.claim_task() == tasks[0]

    async def run() -> None:
        runner = JobRunner(work, Noting(), Limits(task_seconds=7.0))  # type: ignore[arg-type]
        runner.start()
        while work.store.count_waiting(None):
            await asyncio.sleep(0.01)
        tasks.append(work.store.add_task("me", None, start=9.0, stages="[]").id)
        runner.wake()
        while work.store.count_waiting(None):
            await asyncio.sleep(0.01)
        await runner.stop()

    asyncio.run(run())
    states = [task.state for task in reversed(work.store.tasks("me", None, 9))]
    failed = work.store.task(tasks[1])
    work.close()
    assert ran == [*tasks, "killed"]
    assert states == ["done", "failed", "done", "done"]
    assert failed is not None
    assert failed.problem == "an internal error; the server's log has it", "what went wrong is no stranger's business"
