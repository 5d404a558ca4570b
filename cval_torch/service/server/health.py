"""Whether a server can work: looked at now and then, so that who asks waits for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cval_torch.service.server.jobs import JobRunner
from cval_torch.service.server.settings import INCOMING
from cval_torch.service.server.tasks import Tasks

logger = logging.getLogger(__name__)

SECONDS = 1.0
"""Between two looks."""
STALE_SECONDS = 15.0
"""After which a look says nothing any more: what it looks at does not answer."""


@dataclass(frozen=True)
class Condition:
    """What a look found.

    Attributes:
        unfinished_tasks: how many wait or run.
        oldest_task_seconds: how long the oldest of them has been there.
        problems: what keeps the server from working; empty for nothing.
    """

    unfinished_tasks: int = 0
    oldest_task_seconds: float = 0.0
    problems: tuple[str, ...] = ()


class Health:
    """Looks at the disk, the file and the runner of tasks every second.

    Args:
        data: the server's directory.
        tasks: of the server.
        runner: of the tasks.
    """

    def __init__(self, data: Path, tasks: Tasks, runner: JobRunner) -> None:
        self._data, self._tasks, self._runner = data, tasks, runner
        self._threads = ThreadPoolExecutor(1, "cval-torch-health")
        self._loop: asyncio.Task[None] | None = None
        self._found = Condition()
        self._looked = time.monotonic()

    def start(self) -> None:
        """Begin to look."""
        self._loop = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Look no more."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def now(self) -> Condition:
        """What the last look found, and what is wrong now."""
        found = self._found
        problems = list(found.problems)
        if not self._runner.is_alive:
            problems.append("the runner of tasks has ended")
        if self._runner.trouble is not None:
            problems.append(f"tasks wait: {self._runner.trouble}")
        if time.monotonic() - self._looked > STALE_SECONDS:
            problems.append(f"the disk has not answered for {STALE_SECONDS:.0f} s")
        return Condition(found.unfinished_tasks, found.oldest_task_seconds, tuple(problems))

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # `_look` has said what it was
                await asyncio.get_running_loop().run_in_executor(self._threads, self._look)
            await asyncio.sleep(SECONDS)

    def _look(self) -> None:
        problems = []
        unfinished = list[tuple[str, float]]()
        try:
            unfinished = self._tasks.unfinished()
        except Exception as error:
            problems.append(f"the file cannot be read: {type(error).__name__}: {error}")
        try:
            self._write()
        except OSError as error:
            problems.append(f"the disk cannot be written: {error.strerror}")
        age = max(0.0, time.time() - unfinished[0][1]) if unfinished else 0.0
        self._found = Condition(len(unfinished), age, tuple(problems))
        self._looked = time.monotonic()

    def _write(self) -> None:
        path = self._data / INCOMING / ".written"
        try:
            with contextlib.closing(os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb")) as file:
                file.write(b"\0" * 4096)
        finally:
            path.unlink(missing_ok=True)
