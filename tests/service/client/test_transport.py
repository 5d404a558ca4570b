"""Calls to servers that fail in every way there is, through real sockets; waits by a fake clock."""

from __future__ import annotations

import contextlib
import email.utils
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_calls import CANARY, DATASET, DONE, Clock, connect, take
from fault_server import answer, drip, faulty, hang_up, keep_open, reset
from forked import in_child

from cval_torch.errors import (
    AuthenticationError,
    DeadlineExceededError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RequestRejectedError,
    ServerFaultError,
    ServiceError,
    ServiceUnreachableError,
)
from cval_torch.service.client import CVALConnection
from cval_torch.service.rest import RestBackend


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


def test_a_connection_that_was_never_made_has_done_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the connection: nor is it refused, so that time runs out."""
    monkeypatch.setattr("cval_torch.service.client.transport.CONNECT_SECONDS", 0.05)
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):  # until no more of them wait to be taken
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        connection = CVALConnection(CANARY, f"http://127.0.0.1:{listener.getsockname()[1]}/api")
        connection._transport.sleep = clock.sleep  # type: ignore[method-assign]
        with pytest.raises(ServiceUnreachableError, match="POST /dataset: ConnectTimeout"):
            connection.dataset().create("n")
    assert len(clock.sleeps) == 5, "a POST that was sent is not sent again"


def test_a_body_that_waits_in_a_file_is_sent_whole_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.service.client.resource.BODY_IN_MEMORY", 10)
    with faulty(answer({}, 429), answer(DONE)) as server:
        assert take(connect(server, clock)).result == ["a"]
        first, second = [request.body for request in server.requests]
    assert first == second
    assert json.loads(first)["selection_strategy"] == "margin"


def test_connections_are_not_shared_with_a_fork(clock: Clock) -> None:
    ports: list[int] = []
    with faulty(keep_open(ports)) as server:
        dataset = connect(server, clock).dataset()
        for ask in (dataset.get, lambda which: in_child(lambda: dataset.get(which).dataset_id), dataset.get):
            ask("d")
        dataset._transport.close()
    assert ports[0] == ports[2], "the parent keeps its own"
    assert ports[0] != ports[1]


def test_cookies_are_not_sent_back(clock: Clock) -> None:
    with faulty(answer(DATASET, headers={"Set-Cookie": "session=1; Path=/"})) as server:
        dataset = connect(server, clock).dataset()
        for _ in range(2):
            dataset.get("d")
        assert ["cookie" in request.headers for request in server.requests] == [False, False]


def test_the_key_goes_to_an_international_host_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(answer(DATASET)) as proxy:
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        CVALConnection(CANARY, "http://BÜCHER.example/api").dataset().get("d")
        (asked,) = proxy.requests
    assert asked.path == "http://xn--bcher-kva.example/api/dataset/d"
    assert asked.headers["authorization"] == f"user_api_key:{CANARY}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """One that signed itself, for 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificate")
    made, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [openssl, *options.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", made],
        check=True,
        capture_output=True,
    )
    return made, key


def test_certificates_on_both_sides(clock: Clock, certificate: tuple[str, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.load_verify_locations(certificate[0])
    context.verify_mode = ssl.CERT_REQUIRED
    with faulty(answer(DATASET), tls=context) as server:
        with (
            connect(server, clock) as stranger,
            pytest.raises(ServiceUnreachableError, match=r"certificate.*; `verify` takes the file of the authority"),
        ):
            stranger.dataset().get("d")
        assert clock.sleeps == [], "no repetition mends a certificate"
        with (
            CVALConnection(CANARY, server.url, verify=certificate[0], timeout=1) as nobody,
            pytest.raises(ServiceUnreachableError),
        ):
            nobody.dataset().get("d")
        assert server.requests == []
        with CVALConnection(CANARY, server.url, verify=certificate[0], cert=certificate) as known:
            assert known.dataset().get("d").dataset_name == "n"
        with RestBackend(api_key=CANARY, url=server.url, verify=Path(certificate[0]), cert=certificate) as backend:
            assert backend._connection.dataset().get("d").dataset_name == "n"


def test_a_handshake_within_the_tls_of_a_proxy_ends_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[str, str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    tunnel = drip(b"\x16\x03\x03\x40\x00", before=b"HTTP/1.1 200 OK\r\n\r\n")
    with faulty(tunnel, tls=context) as proxy:
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("https_proxy", f"https://127.0.0.1:{proxy.port}")
        connection = CVALConnection(CANARY, "https://service.example/api", verify=certificate[0], timeout=0.6)
        with connection, pytest.raises(DeadlineExceededError, match=r"had no answer within 0\.6 s"):
            connection.dataset().get("d")
        assert [request.method for request in proxy.requests] == ["CONNECT"]


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
