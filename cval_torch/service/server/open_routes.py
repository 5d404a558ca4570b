"""Paths that need no key: whether the server works, and what its paths are."""

from __future__ import annotations

import html
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel

from cval_torch.service.server.callers import service_of

open_router = APIRouter()


class Health(BaseModel):
    """Whether the server works, and how many tasks it has not finished."""

    status: str
    unfinished_tasks: int


class Alive(BaseModel):
    """That the server answers."""

    status: str


class Ready(Health):
    """Whether the server can work, and what keeps it from it."""

    oldest_task_seconds: float
    problems: list[str]


@open_router.get("/livez", response_model=Alive)
async def livez() -> dict[str, str]:
    """That the server answers. If it does not, restart it."""
    return {"status": "ok"}


@open_router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
async def readyz(request: Request) -> JSONResponse:
    """Whether the server can work: its runner of tasks lives, its disk can be written. 503 if not."""
    found = service_of(request).health.now()
    content = {
        "status": "failing" if found.problems else "ok",
        "unfinished_tasks": found.unfinished_tasks,
        "oldest_task_seconds": round(found.oldest_task_seconds, 1),
        "problems": list(found.problems),
    }
    return JSONResponse(content, 503 if found.problems else 200)


@open_router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> dict[str, Any]:
    """The same in short, always answered 200."""
    found = service_of(request).health.now()
    return {"status": "failing" if found.problems else "ok", "unfinished_tasks": found.unfinished_tasks}


@open_router.get("/docs", include_in_schema=False)
def docs(request: Request) -> Response:
    """What the paths are, as a page that loads nothing from anywhere."""
    rows = [
        f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('description', ''))}</td></tr>"
        for path, methods in request.app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>cval_torch</title>"
        "<style>body{font-family:sans-serif;margin:2em}td{padding:.3em 1em .3em 0;vertical-align:top}</style>"
        "<h1>cval_torch</h1><p>Bodies and answers are described in <a href='openapi.json'>openapi.json</a>. "
        "Paths under <code>/api</code> need the header <code>Authorization: user_api_key:&lt;KEY&gt;</code>.</p>"
        f"<table>{''.join(rows)}</table></html>"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})
