"""Tasks that are too large to be answered at once: run one after another, beside the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from cval_torch.service.server.settings import Limits
from cval_torch.service.server.work import Work
from cval_torch.service.server.worker import Worker, WorkerDiedError

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3


class JobRunner:
    """Takes waiting tasks in the order in which they came, and has a worker run them.

    Args:
        work: of the server's own process.
        worker: for the tasks alone.
        limits: how long a task may take.
    """

    def __init__(self, work: Work, worker: Worker, limits: Limits) -> None:
        self._work, self._worker, self._limits = work, worker, limits
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with what a server before this one left running or waiting."""
        self._work.store.requeue()
        self._wake.set()
        self._loop = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """There is a new task."""
        self._wake.set()

    async def stop(self) -> None:
        """End. A task that runs is run again by the next server."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.to_thread(self._worker.kill)
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (task_id := await asyncio.to_thread(self._work.store.claim_task)) is not None:
                await self._run_one(task_id)

    async def _run_one(self, task_id: str) -> None:
        try:
            await asyncio.to_thread(self._worker.call, "run_task", task_id, seconds=self._limits.task_seconds)
        except WorkerDiedError as error:
            task = self._work.store.task(task_id)
            if task is not None and task.state == "running":
                if task.attempts < MOST_ATTEMPTS:
                    self._work.store.release_task(task_id)
                else:
                    self._work.fail_task(task_id, f"given up after {task.attempts} attempts: {error}")
        except Exception:
            logger.exception("task %s failed", task_id)
            self._work.fail_task(task_id, "an internal error; the server's log has it")
