"""What the server says about each request, and HEAD, which is GET without the body."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("cval_torch.requests")


class LoggedRequests:
    """Writes one line a request: its id, owner, method, path, status, bytes and seconds; never a key, nor a query.

    The answer has the id as its `X-Request-Id`.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        line = _Line(scope)
        method = scope["method"]
        asked = {**scope, "method": "GET"} if method == "HEAD" else scope
        asked.setdefault("state", {})

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                line.status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", line.name.encode())]}
            elif method == "HEAD":
                message = {**message, "body": b""}
            line.size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(asked, receive, answer)
        finally:
            logger.info("%s", line.text(asked["state"].get("owner")))


class _Line:
    def __init__(self, scope: Scope) -> None:
        self.name = secrets.token_hex(8)
        self.status, self.size = 0, 0
        self._scope, self._began = scope, time.perf_counter()

    def text(self, owner: Any) -> str:
        path = self._scope.get("raw_path", b"").decode("ascii", "replace")[:200]
        seconds = time.perf_counter() - self._began
        asked = f"request={self.name} owner={owner or '-'} {self._scope['method'][:10]} {path}"
        return f"{asked} status={self.status} bytes={self.size} seconds={seconds:.3f}"
