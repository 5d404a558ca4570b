"""Reading a request's body within bounds: large ones into a file, so that memory stays small."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from cval_torch.service.server.database import new_id
from cval_torch.service.server.payloads import Body
from cval_torch.service.server.settings import Limits, RefusedError

LARGE = 1 << 20
SMALL_BODIES = 16
"""Of one key, that are in memory at a time: those that are received, and those that wait for their turn."""
GRACE_SECONDS = 30.0
"""For the beginning of a body, however slow."""
SLOWEST = 8192
"""Bytes a second, on average, after that."""

Value = TypeVar("Value")


class BodyReader:
    """Reads bodies.

    Args:
        directory: for the files of large ones; what an earlier server left there is removed.
        limits: how long and how large a body may be.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        for left in directory.iterdir():
            left.unlink(missing_ok=True)
        self._directory, self._limits = directory, limits
        self._large: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(limits.large_bodies))
        self._small: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(SMALL_BODIES))

    @asynccontextmanager
    async def read(self, request: Request, owner: str) -> AsyncIterator[Body]:
        """The body; its file, if it has one, is gone afterwards.

        Raises:
            RefusedError: 413 too long, 415 compressed, 408 too slow, 400 broken off or of two lengths.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise RefusedError(415, f"a body must not be compressed; this one is {encoding[:40]!r}")
        length = request.headers.get("content-length", "")
        if length and "transfer-encoding" in request.headers:
            raise RefusedError(400, "a body has either `Content-Length` or `Transfer-Encoding`; this one has both")
        declared = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None
        if declared is not None and declared > self._limits.body_bytes:
            raise self._too_long()
        path = self._directory / new_id()
        held = self._small if declared is not None and declared <= LARGE else self._large
        try:
            async with held[owner]:
                yield await self._receive(request, path)
        finally:
            path.unlink(missing_ok=True)

    async def _receive(self, request: Request, path: Path) -> Body:
        """Into memory up to `LARGE` bytes, and from there into that file."""
        held = bytearray()
        size = 0
        began = time.monotonic()
        file = None
        pieces = aiter(request.stream())
        try:
            while (piece := await self._in_time(anext(pieces, None), began, size)) is not None:
                size += len(piece)
                if size > self._limits.body_bytes:
                    raise self._too_long()
                held += piece
                if len(held) > LARGE:
                    file = file or os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
                    file.write(held)
                    held.clear()
            if file is None:
                return bytes(held)
            file.write(held)
        except ClientDisconnect as error:
            raise RefusedError(400, "the body broke off") from error
        finally:
            if file is not None:
                file.close()
        return path

    async def _in_time(self, piece: Awaitable[Value], began: float, size: int) -> Value:
        """The next piece, if it comes before the body is late."""
        most = self._limits.body_seconds
        end = began + min(most, GRACE_SECONDS + size / SLOWEST)
        try:
            return await asyncio.wait_for(piece, max(0.0, end - time.monotonic()))
        except asyncio.TimeoutError as error:
            said = f"the body did not arrive within {most:.0f} s, or at less than {SLOWEST} bytes a second"
            raise RefusedError(408, said) from error

    def _too_long(self) -> RefusedError:
        return RefusedError(413, f"a body has at most {self._limits.body_bytes} bytes")
