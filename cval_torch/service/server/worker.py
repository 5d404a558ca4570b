"""A process for work that would keep the server from answering: it may be killed, and its owner may be."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.work import Work


class WorkerDiedError(Exception):
    """The process ended before it answered: it was killed, or ran out of memory or time."""


class Worker:
    """Calls methods of `Work` in a process that is started when first needed, one call at a time.

    Args:
        data: the server's directory.
        limits: what it takes.
    """

    def __init__(self, data: Path, limits: Limits) -> None:
        self._data, self._limits = data, limits
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Run `Work.<method>(*arguments)` there, and wait for it.

        Args:
            method: a name.
            arguments: what can be pickled.
            seconds: after which the process is killed.

        Raises:
            RefusedError: as the method raised it.
            WorkerDiedError: the process ended.
        """
        with self._lock:
            connection = self._connection or self._start()
            try:
                connection.send((method, arguments))
                if seconds is not None and not connection.poll(seconds):
                    self._stop()
                    raise WorkerDiedError(f"it took longer than {seconds:.0f} s")
                answer, error = connection.recv()
            except (EOFError, OSError) as ended:
                self._stop()
                raise WorkerDiedError("its process ended before it was done") from ended
        if error is not None:
            raise error
        return answer

    def kill(self) -> None:
        """End the process now, also in the middle of a call."""
        process = self._process
        if process is not None:
            process.kill()
            process.join()

    def _start(self) -> Connection:
        # a fresh interpreter: a fork of a process with threads and torch in it may hang
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._data, self._limits), daemon=True, name="cval-torch-worker"
        )
        self._process.start()
        theirs.close()
        self._connection = ours
        return ours

    def _stop(self) -> None:
        self.kill()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def _serve(connection: Connection, data: Path, limits: Limits) -> None:
    """What the process does until the other end of the connection is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work = Work(data, limits)
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send((getattr(work, method)(*arguments), None))
        except RefusedError as error:
            connection.send((None, error))
        except Exception as error:
            connection.send((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    """A server that is killed outright cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
