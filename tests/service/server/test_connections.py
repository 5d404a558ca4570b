"""Connections end, whatever is at their other end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_server import KEY, serving_here
from running_processes import wait_until
from server_calls import Api, vector

from cval_torch.service.server import connections
from cval_torch.service.server.connections import BoundedProtocol, server_config

GET = f"GET /api/strategies HTTP/1.1\r\nHost: x\r\nAuthorization: user_api_key:{KEY}\r\n"


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(connections, "HEAD_SECONDS", 0.5)
        patched.setattr(connections, "STALLED_SECONDS", 0.5)
        with serving_here(tmp_path_factory.mktemp("bounded")) as url:
            yield url


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.settimeout(20)
        connection.connect((host, int(port)))
        yield connection


DRIPPING = {
    "nothing at all": "",
    "a head": "GET /livez HTTP/1.1\r\nX-A: ",
    "a head after an answer": GET + "\r\n",
    "a body that nobody reads": GET + "Content-Length: 100000\r\n\r\n",
}


@pytest.mark.parametrize("name", DRIPPING)
def test_a_connection_on_which_no_request_comes_is_closed(bounded: str, name: str) -> None:
    said = b""
    is_closed = False
    end = time.monotonic() + 20
    with connected(bounded) as connection:
        connection.sendall(DRIPPING[name].encode())
        connection.settimeout(0.05)
        while not is_closed and time.monotonic() < end:
            try:
                if name != "nothing at all":
                    connection.sendall(b"x")
                piece = connection.recv(1 << 16)
                said, is_closed = said + piece, not piece
            except TimeoutError:
                continue
            except ConnectionError:
                is_closed = True
    assert is_closed
    assert (b"200 OK" in said) is ("GET /api" in DRIPPING[name])


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_an_answer_that_nobody_reads_ends_its_connection(bounded: str) -> None:
    api = Api(bounded)
    path = f"/dataset/{api.dataset()}/test/embeddings"
    for row in range(0, 24, 2):  # 12 MB, in bodies that need no worker
        api("POST", path, [vector(*[0.123456] * 50_000, frame_id=f"f{row + n}") for n in range(2)])
    with connected(bounded) as connection:
        connection.sendall(GET.replace("/strategies", path).encode() + b"\r\n")
        port = connection.getsockname()[1]

        def is_open() -> bool:
            """Of the two ends that the kernel lists, whether the server's is connected."""
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return any(fields[2].endswith(f":{port:04X}") and fields[3] == "01" for fields in lines)

        assert is_open()
        wait_until(lambda: not is_open())
    assert len(api("GET", path).content) > 10_000_000, "who reads is not cut off"
    api.session.close()


def test_every_server_is_served_so() -> None:
    config = server_config(lambda: None, port=0)
    assert (config.http, config.access_log, config.port) == (BoundedProtocol, False, 0)
