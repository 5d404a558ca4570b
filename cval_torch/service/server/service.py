"""Everything that a running server holds, and who may use it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from cval_torch.errors import InvalidInputError
from cval_torch.service.server.bodies import BodyReader
from cval_torch.service.server.jobs import JobRunner
from cval_torch.service.server.keys import KeyRing
from cval_torch.service.server.payloads import Body
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.work import Work
from cval_torch.service.server.worker import Worker

logger = logging.getLogger(__name__)


class Service:
    """A running server's parts.

    Args:
        data: its directory, which no other server may use at the same time; made if need be.
        keys: (owner, key) pairs; see `KeyRing`.
        limits: what it takes.

    Raises:
        InvalidInputError: no usable keys, or another server has the directory.
        OSError: the directory cannot be written.
    """

    def __init__(self, data: Path, keys: Sequence[tuple[str | None, str]], limits: Limits) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(data / "lock")
        self.limits = limits
        self.work = Work(data, limits)
        self.keys = KeyRing(keys, salt=self.work.store.salt())
        self.bodies = BodyReader(data / "incoming", limits)
        self._intake = Worker(data, limits)
        self.runner = JobRunner(self.work, Worker(data, limits), limits)

    async def run(self, method: str, *arguments: Any, body: Body) -> Any:
        """Run a method of `Work` on a body: a small one in a thread, a large one in a process.

        Parsing holds the interpreter: a body of 100 MB would keep this one from answering for seconds.
        """
        call = getattr(self.work, method) if isinstance(body, bytes) else partial(self._intake.call, method)
        return await asyncio.to_thread(partial(call, *arguments, body))

    async def close(self) -> None:
        """End the processes and close the store. What fails keeps nothing else from being closed."""
        await self._surely(self.runner.stop())
        await self._surely(asyncio.to_thread(self._intake.close))
        await self._surely(asyncio.to_thread(self.work.close))
        self._lock.close()

    @staticmethod
    async def _surely(closing: Awaitable[None]) -> None:
        try:
            await closing
        except Exception:
            logger.exception("could not close a part of the server")


def _locked(path: Path) -> IO[bytes]:
    """A file that is held until it is closed, or until the process ends, however it does."""
    file = path.open("ab")
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
