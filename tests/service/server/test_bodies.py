"""Bodies that are long, compressed, slow or broken off."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import pytest
import requests
from own_server import KEY, serving_here
from server_calls import OTHER, SAMPLING, Api, sampling
from starlette.requests import Request

from cval_torch.service.server.bodies import LARGE, BodyReader
from cval_torch.service.server.settings import Limits, RefusedError


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


def test_a_body_of_two_lengths_is_none(url: str) -> None:
    """Chunks would pass the bound of a body that says it is small."""
    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    for lines, status in ((["Content-Length: 2"], b" 400 "), ([], b" 200 ")):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head("Transfer-Encoding: chunked", *lines) + b"2\r\n{}\r\n0\r\n\r\n")
            assert status in connection.recv(1000)


def test_a_body_that_is_slow_from_the_beginning_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.service.server.bodies.GRACE_SECONDS", 0.3)
    with serving_here(tmp_path) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
        with socket.create_connection((host, int(port)), timeout=0.05) as connection:
            connection.sendall(head("Content-Length: 100000"))
            said = b""
            for _ in range(400):  # 20 s, and 600 s are allowed
                with contextlib.suppress(TimeoutError, ConnectionError):
                    connection.sendall(b" ")
                    said += connection.recv(1000)
                if b"second" in said:
                    break
            assert b" 408 " in said
            assert b"at less than 8192 bytes a second" in said


@pytest.mark.parametrize("large", [True, False])
def test_bodies_of_a_key_are_received_some_at_a_time_and_do_not_hold_up_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr("cval_torch.service.server.bodies.SMALL_BODIES", 3 if large else 1)
    begun, rest = (b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n") if large else (b"{", b"}")
    keys = [(None, KEY), ("second", OTHER)]
    with serving_here(tmp_path, Limits(large_bodies=1 if large else 3), keys=keys) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as first, ThreadPoolExecutor(1) as threads:
            first.sendall(head("Transfer-Encoding: chunked" if large else "Content-Length: 2") + begun)
            api, other = Api(url), Api(url, OTHER)

            def send(by: Api, *, large: bool) -> requests.Response:
                return by("POST", "/dataset", data=iter([b"{}"]) if large else b"{}")

            assert send(api, large=not large).status_code == 200, "those of the other size do not wait"
            assert send(other, large=large).status_code == 200
            second = threads.submit(send, api, large=large)
            with pytest.raises(FutureTimeoutError):
                second.result(0.5)
            first.sendall(rest)
            assert second.result(30).status_code == 200
            assert b" 200 " in first.recv(1000)
            api.session.close()
            other.session.close()


def test_what_a_killed_server_was_receiving_is_removed(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "tasks").mkdir()
    left = [tmp_path / "incoming" / "half", tmp_path / "tasks" / "x.pool.tmp", tmp_path / "tasks" / "nobodys.pool"]
    for path in left:
        path.write_bytes(b"half")
    with serving_here(tmp_path):
        assert [path for path in left if path.exists()] == []


def request_of(
    *pieces: bytes, headers: dict[str, str] | None = None, hang: bool = False, gone: bool = False
) -> Request:
    """A request whose body comes in these pieces; then it hangs, or its sender goes away."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        if hang and len(messages) == 1:
            await asyncio.sleep(60)
        return messages.pop(0)

    named = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": named}, receive)


def read(folder: Path, request: Request, **limits: Any) -> tuple[str, bytes, int]:
    """How a body is held, what it is, and how many files there are meanwhile."""

    async def reading() -> tuple[str, bytes, int]:
        async with BodyReader(folder, Limits(**limits)).read(request, "me") as body:
            content = body if isinstance(body, bytes) else body.read_bytes()
            return type(body).__name__, content, len(list(folder.iterdir()))

    try:
        return asyncio.run(reading())
    finally:
        assert list(folder.iterdir()) == [], "no file is left"


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [0, 5, LARGE, LARGE + 1, 3 * LARGE])
def test_small_bodies_stay_in_memory_and_large_ones_go_to_a_file(tmp_path: Path, size: int, declared: bool) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    pieces = [content[begin : begin + 65_537] for begin in range(0, size, 65_537)]
    pieces = [piece[: size - 65_537 * number] for number, piece in enumerate(pieces)]
    headers = {"Content-Length": str(size)} if declared else {}
    kind, found, files = read(tmp_path, request_of(*pieces, headers=headers))
    assert found == content[:size]
    assert (kind == "bytes", files) == (size <= LARGE, 0 if size <= LARGE else 1)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (lambda: request_of(b"x" * 11), 413),
        (lambda: request_of(headers={"Content-Length": "11"}), 413),
        (lambda: request_of(b"x", headers={"Content-Encoding": "gzip"}), 415),
        (lambda: request_of(b"x", hang=True), 408),
        (lambda: request_of(b"x", gone=True), 400),
    ],
)
def test_bodies_that_are_refused(tmp_path: Path, request_: Any, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        read(tmp_path, request_(), body_bytes=10, body_seconds=0.05)
    assert caught.value.status == status


def test_a_body_of_just_the_limit_and_what_an_earlier_server_left(tmp_path: Path) -> None:
    (tmp_path / "left").write_bytes(b"half a body")
    assert read(tmp_path, request_of(b"x" * 10), body_bytes=10)[1] == b"x" * 10
    assert read(tmp_path, request_of(b"y", headers={"Content-Encoding": "Identity "}))[1] == b"y"
