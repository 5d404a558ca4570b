"""One line a request, and HEAD."""

from __future__ import annotations

import logging
import re

import pytest
import requests
from own_server import KEY
from server_calls import Api

from cval_torch.service.server.requests_log import LoggedRequests


def test_each_request_is_one_line_without_its_key(url: str, other: Api, caplog: pytest.LogCaptureFixture) -> None:
    assert LoggedRequests.__doc__
    caplog.set_level(logging.INFO, "cval_torch.requests")
    answers = [
        other("GET", "/results", params={"limit": 1, "secret": KEY}),
        requests.get(f"{url}/results", headers={"Authorization": f"user_api_key:{KEY}x"}, timeout=30),
        other("GET", "/result/no%0Asuch"),
    ]
    other("GET", "/strategies")  # the line is written after the answer
    lines = [record.getMessage() for record in caplog.records if record.name == "cval_torch.requests"][:3]
    expected = [("second", "/api/results", 200), ("-", "/api/results", 401), ("second", "/api/result/no%0Asuch", 404)]
    for line, answer, (owner, path, status) in zip(lines, answers, expected, strict=True):
        name = answer.headers["X-Request-Id"]
        size = len(answer.content)
        assert re.fullmatch(
            rf"request={name} owner={owner} GET {path} status={status} bytes={size} seconds=\d+\.\d+", line
        )
    assert KEY not in caplog.text


def test_head_is_get_without_the_body(url: str, api: Api) -> None:
    for session, path in ((api.session, f"{url}/strategies"), (requests, url.removesuffix("/api") + "/livez")):
        got = session.get(path, timeout=30)
        head = session.head(path, timeout=30)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == str(len(got.content))
    assert requests.head(f"{url}/strategies", timeout=30).status_code == 401
