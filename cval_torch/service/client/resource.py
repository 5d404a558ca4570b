"""Datasets, detection sampling and results, as the service has them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter

from cval_torch.errors import (
    InvalidInputError,
)
from cval_torch.service.client.deadline import Deadline
from cval_torch.service.client.transport import Body, Transport

BODY_IN_MEMORY = 32 << 20


ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class Resource:
    """What all resources share: the transport, and how long a call may take."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        self._transport, self._timeout = transport, timeout

    def _deadline(self, seconds: float | None = None) -> Deadline:
        return Deadline(self._timeout if seconds is None else seconds, clock=self._transport.clock)


def spool(pieces: Iterable[bytes]) -> Body:
    """The pieces as one body: in memory if they are few, in a nameless file if they are many."""
    held, size = list[bytes](), 0
    rest = iter(pieces)
    for piece in rest:
        held.append(piece)
        size += len(piece)
        if size > BODY_IN_MEMORY:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - who sends it closes it
            try:
                file.writelines(held)
                del held
                file.writelines(rest)
            except BaseException:
                file.close()
                raise
            return file
    return b"".join(held)


def quoted(value: str, name: str) -> str:
    """One part of a path, whatever characters it has.

    Raises:
        InvalidInputError: empty, `.` or `..`, which no URL can carry as a part.
    """
    if value in ("", ".", ".."):
        raise InvalidInputError(f"{name} must not be empty, '.' or '..' to be part of a URL; got {value!r}")
    return quote(value, safe="")
