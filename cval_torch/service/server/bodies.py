"""Reading a request's body within bounds: large ones into a file, so that memory stays small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from cval_torch.service.server.payloads import Body
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.store import new_id

LARGE = 1 << 20


class BodyReader:
    """Reads bodies.

    Args:
        directory: for the files of large ones; what an earlier server left there is removed.
        limits: how long and how large a body may be.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        directory.mkdir(exist_ok=True)
        for left in directory.iterdir():
            left.unlink(missing_ok=True)
        self._directory, self._limits = directory, limits
        self._large = asyncio.Semaphore(limits.large_bodies)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[Body]:
        """The body; its file, if it has one, is gone afterwards.

        Raises:
            RefusedError: 413 too long, 415 compressed, 408 too slow, 400 broken off.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise RefusedError(415, f"a body must not be compressed; this one is {encoding[:40]!r}")
        length = request.headers.get("content-length", "")
        declared = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None
        if declared is not None and declared > self._limits.body_bytes:
            raise self._too_long()
        path = self._directory / new_id()
        try:
            if declared is not None and declared <= LARGE:
                yield await self._within_time(self._receive(request, None))
            else:
                async with self._large:
                    yield await self._within_time(self._receive(request, path))
        finally:
            path.unlink(missing_ok=True)

    async def _within_time(self, receiving: Coroutine[Any, Any, Body]) -> Body:
        try:
            return await asyncio.wait_for(receiving, self._limits.body_seconds)
        except asyncio.TimeoutError as error:
            raise RefusedError(408, f"the body did not arrive within {self._limits.body_seconds:.0f} s") from error
        except ClientDisconnect as error:
            raise RefusedError(400, "the body broke off") from error

    async def _receive(self, request: Request, path: Path | None) -> Body:
        """Into memory up to `LARGE` bytes, and from there, with a path, into that file."""
        held = bytearray()
        size = 0
        file = None
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._limits.body_bytes:
                    raise self._too_long()
                held += chunk
                if path is not None and len(held) > LARGE:
                    file = file or path.open("wb")
                    file.write(held)
                    held.clear()
            if file is None or path is None:
                return bytes(held)
            file.write(held)
        finally:
            if file is not None:
                file.close()
        return path

    def _too_long(self) -> RefusedError:
        return RefusedError(413, f"a body has at most {self._limits.body_bytes} bytes")
