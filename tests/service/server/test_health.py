"""Whether the server can work, and that those who ask wait for nothing."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import requests
from own_server import serving_here
from running_processes import wait_until
from server_calls import SAMPLING, Api, sampling

from cval_torch.service.server.health import Health
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.work import Work


def test_readiness_says_what_is_wrong_and_liveness_that_it_lives(tmp_path: Path) -> None:
    with serving_here(tmp_path, Limits(answer_at_once=2)) as url:
        root = url.removesuffix("/api")

        def ask(name: str) -> tuple[int, Any]:
            answer = requests.get(f"{root}/{name}", timeout=30)
            return answer.status_code, answer.json()

        status, found = ask("readyz")
        assert (status, found["status"], found["problems"], found["unfinished_tasks"]) == (200, "ok", [], 0)
        api = Api(url)
        api("POST", SAMPLING, sampling())
        wait_until(lambda: ask("readyz")[1]["unfinished_tasks"] == 1 and ask("readyz")[1]["oldest_task_seconds"] > 0)
        shutil.rmtree(tmp_path / "incoming")
        wait_until(lambda: ask("readyz")[0] == 503)
        assert ask("readyz")[1]["problems"] == ["the disk cannot be written: No such file or directory"]
        assert ask("healthz")[1] == {"status": "failing", "unfinished_tasks": 1}
        assert ask("livez") == (200, {"status": "ok"})
        (tmp_path / "incoming").mkdir()
        wait_until(lambda: ask("readyz")[0] == 200)
        api.session.close()


class Runner:
    is_alive = True
    trouble: str | None = None


def test_a_runner_that_ended_or_waits_is_a_problem(tmp_path: Path, monkeypatch: Any) -> None:
    runner: Any = Runner()
    work = Work(tmp_path, Limits())
    health = Health(tmp_path, work.tasks, runner)

    async def look() -> None:
        health.start()
        await asyncio.sleep(0.1)
        await health.stop()

    (tmp_path / "incoming").mkdir()
    asyncio.run(look())
    assert health.now().problems == ()
    runner.is_alive, runner.trouble = False, "OperationalError: database is locked"
    assert health.now().problems == (
        "the runner of tasks has ended",
        "tasks wait: OperationalError: database is locked",
    )
    runner.is_alive, runner.trouble = True, None
    monkeypatch.setattr("cval_torch.service.server.health.STALE_SECONDS", -1.0)
    assert health.now().problems == ("the disk has not answered for -1 s",)
    work.close()
