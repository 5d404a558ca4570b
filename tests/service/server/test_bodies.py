"""Bodies that are long, compressed, slow or broken off."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from pathlib import Path

import pytest
import requests
from own_server import KEY, serving_here
from server_calls import SAMPLING, Api, sampling

from cval_torch.service.server.settings import Limits


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_compressed_bodies_are_refused(api: Api, encoding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    answer = api("POST", SAMPLING, data=bomb, headers={"Content-Encoding": encoding})
    assert answer.status_code == 415


def test_long_bodies_are_refused_however_they_come(api: Api) -> None:
    assert api("POST", SAMPLING, data=b" " * 200_001).status_code == 413
    pieces = (b" " * 50_000 for _ in range(100))
    with contextlib.suppress(requests.ConnectionError):  # it may hang up while more is being sent
        assert api("POST", SAMPLING, data=pieces).status_code == 413
    exactly = json.dumps(sampling()).encode().ljust(200_000)
    assert api("POST", SAMPLING, data=exactly).status_code == 200
    assert api("POST", SAMPLING, data=iter([exactly])).status_code == 200


def talk(url: str, *parts: bytes) -> bytes:
    """Raw bytes to the server, and what it says until it closes."""
    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        said = b""
        with contextlib.suppress(ConnectionError):  # it may hang up before it has read all
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                said += piece
    return said


def head(*lines: str) -> bytes:
    fixed = ["POST /api/dataset HTTP/1.1", "Host: x", "Connection: close", f"Authorization: user_api_key:{KEY}"]
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def test_broken_requests_leave_the_server_well(url: str) -> None:
    for said in (
        talk(url, head("Content-Length: 100"), b"{"),
        talk(url, head("Content-Length: -5")),
        talk(url, head("Content-Length: 99999999999999999999999")),
        talk(url, head("Transfer-Encoding: chunked"), b"zz\r\n"),
        talk(url, b"\x00\x01\x02\r\n\r\n"),
        talk(url, b"GET /" + b"x" * 200_000),
    ):
        assert b" 500 " not in said
    assert requests.get(url.removesuffix("/api") + "/healthz", timeout=30).json()["status"] == "ok"


def test_a_body_that_drips_is_given_up(tmp_path: Path) -> None:
    with serving_here(tmp_path, Limits(body_seconds=0.3)) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head("Content-Length: 1000") + b"{")
            assert b" 408 " in connection.recv(1000)
