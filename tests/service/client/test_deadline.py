"""Deadlines that hold however a server drips, and waits between attempts."""

from __future__ import annotations

import gc
import socket
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from client_calls import CANARY, Clock, connect, take
from fault_server import Behaviour, Request, drip, faulty, reset, silence
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.errors import (
    DeadlineExceededError,
    ServiceError,
)
from cval_torch.service.client import CVALConnection
from cval_torch.service.client.deadline import Backoff, Deadline, retry_after


@given(header=st.text(max_size=40))
def test_no_retry_after_can_break_the_client(header: str) -> None:
    seconds = retry_after(header, now=0.0)
    assert seconds is None or seconds >= 0


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"


SLOW = {
    "no answer": silence,
    "dripping status line": drip(b"HTTP/1.1 200 OK "),
    "dripping headers": drip(b"X-A: b\r\n", before=b"HTTP/1.1 200 OK\r\n"),
    "dripping body": drip(b" ", before=OK + b"\r\n"),
    "dripping chunks": drip(b"1\r\n \r\n", before=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "dripping until it closes": drip(b" ", before=b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("call", [take, lambda c: c.dataset().get("d")], ids=["post", "get"])
def test_a_call_ends_at_its_deadline_however_the_server_drips(name: str, call: Callable[[CVALConnection], Any]) -> None:
    with faulty(SLOW[name]) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"had no answer within 0\.4 s"):
            call(connect(server, timeout=0.4))
        assert time.monotonic() - began < 20  # a dripping server goes on for a minute
        assert len(server.requests) == 1


HEADERS = drip(b"X-A: b\r\n", before=b"HTTP/1.1 200 OK\r\n")
HANDSHAKE = drip(b"\x00", before=b"\x16\x03\x03\x40\x00")


@pytest.mark.parametrize(
    ("scheme", "behaviour", "reads"),
    [
        ("http", HEADERS, True),
        ("https", HEADERS, True),  # the answer to CONNECT
        ("direct", HANDSHAKE, False),
    ],
)
def test_a_proxy_and_a_handshake_that_drip_end_at_the_deadline_too(
    monkeypatch: pytest.MonkeyPatch, scheme: str, behaviour: Behaviour, reads: bool
) -> None:
    with faulty(behaviour, reads=reads) as server:
        url = server.url
        if scheme != "direct":
            url = f"{scheme}://service.example/api"
            monkeypatch.delenv("NO_PROXY")
            monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{server.port}")
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"had no answer within 0\.4 s"):
            CVALConnection(CANARY, url, timeout=0.4).dataset().get("d")
        assert time.monotonic() - began < 20  # it goes on for a minute
        if reads:
            (asked,) = server.requests
            assert (asked.method, "authorization" in asked.headers) == (
                ("CONNECT", False) if scheme == "https" else ("GET", True)
            )


def test_a_tls_socket_is_closed_though_its_time_is_over_before_its_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python lets go of a socket, unclosed, that was shut by one side and reset by the other before it is wrapped."""

    def reset_once_it_hears(connection: socket.socket, request: Request) -> None:
        connection.recv(1)
        reset(connection, request)

    wrap = urllib3.util.ssl_.ssl_wrap_socket

    def wrap_late(*given: Any, **named: Any) -> Any:
        time.sleep(0.5)
        return wrap(*given, **named)

    monkeypatch.setattr("urllib3.connection.ssl_wrap_socket", wrap_late)
    with faulty(reset_once_it_hears, reads=False) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(ServiceError):
            CVALConnection(CANARY, server.url, timeout=0.4).dataset().get("d")
        gc.collect()
    assert [str(each.message) for each in caught if "unclosed" in str(each.message)] == []


def test_backoff_doubles_up_to_a_ceiling_and_is_jittered() -> None:
    assert [Backoff(1, 5, jitter=lambda: 0.0).next() for _ in range(1)] == [1]
    steady, low = Backoff(1, 5, jitter=lambda: 0.0), Backoff(1, 5, jitter=lambda: 0.999)
    assert [steady.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    assert all(
        half <= value <= half * 1.01 for value, half in zip((low.next() for _ in range(3)), (0.5, 1, 2), strict=True)
    )


def test_a_deadline_within_another_is_the_earlier(clock: Clock) -> None:
    deadline = Deadline(10, clock=clock)
    assert deadline.within(3).remaining() == 3
    clock.now += 8
    assert deadline.within(3).remaining() == 2
