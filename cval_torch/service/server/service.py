"""Everything that a running server holds, and who may use it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from cval_torch.errors import InvalidInputError
from cval_torch.service.server.bodies import BodyReader
from cval_torch.service.server.health import Health
from cval_torch.service.server.jobs import JobRunner
from cval_torch.service.server.kept import Kept
from cval_torch.service.server.keys import KeyFile, KeyRing
from cval_torch.service.server.patterns import matching
from cval_torch.service.server.payloads import Body
from cval_torch.service.server.quotas import RequestQuota
from cval_torch.service.server.settings import INCOMING, Limits
from cval_torch.service.server.turns import Lane
from cval_torch.service.server.worker import Worker

logger = logging.getLogger(__name__)

AT_ONCE = 2
"""Small requests that are worked on at a time."""

CHANGES, CHANGES_EACH = 4, 2
"""Changes that are written at a time, of all owners and of one: to delete much takes minutes."""

SMALL_SECONDS = 120.0
"""For one of them, and for its process to start."""

Value = TypeVar("Value")
Keys = Sequence[tuple[str | None, str]] | Path


class Service:
    """A running server's parts.

    Args:
        data: its directory, which no other server may use at the same time; made if need be, for this user alone.
        keys: (owner, key) pairs, see `KeyRing`; or the file of them, which is read again when it changes.
        limits: what it takes.
        processes: whether small requests for a selection are worked on in a process of their own, too, so that this one
            needs no torch and its interpreter is free.

    Raises:
        InvalidInputError: no usable keys, another server has the directory, or a later version has written it.
        OSError: the directory cannot be written.
    """

    def __init__(self, data: Path, keys: Keys, limits: Limits, *, processes: bool = False) -> None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
        self._lock = _locked(data / "lock")
        try:
            self.limits = limits
            self.kept = Kept(data, limits) if processes else _work(data, limits)
            self.kept.sweep()
            salt = self.kept.store.salt()
            self.keys = KeyFile(keys, salt=salt) if isinstance(keys, Path) else KeyRing(keys, salt=salt)
            self.bodies = BodyReader(data / INCOMING, limits)
        except BaseException:
            self._lock.close()
            raise
        self.quota = RequestQuota(limits.requests_a_minute)
        self._intake = Worker(data, limits)
        self._small = Worker(data, limits) if processes else None
        self._at_once, self._large = Lane("at-once", 1 if processes else AT_ONCE), Lane("large", 1)
        self._changes, self._patterns = Lane("changes", CHANGES, each=CHANGES_EACH), Lane("patterns", 1)
        self._features: Any = None
        self.runner = JobRunner(self.kept, Worker(data, limits), limits)
        self.health = Health(data, self.kept.tasks, self.runner)

    def start(self) -> None:
        """Begin with tasks that wait."""
        self.runner.start()
        self.health.start()
        if self._small is not None:
            threading.Thread(target=self._small.start).start()  # it takes seconds, which nobody has to wait for

    async def run(self, owner: str, method: str, *arguments: Any, body: Body) -> Any:
        """Run a method of `Work` on a body: a small one in a thread, a large one in a process, owners by turns.

        Parsing holds the interpreter: a body of 100 MB would keep this one from answering for seconds.
        """
        if isinstance(body, bytes):
            return await self._at_once.run(owner, self._small_call, method, *arguments, body)
        call = partial(self._intake.call, method, *arguments, body, seconds=self.limits.task_seconds)
        return await self._large.run(owner, call)

    async def features(self, owner: str) -> Any:
        """See `Work.features`."""
        if self._features is None:
            self._features = await self._at_once.run(owner, self._small_call, "features")
        return self._features

    def _small_call(self, method: str, *arguments: Any) -> Any:
        if self._small is not None and not hasattr(self.kept, method):
            return self._small.call(method, *arguments, seconds=SMALL_SECONDS)
        return getattr(self.kept, method)(*arguments)

    async def change(self, owner: str, act: Callable[..., Value], *arguments: Any) -> Value:
        """Do what may wait for others who write, in threads that nobody needs who reads."""
        return await self._changes.run(owner, act, *arguments)

    async def matching(self, owner: str, pattern: str, texts: Sequence[str | None]) -> list[bool]:
        """As of `patterns`."""
        return await self._patterns.run(owner, matching, pattern, texts)

    async def close(self) -> None:
        """End the processes and close the file. What fails keeps nothing else from being closed."""
        for closing in (
            self.health.stop(),
            self.runner.stop(),
            asyncio.to_thread(self._intake.close),
            asyncio.to_thread(self._small.close if self._small is not None else lambda: None),
            asyncio.to_thread(self.kept.close),
        ):
            await _surely(closing)
        for lane in (self._at_once, self._large, self._changes, self._patterns):
            lane.close()
        self._lock.close()


def _work(data: Path, limits: Limits) -> Kept:
    from cval_torch.service.server.work import Work  # noqa: PLC0415 - it needs torch

    return Work(data, limits)


async def _surely(closing: Awaitable[None]) -> None:
    try:
        await closing
    except Exception:
        logger.exception("could not close a part of the server")


def _locked(path: Path) -> IO[bytes]:
    """A file that is held until it is closed, or until the process ends, however it does."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "ab")
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:  # pragma: no cover
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise InvalidInputError(f"{path.parent} is in use by another server") from error
    return file
