"""Connections that end, whatever is at their other end, and how the application is served on them."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""For the head of a request to arrive, from its connection or from the answer before."""
STALLED_SECONDS = 60.0
"""For who is being answered to read something."""
SHUTDOWN_SECONDS = 10
"""For requests to be answered when the server is told to end."""


class BoundedProtocol(H11Protocol):
    """HTTP that closes connections on which nothing comes, or comes too slowly, or is not read."""

    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As of `asyncio.Protocol`; the other methods, too."""
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        _cancel(self._head, self._stalled)
        super().connection_lost(exc)

    def handle_events(self) -> None:  # noqa: D102
        super().handle_events()
        self._watch_head()

    def on_response_complete(self) -> None:  # noqa: D102
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:  # noqa: D102
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:  # noqa: D102
        super().resume_writing()
        _cancel(self._stalled)
        self._stalled = None

    def _watch_head(self) -> None:
        """While a request is worked on, the application bounds its body; all other time is one head's."""
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._head)
            self._head = None
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()


def server_config(app: Any, **options: Any) -> uvicorn.Config:
    """How uvicorn serves the application.

    Args:
        app: of `create_app`.
        options: of `uvicorn.Config`, such as `host` and `port`.
    """
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,  # the application writes a line of its own
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        **options,
    )
