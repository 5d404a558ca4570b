"""Whether the server can work, and that those who ask wait for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from own_server import serving_here
from running_processes import wait_until
from server_calls import SAMPLING, Api, sampling, vector

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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_answered_507_and_ends_nothing(small_disk: Path) -> None:
    with serving_here(small_disk / "data") as url:
        api = Api(url)
        path = f"/dataset/{api.dataset()}/test/embeddings"
        stored = [vector(1.0)]
        assert api("POST", path, stored).status_code == 200
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass
        in_memory = [vector(*[0.5] * 10_000, frame_id=f"f{row}") for row in range(5)]
        for body in (json.dumps(in_memory).encode(), b" " * (2 << 20)):
            answer = api("POST", path, data=body)
            assert (answer.status_code, answer.json()) == (507, {"detail": "the server's disk is full"})
        ready = f"{url.removesuffix('/api')}/readyz"
        wait_until(lambda: requests.get(ready, timeout=30).status_code == 503)
        assert requests.get(ready, timeout=30).json()["problems"] == [
            "the disk cannot be written: No space left on device"
        ]
        assert list((small_disk / "data" / "incoming").iterdir()) == []
        assert api("GET", path).json() == stored
        filler.unlink()
        assert api("POST", path, in_memory).status_code == 200
        wait_until(lambda: requests.get(ready, timeout=30).status_code == 200)
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
