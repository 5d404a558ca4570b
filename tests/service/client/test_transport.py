"""Calls to servers that fail in every way there is, through real sockets; waits by a fake clock."""

from __future__ import annotations

import email.utils
import socket
from collections.abc import Callable
from typing import Any

import pytest
from client_calls import CANARY, DATASET, DONE, Clock, connect, take
from fault_server import answer, faulty, hang_up, reset

from cval_torch.errors import (
    AuthenticationError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RequestRejectedError,
    ServerFaultError,
    ServiceError,
    ServiceUnreachableError,
)
from cval_torch.service.client import CVALConnection


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (email.utils.formatdate(1_000_009.0, usegmt=True), 9.0),
        (email.utils.formatdate(999_000.0, usegmt=True), None),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("²", None),
        ("Thu, 99 Zzz 2026 00:00:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_honoured(clock: Clock, status: int, header: str | None, waited: float | None) -> None:
    headers = {} if header is None else {"Retry-After": header}
    try:
        for value in headers.values():
            value.encode("ascii")
    except UnicodeEncodeError:
        headers = {"Retry-After": "abc"}
    with faulty(answer({"detail": "busy"}, status, headers=headers), answer(DATASET)) as server:
        assert connect(server, clock).dataset().get("d").dataset_name == "n"
    (slept,) = clock.sleeps
    if waited is None:
        assert 0.1 <= slept <= 0.25, "our own backoff"
    else:
        assert slept == pytest.approx(waited, abs=1e-3)


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitedError), (503, ServerFaultError)])
@pytest.mark.parametrize("header", ["21600", "9" * 400, email.utils.formatdate(4e9, usegmt=True)])
def test_a_retry_after_beyond_the_deadline_is_not_waited_for(
    clock: Clock, status: int, kind: type[ServiceError], header: str
) -> None:
    with faulty(answer({"detail": "busy"}, status, headers={"Retry-After": header})) as server:
        with pytest.raises(kind, match=f"{status}: busy"):
            connect(server, clock).dataset().get("d")
        assert len(server.requests) == 1
    assert clock.sleeps == []


def test_attempts_come_to_an_end(clock: Clock) -> None:
    with faulty(answer({}, 503)) as server:
        with pytest.raises(ServerFaultError) as caught:
            connect(server, clock, timeout=1e6).dataset().get("d")
        assert len(server.requests) == 6
    assert caught.value.status == 503
    assert clock.sleeps == sorted(clock.sleeps)


@pytest.mark.parametrize("fault", [reset, hang_up, answer({}, 502), answer({}, 504), answer({}, length=50)])
@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.dataset().get("d"),
        lambda c: c.dataset().update("d", name="n"),
        lambda c: c.dataset().delete("d"),
        lambda c: c.embedding("d", "test").delete_all(),
    ],
    ids=["get", "put", "delete", "delete_all"],
)
def test_what_may_be_repeated_is(clock: Clock, fault: Any, call: Callable[[CVALConnection], Any]) -> None:
    with faulty(fault, answer(DATASET)) as server:
        call(connect(server, clock))
        assert len(server.requests) == 2


@pytest.mark.parametrize("fault", [reset, hang_up, answer({}, 502), answer({}, 504), answer({}, 500)])
@pytest.mark.parametrize("call", [take, lambda c: c.dataset().create("n")], ids=["sampling", "create"])
def test_a_post_whose_fate_is_unknown_is_not_repeated(
    clock: Clock, fault: Any, call: Callable[[CVALConnection], Any]
) -> None:
    with faulty(fault, answer(DONE)) as server:
        with pytest.raises((ServiceUnreachableError, ServerFaultError)):
            call(connect(server, clock))
        assert len(server.requests) == 1
    assert clock.sleeps == []


def test_a_post_that_was_refused_is_repeated(clock: Clock) -> None:
    with faulty(answer({}, 429, headers={"Retry-After": "2"}), answer(DONE)) as server:
        assert take(connect(server, clock)).result == ["a"]
        assert [request.body for request in server.requests] == [server.requests[0].body] * 2
    assert clock.sleeps == [2.0]


def test_a_post_to_nobody_is_repeated_and_then_unreachable(clock: Clock) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connection = CVALConnection(CANARY, f"http://127.0.0.1:{port}/api")
    connection._transport.sleep = clock.sleep  # type: ignore[method-assign]
    with pytest.raises(ServiceUnreachableError, match="POST /dataset: ConnectionError"):
        connection.dataset().create("n")
    assert len(clock.sleeps) == 5


BROKEN = {
    "html": (
        answer(raw=b"<html>Login</html>", headers={"Content-Type": "text/html"}),
        "not JSON but text/html, 18 bytes",
    ),
    "nan": (answer(raw=b'{"task_id": "t", "time_start": NaN}'), "not JSON"),
    "infinity": (answer(raw=b'{"task_id": "t", "time_start": Infinity}'), "not JSON"),
    "cut": (answer(raw=b'{"task_id": "t", "time_st'), "not JSON"),
    "deep": (answer(raw=b"[" * 100_000), "not JSON"),
    "truncated": (answer(DONE, length=500), "the answer ended before its end"),
    "empty": (answer(raw=b""), "not what the protocol has"),
    "wrong": (answer({"task_id": 3}), "not what the protocol has; task_id"),
    "list": (answer([1, 2]), "not what the protocol has"),
    "bad ids": (answer({**DONE, "result": [1, 2]}), "not what the protocol has; result"),
    "bad gzip": (answer(raw=b"xx", headers={"Content-Encoding": "gzip"}), None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_is_none_is_one_kind_of_error(name: str) -> None:
    behaviour, message = BROKEN[name]
    with faulty(behaviour) as server, pytest.raises(ServiceError, match=message) as caught:
        take(connect(server))
    assert isinstance(caught.value, ProtocolError if message else ServiceError)


def test_an_answer_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.service.client.transport.MAX_ANSWER_BYTES", 1000)
    with (
        faulty(answer({"task_id": "x" * 2000})) as server,
        pytest.raises(ProtocolError, match="longer than 1000 bytes"),
    ):
        take(connect(server))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (406, RequestRejectedError),
        (409, RequestRejectedError),
        (413, RequestRejectedError),
        (422, RequestRejectedError),
        (500, ServerFaultError),
    ],
)
@pytest.mark.parametrize("body", [b'{"detail": "why"}', b"<html>", b"", b'{"detail": [{"msg": NaN}]}'])
def test_error_statuses_are_typed_whatever_their_body(status: int, kind: type[ServiceError], body: bytes) -> None:
    with faulty(answer(raw=body, status=status)) as server, pytest.raises(kind, match=f"answered {status}") as caught:
        take(connect(server))
    assert caught.value.status == status  # type: ignore[attr-defined]
    assert ("why" in str(caught.value)) == (b"why" in body)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_stays(status: int) -> None:
    with faulty(answer(DATASET)) as thief:
        target = f"http://localhost:{thief.port}/api/dataset/d"
        with faulty(answer({}, status, headers={"Location": target})) as server:
            with pytest.raises(ProtocolError, match=f"redirect .{status}. to .*localhost.*not followed"):
                connect(server).dataset().get("d")
            with pytest.raises(ProtocolError, match="redirect"):
                take(connect(server))
        assert thief.requests == []
