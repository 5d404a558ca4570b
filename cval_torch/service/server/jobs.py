"""Tasks that are too large to be answered at once: run one after another, beside the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cval_torch.service.client.deadline import Backoff
from cval_torch.service.server.kept import Kept
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.tasks import MOST_ATTEMPTS
from cval_torch.service.server.worker import TookTooLongError, Worker, WorkerDiedError

logger = logging.getLogger(__name__)

LONGEST_WAIT = 10.0
"""Seconds, at most, before what failed is tried again."""

Value = TypeVar("Value")


class JobRunner:
    """Takes waiting tasks, by turns between owners and then in the order in which they came, for a worker to run.

    What cannot be read or written, because the disk is full or another process holds the file, is tried again until it
    can. No failure ends the runner.

    Args:
        kept: what the server keeps.
        worker: for the tasks alone.
        limits: how long a task may take.

    Attributes:
        trouble: why it cannot go on at the moment; None while it can.
    """

    def __init__(self, kept: Kept, worker: Worker, limits: Limits) -> None:
        self._kept, self._worker, self._limits = kept, worker, limits
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(1, "cval-torch-jobs")  # its own: requests cannot keep it waiting
        self._running: str | None = None
        self._served: dict[str, int] = {}
        self.trouble: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it will take the next task."""
        return self._loop is not None and not self._loop.done()

    def start(self) -> None:
        """Begin, with what waits already."""
        self._wake.set()
        self._loop = asyncio.get_running_loop().create_task(self._supervised())

    def wake(self) -> None:
        """There is a new task."""
        self._wake.set()

    async def stop(self) -> None:
        """End. A task that runs is run again by the next server."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.to_thread(self._worker.close)
            await asyncio.gather(self._loop, return_exceptions=True)
            if self._running is not None:
                with contextlib.suppress(sqlite3.Error):  # the next server lets it wait again, too
                    await asyncio.to_thread(self._kept.tasks.release, self._running)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def cancel(self, task_id: str) -> None:
        """The task was deleted: if it runs, its worker ends."""
        if task_id == self._running:
            await asyncio.to_thread(self._worker.kill)

    async def _supervised(self) -> None:
        backoff = Backoff(0.1, LONGEST_WAIT)
        while True:
            try:
                await self._wake.wait()
                self._wake.clear()
                await self._run_waiting()
                backoff = Backoff(0.1, LONGEST_WAIT)
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
                logger.exception("the runner of tasks failed, and goes on")
                await asyncio.sleep(backoff.next())
                self._wake.set()

    async def _run_waiting(self) -> None:
        while True:
            self._running = self._running or await self._surely(self._claimed)
            self.trouble = None
            if self._running is None:
                return
            await self._run_one(self._running)
            self._running = None

    async def _run_one(self, task_id: str) -> None:
        try:
            await self._surely(self._run_in_worker, task_id)
        except TookTooLongError as error:
            await self._surely(self._kept.fail_task, task_id, str(error))
        except WorkerDiedError as error:
            await self._surely(self._again_or_given_up, task_id, str(error))
        except Exception:
            logger.exception("task %s failed", task_id)
            await self._surely(self._kept.fail_task, task_id, "an internal error; the server's log has it")

    def _claimed(self) -> str | None:
        task = self._kept.tasks.claim(self._served)
        if task is None:
            return None
        self._served[task.owner] = 1 + max(self._served.values(), default=0)
        return task.id

    def _run_in_worker(self, task_id: str) -> None:
        self._worker.call("run_task", task_id, seconds=self._limits.task_seconds)

    def _again_or_given_up(self, task_id: str, problem: str) -> None:
        attempts = self._kept.tasks.count_attempt(task_id)
        if attempts >= MOST_ATTEMPTS:
            self._kept.fail_task(task_id, f"given up after {attempts} attempts: {problem}")

    async def _surely(self, act: Callable[..., Value], *arguments: Any) -> Value:
        """Do what reads or writes files, however often it takes."""
        backoff = Backoff(0.1, LONGEST_WAIT)
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, act, *arguments)
            except (sqlite3.OperationalError, OSError) as error:
                self.trouble = f"{type(error).__name__}: {error}"
                wait = backoff.next()
                logger.warning("tasks wait: %s; trying again in %.1f s", self.trouble, wait)
                await asyncio.sleep(wait)
