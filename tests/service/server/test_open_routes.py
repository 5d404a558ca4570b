"""What needs no key."""

from __future__ import annotations

import re

import requests

from cval_torch.service.server.open_routes import open_router


def test_the_page_of_the_paths_loads_nothing_from_anywhere(url: str) -> None:
    root = url.removesuffix("/api")
    answer = requests.get(f"{root}/docs", timeout=30)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert re.findall(r"(?:https?:)?//[^<'\"]+", answer.text.replace("//embedding", "")) == []
    assert "<script" not in answer.text
    for path in requests.get(f"{root}/openapi.json", timeout=30).json()["paths"]:
        assert path in answer.text
    assert requests.get(f"{root}/redoc", timeout=30).status_code == 404


def test_what_is_open_is_listed() -> None:
    assert {route.path for route in open_router.routes} == {"/livez", "/readyz", "/healthz", "/docs"}  # type: ignore[attr-defined]
