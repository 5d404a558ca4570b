"""A process for work that would keep the server from answering: it may be killed, and its owner may be."""

from __future__ import annotations

import contextlib
import json
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from cval_torch.service.server.settings import Limits, RefusedError

_LENGTH_BYTES = 8
GROWTH = 128 << 20
"""Bytes that a process may have beyond those it began with, when it has answered."""

# What the process does before it imports anything large: it ends when its standard input does, which is when the
# server ends, however that does. Ctrl-C is for the server alone, which then ends this process.
_PROGRAM = f"""
import json, os, queue, signal, sys, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
calls = queue.SimpleQueue()
source, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what is printed is no answer
def read():
    while head := source.read({_LENGTH_BYTES}):
        calls.put(source.read(int.from_bytes(head, "big")))
    os._exit(1)
threading.Thread(target=read, daemon=True).start()
sys.path[:] = json.loads(calls.get())
from cval_torch.service.server.worker import serve
serve(calls.get, answers)
"""


class WorkerDiedError(Exception):
    """The process ended before it answered: it was killed, or ran out of memory."""


class TookTooLongError(WorkerDiedError):
    """The process was ended because its time was over."""


class Worker:
    """Calls methods of `Work` in a process that is started when first needed, one call at a time.

    A process that has grown by more than 128 MiB ends after its answer, and the next call starts another one.

    Args:
        data: the server's directory.
        limits: what it takes.
        growth: bytes; see `GROWTH`.
    """

    def __init__(self, data: Path, limits: Limits, *, growth: int = GROWTH) -> None:
        self._data, self._limits, self._growth = data, limits, growth
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Run `Work.<method>(*arguments)` there, and wait for it.

        Args:
            method: a name.
            arguments: what can be pickled.
            seconds: after which the process is killed.

        Raises:
            RefusedError, sqlite3.OperationalError, OSError: as the method raised it.
            TookTooLongError: the time was over.
            WorkerDiedError: the process ended.
        """
        with self._lock:
            late = threading.Event()
            process = self._process or self._start()
            timer = threading.Timer(seconds or 0.0, _end_late, (process, late))
            timer.daemon = True
            if seconds is not None:
                timer.start()
            try:
                _send(process.stdin, pickle.dumps((method, arguments)))
                answer, error, is_last = pickle.loads(_received(process.stdout))  # noqa: S301 - our own process
            except (EOFError, OSError) as ended:
                self._stop()
                if late.is_set():
                    raise TookTooLongError(f"it took longer than {seconds:.0f} s") from ended
                raise WorkerDiedError("its process ended before it was done") from ended
            finally:
                timer.cancel()
            if is_last or late.is_set():
                self._stop()
        if error is not None:
            raise error
        return answer

    def start(self) -> None:
        """Start the process, if there is none: the next call need not wait for that."""
        with self._lock:
            if self._process is None:
                self._start()

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def kill(self) -> None:
        """End the process now, also in the middle of a call."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End the process, and start none any more."""
        self._closed = True
        self.kill()  # so that a call ends
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        # a fresh interpreter: a fork of a process with threads and torch in it may hang
        process = subprocess.Popen(  # noqa: S603 - the program is the constant above
            [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._process = process
        if self._closed:  # it may have been before there was a process to end
            process.kill()
        with contextlib.suppress(OSError):  # it has ended already, as the call will find
            _send(process.stdin, json.dumps(sys.path).encode())
            _send(process.stdin, pickle.dumps((self._data, self._limits, self._growth)))
        return process

    def _stop(self) -> None:
        self.kill()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                _close(pipe)
        self._process = None


def serve(next_call: Callable[[], bytes], answers: IO[bytes]) -> None:
    """What the process does until it is ended, or has grown."""
    from cval_torch.service.server.work import Work  # noqa: PLC0415 - it needs torch, and a server does not

    data, limits, growth = pickle.loads(next_call())  # noqa: S301 - the server's own words, here and below
    work = Work(data, limits)
    most = _resident_bytes() + growth
    is_last = False
    while not is_last:
        method, arguments = pickle.loads(next_call())  # noqa: S301
        answer: Any = None
        error: Exception | None = None
        try:
            answer = getattr(work, method)(*arguments)
        except (RefusedError, sqlite3.OperationalError, OSError) as known:
            error = known
        except Exception as unknown:
            error = RuntimeError(f"{type(unknown).__name__}: {unknown}")
        is_last = _resident_bytes() > most
        _send(answers, pickle.dumps((answer, error, is_last)))


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    import resource  # noqa: PLC0415 - not on Windows

    return pages * resource.getpagesize()


def _end_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _send(pipe: IO[bytes] | None, content: bytes) -> None:
    if pipe is not None:
        pipe.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
        pipe.flush()


def _received(pipe: IO[bytes] | None) -> bytes:
    head = pipe.read(_LENGTH_BYTES) if pipe is not None else b""
    size = int.from_bytes(head, "big")
    content = pipe.read(size) if pipe is not None and head else b""
    if len(head) < _LENGTH_BYTES or len(content) < size:
        raise EOFError
    return content


def _close(pipe: IO[bytes] | None) -> None:
    """Close what leads to a process that has ended: what was not sent cannot be sent any more."""
    with contextlib.suppress(OSError):
        if pipe is not None:
            pipe.close()
