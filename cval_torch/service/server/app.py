"""The HTTP application."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from cval_torch.service.server.keys import KeyFile, KeyRing
from cval_torch.service.server.open_routes import open_router
from cval_torch.service.server.payloads import body_schemas
from cval_torch.service.server.requests_log import LoggedRequests
from cval_torch.service.server.routes import router
from cval_torch.service.server.service import Keys, Service
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.worker import WorkerDiedError

PREFIX = "/api"
SECONDS_UNTIL_RETRY = 5
AUTHENTICATE = 'user_api_key realm="cval_torch"'

logger = logging.getLogger(__name__)


def create_app(data: Path, keys: Keys, *, limits: Limits | None = None, processes: bool = False) -> FastAPI:
    """The server as an ASGI application: `LocalBackend` behind the protocol of cval.ai, under `/api`.

    Args:
        data: its directory; nothing is touched before the application starts.
        keys: (owner, key) pairs, see `KeyRing`; or the file of them, which is read again when it changes.
        limits: what it takes; None means the defaults.
        processes: whether small requests are worked on in a process of their own, too; see `Service`.

    Raises:
        InvalidInputError: no key, a key twice, or one that no header can carry.
    """
    salt = b"only to check them"
    KeyFile(keys, salt=salt) if isinstance(keys, Path) else KeyRing(keys, salt=salt)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(data, keys, limits or Limits(), processes=processes)
        app.state.service = service
        service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="cval_torch", lifespan=lifespan, summary="Active learning over HTTP", docs_url=None, redoc_url=None
    )
    app.add_middleware(LoggedRequests)
    app.include_router(open_router)
    app.include_router(router, prefix=PREFIX)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(WorkerDiedError, _overloaded)
    app.add_exception_handler(sqlite3.OperationalError, _not_written)
    app.add_exception_handler(OSError, _not_written)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _refused(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RefusedError):
        raise error
    headers = {429: {"Retry-After": str(error.retry_after)}, 401: {"WWW-Authenticate": AUTHENTICATE}}.get(error.status)
    return JSONResponse({"detail": error.detail}, error.status, headers=headers)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """A path or a query that does not fit. Its values are not repeated: they may be large, or no JSON."""
    if not isinstance(error, RequestValidationError):
        raise error
    found = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()[:5]]
    return JSONResponse({"detail": "; ".join(found)}, 422)


def _overloaded(request: Request, error: Exception) -> JSONResponse:
    detail = f"the request was given up: {error}"
    return JSONResponse({"detail": detail}, 503, headers={"Retry-After": str(SECONDS_UNTIL_RETRY)})


def _not_written(request: Request, error: Exception) -> JSONResponse:
    """The disk is full, or another process keeps the file locked."""
    logger.error("%s %s could not be done: %s: %s", request.method, request.url.path, type(error).__name__, error)
    if "full" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return JSONResponse({"detail": "the server's disk is full"}, 507)
    detail = "the server's files cannot be used at the moment"
    return JSONResponse({"detail": detail}, 503, headers={"Retry-After": str(SECONDS_UNTIL_RETRY)})


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The schema, with the bodies that are read by hand."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schema["components"]["schemas"] = {**body_schemas(), **schema["components"]["schemas"]}
        app.openapi_schema = schema
    return app.openapi_schema
