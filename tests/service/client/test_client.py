"""The client against servers that fail in every way there is, through real sockets; waits by a fake clock."""

from __future__ import annotations

import copy
import email.utils
import http.client
import json
import logging
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_server import FaultServer, answer, drip, faulty, hang_up, reset, silence
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.errors import (
    AuthenticationError,
    CvalError,
    DeadlineExceededError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RequestRejectedError,
    ServerFaultError,
    ServiceError,
    ServiceUnreachableError,
)
from cval_torch.pool.pool import Pool
from cval_torch.service.client import CVALConnection
from cval_torch.service.client.deadline import Backoff, Deadline, retry_after
from cval_torch.service.client.models import DetectionSamplingOnPremise, FrameEmbeddingModel
from cval_torch.service.client.resource import BODY_IN_MEMORY, spool
from cval_torch.service.rest import RestBackend

CANARY = "canary-7f3a-key"
DONE = {"task_id": "t", "time_start": 1.0, "time_end": 2.0, "result": ["a"]}
RUNNING = {"task_id": "t", "time_start": 1.0, "time_end": None, "result": None}
DATASET = {"dataset_id": "d", "dataset_name": "n", "dataset_description": None}
STORED = {"frames_quantity": 0, "frames": []}
ONE = {"frame_id": "a", "embeddings": [{"embedding_id": "0", "embedding": [1.0]}]}


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def connect(server: FaultServer, clock: Clock | None = None, *, timeout: float = 60.0) -> CVALConnection:
    connection = CVALConnection(CANARY, server.url, timeout=timeout)
    if clock is not None:
        transport = connection._transport
        transport.clock = transport._wall_clock = clock  # type: ignore[assignment]
        transport.sleep = clock.sleep  # type: ignore[method-assign]
    return connection


def take(connection: CVALConnection) -> Any:
    return connection.detection().on_premise_sampling(
        DetectionSamplingOnPremise(num_of_samples=1, selection_strategy="margin", frames=[])
    )


# Retry-After, in every form


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


@given(header=st.text(max_size=40))
def test_no_retry_after_can_break_the_client(header: str) -> None:
    seconds = retry_after(header, now=0.0)
    assert seconds is None or seconds >= 0


def test_attempts_come_to_an_end(clock: Clock) -> None:
    with faulty(answer({}, 503)) as server:
        with pytest.raises(ServerFaultError) as caught:
            connect(server, clock, timeout=1e6).dataset().get("d")
        assert len(server.requests) == 6
    assert caught.value.status == 503
    assert clock.sleeps == sorted(clock.sleeps)


# What is repeated, and what is not


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


@pytest.mark.parametrize("arrived", [True, False])
def test_a_broken_upload_is_sent_again_only_if_it_did_not_arrive(clock: Clock, arrived: bool) -> None:
    probe = answer(ONE) if arrived else answer({"detail": "no"}, 404)
    with faulty(reset, probe, answer(STORED)) as server:
        meta = connect(server, clock).embedding("d", "training").upload_many([ONE])
        methods = [request.method for request in server.requests]
    assert methods == (["POST", "GET"] if arrived else ["POST", "GET", "POST"])
    if arrived:
        assert (meta.frames_quantity, meta.frames[0].embeddings) == (1, ["0"])


def test_an_upload_goes_on_where_it_was(clock: Clock) -> None:
    pool = Pool(["a", "b", "c"], torch.arange(4), box_embeddings=torch.rand(3, 2))
    stored = {"frames_quantity": 1, "frames": [{"frame_id": "b", "embeddings_quantity": 1, "embeddings": ["1"]}]}
    with faulty(answer(stored), answer(STORED)) as server:
        assert connect(server).embedding("d", "training").upload_pool(pool, resume=True, progress=False) == 2
        (sent,) = [json.loads(request.body) for request in server.requests if request.method == "POST"]
    assert [(frame["frame_id"], frame["embeddings"][0]["embedding_id"]) for frame in sent] == [("a", "0"), ("c", "2")]


# Answers that are none

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


def test_the_answer_for_another_task_is_refused() -> None:
    with faulty(answer(DONE)) as server, pytest.raises(ProtocolError, match="task 'mine' was asked for, and 't'"):
        connect(server).result().get("mine")


# Deadlines

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


def test_a_poll_that_never_ends_ends_with_the_task_in_hand(clock: Clock) -> None:
    with faulty(answer(RUNNING)) as server:
        waiting = connect(server, clock).result()
        with pytest.raises(DeadlineExceededError, match=r"task 't' was not done within 120 s.*wait") as caught:
            waiting.wait("t", timeout=120, progress=False)
        assert caught.value.task_id == "t"
        assert isinstance(caught.value, TimeoutError)
        polls = len(server.requests)
        server.behaviours[:] = [answer(DONE)]
        assert waiting.wait(caught.value.task_id, progress=False).result == ["a"]
    assert 20 < polls < 80
    assert sum(clock.sleeps) == pytest.approx(120)
    assert len(set(clock.sleeps[6:20])) > 10, "jitter: no two waits are alike"
    assert max(clock.sleeps) <= 5


def test_a_wait_passes_over_what_passes(clock: Clock) -> None:
    progress = {**RUNNING, "result": {"done": 3, "of": 10}}
    faults = [answer(RUNNING), *[hang_up] * 8, answer({}, 500), answer({}, 429), answer(progress), answer(DONE)]
    with faulty(*faults) as server:
        assert connect(server, clock).result().wait("t", timeout=600).result == ["a"]


def test_a_wait_ends_when_the_task_does(clock: Clock) -> None:
    with (
        faulty(answer({"detail": "task failed"}, 409)) as server,
        pytest.raises(RequestRejectedError, match="task failed"),
    ):
        connect(server, clock).result().wait("t", progress=False)
    ended = {**RUNNING, "time_end": 3.0}
    with faulty(answer(ended)) as server, pytest.raises(ProtocolError, match="ended with no result"):
        connect(server, clock).result().wait("t", progress=False)
    assert clock.sleeps == []


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


# The key


def test_the_key_goes_in_its_header_and_netrc_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with faulty(answer(DATASET)) as server:
        connect(server).dataset().get("d")
        assert server.requests[0].headers["authorization"] == f"user_api_key:{CANARY}"


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


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX: y", "a b", "\x00", "é", "", "a" * 513, "a\t", "secret\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CVAL_API_KEY", raising=False)
    with pytest.raises(InvalidInputError, match="user_api_key") as caught:
        CVALConnection(key, "http://127.0.0.1:1/api")
    if len(key) > 1:
        assert key not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_the_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CVAL_API_KEY", raising=False)
    with pytest.raises(InvalidInputError, match="CVAL_API_KEY"):
        CVALConnection()
    with faulty(answer(DATASET)) as server:
        monkeypatch.setenv("CVAL_API_KEY", CANARY)
        monkeypatch.setenv("CVAL_URL", server.url)
        with CVALConnection() as connection:
            connection.dataset().get("d")
        assert CANARY in server.requests[0].headers["authorization"]
    monkeypatch.delenv("CVAL_URL")
    assert repr(CVALConnection(CANARY)) == "CVALConnection('https://cval.ai/api')"


@pytest.mark.parametrize(
    "url", ["ftp://a", "cval.ai/api", "http://", "https://user:secret@host/api", "http://a:99999", "http://a/?x=1"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="`base_url`") as caught:
        CVALConnection(CANARY, url)
    assert "secret" not in str(caught.value)


def every_failure() -> list[Any]:
    """Faults after which something is printed; some echo the key back, as careless servers do."""
    echo = f"no such key user_api_key:{CANARY}"
    return [
        reset,
        answer({"detail": echo}, 401),
        answer({"detail": [{"input": echo}]}, 422),
        answer({"detail": echo}, 500),
        answer({"task_id": "t", "time_start": echo}),
        answer(raw=echo.encode()),
        answer({}, 302, headers={"Location": f"http://elsewhere/{CANARY}"}),
        answer({"detail": echo}, 503),
    ]


@pytest.mark.parametrize("number", range(8))
def test_the_key_shows_nowhere(
    number: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)  # which prints headers
    caplog.set_level(logging.DEBUG)
    seen = []
    with faulty(every_failure()[number]) as server:
        connection = connect(server, Clock())
        backend = RestBackend(api_key=CANARY, url=server.url, progress=False)
        pool = Pool(["a"], torch.tensor([0, 1]), scores=torch.tensor([0.5]))
        stage = DetectionSamplingOnPremise(num_of_samples=1, selection_strategy="margin")
        for call in (lambda: take(connection), lambda: backend.select(pool, stage)):
            try:
                call()
            except CvalError as error:
                seen += [repr(error), str(error), "".join(traceback.format_exception(error))]
                seen += [repr(vars(error)), repr(pickle.loads(pickle.dumps(error)))]
                walked: BaseException | None = error
                while walked is not None:
                    frame = walked.__traceback__
                    while frame is not None:
                        seen.append(repr(frame.tb_frame.f_locals) if "cval_torch" in str(frame.tb_frame.f_code) else "")
                        seen.append(repr(getattr(walked, "request", "")))
                        frame = frame.tb_next
                    walked = walked.__cause__ or walked.__context__
        objects = [connection, backend, connection._transport, connection.dataset(), connection.detection()]
        seen += [repr(each) + str(each) for each in objects]
        seen += [repr(vars(each)) for each in (connection, backend, connection._transport)]
        assert server.requests
    captured = capfd.readouterr()
    seen += [caplog.text, captured.out, captured.err]
    assert [text for text in seen if CANARY in text] == []


@pytest.mark.parametrize("copying", [pickle.dumps, copy.deepcopy, copy.copy])
def test_the_key_is_not_pickled_or_copied(copying: Callable[[Any], Any]) -> None:
    connection = CVALConnection(CANARY, "http://127.0.0.1:1/api")
    with pytest.raises(TypeError, match="set CVAL_API_KEY"):
        copying(connection._transport._key)
    for each in (connection, RestBackend(api_key=CANARY, url="http://127.0.0.1:1/api")):
        if copying is not copy.copy:
            with pytest.raises(TypeError):
                copying(each)


# What is sent


def test_ids_are_quoted_in_paths() -> None:
    with faulty(answer(ONE)) as server:
        connect(server).embedding("d/../x", "test").get_by_id("a/b?c#d%", "é")
        assert server.requests[0].path == "/api/dataset/d%2F..%2Fx/test/embedding/a%2Fb%3Fc%23d%25/%C3%A9"
        for frame_id in ("", ".", ".."):
            with pytest.raises(InvalidInputError, match="`frame_id` must not be empty"):
                connect(server).embedding("d", "test").get_by_id(frame_id, "0")
        assert len(server.requests) == 1


def test_a_part_is_one_of_three() -> None:
    connection = CVALConnection(CANARY, "http://127.0.0.1:1/api")
    with pytest.raises(InvalidInputError, match="one of training, test, validation; got 'train'"):
        connection.embedding("d", "train")
    with pytest.raises(InvalidInputError, match="one of training"):
        RestBackend(api_key=CANARY, part_of_dataset="train")  # type: ignore[arg-type]


def test_a_callable_is_not_sent() -> None:
    with faulty(answer(DONE)) as server:
        for field in ("selection_strategy", "bbox_selection_policy"):
            config = {"num_of_samples": 1, "selection_strategy": "margin", "frames": [], field: max}
            with pytest.raises(InvalidInputError, match=f"`{field}` must be a name"):
                connect(server).detection().on_premise_sampling(config)
        assert server.requests == []


def test_nulls_and_defaults_are_left_out() -> None:
    with faulty(answer(DONE)) as server:
        frames = [{"frame_id": "a", "predictions": [{"score": 0.5}]}, {"frame_id": "b"}]
        config = {"num_of_samples": 1, "selection_strategy": "margin", "frames": frames}
        connect(server).detection().on_premise_sampling(config)
        assert json.loads(server.requests[0].body) == config


def test_uploads_are_cut_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [
        {"frame_id": str(row), "embeddings": [{"embedding_id": "0", "embedding": [0.5] * 50}]} for row in range(40)
    ]
    monkeypatch.setattr("cval_torch.service.client.embeddings.UPLOAD_BYTES", 2000)
    with faulty(answer(STORED)) as server:
        connect(server).embedding("d", "test").upload_many(
            FrameEmbeddingModel.model_validate(frame) for frame in frames
        )
        sent = [json.loads(request.body) for request in server.requests]
        assert all(len(request.body) <= 2000 for request in server.requests)
    assert [frame for body in sent for frame in body] == frames
    assert len(sent) > 3
    with faulty(answer(STORED)) as server, pytest.raises(InvalidInputError, match="number 0 is not"):
        connect(server).embedding("d", "test").upload_many([{"frame_id": "x" * 200, "embeddings": []}])


def test_a_long_body_waits_on_disk() -> None:
    pieces = [b"x" * (1 << 20)] * 3
    assert spool(pieces) == b"".join(pieces)
    long = spool(iter([b"y" * (BODY_IN_MEMORY // 4)] * 5))
    assert not isinstance(long, bytes)
    long.seek(0, 2)
    assert long.tell() == BODY_IN_MEMORY // 4 * 5
    long.close()


def test_what_is_remembered_need_not_be_said() -> None:
    with faulty(answer({"dataset_id": "d"}), answer(DATASET), answer(DONE), answer(DONE)) as server:
        connection = connect(server)
        dataset = connection.dataset()
        with pytest.raises(InvalidInputError, match="`dataset_id` must be given"):
            dataset.get()
        assert dataset.create(name="n", description="x") == "d"
        assert dataset.get().dataset_id == "d"
        assert dataset.embedding("test").dataset_id == "d"
        with pytest.raises(InvalidInputError, match="`task_id` must be given"):
            connection.result().get()
        detection = connection.detection()
        detection.on_premise_sampling({"num_of_samples": 1, "selection_strategy": "margin", "frames": []})
        assert detection.result.get().result == ["a"]
        assert [request.path.removeprefix("/api") for request in server.requests[1:]] == [
            "/dataset/d",
            "/on-premise/sampling/detection",
            "/result/t",
        ]
