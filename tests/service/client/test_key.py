"""The key is carried to the service, and nowhere else."""

from __future__ import annotations

import copy
import http.client
import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from client_calls import CANARY, DATASET, Clock, connect, take
from fault_server import answer, faulty, reset
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.errors import (
    CvalError,
    InvalidInputError,
)
from cval_torch.pool.pool import Pool
from cval_torch.service.client import CVALConnection
from cval_torch.service.client.key import MAX_KEY_LENGTH, SHORTEST_SECRET, ApiKey, KeyAuth, check_key
from cval_torch.service.client.models import DetectionSamplingOnPremise
from cval_torch.service.rest import RestBackend


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
        backend._connection._transport.sleep = Clock().sleep  # type: ignore[method-assign]
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


printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=MAX_KEY_LENGTH)


@given(key=printable, before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_key_shows_in_its_header_alone(key: str, before: str, after: str) -> None:
    one = ApiKey(key)
    assert one.header() == f"user_api_key:{key}"
    for text in (repr(one), str(one), f"{one}"):
        assert text == "ApiKey(***)"
    said = one.redact(before + key + after)
    if len(key) >= SHORTEST_SECRET:
        assert key not in said.replace("***", "")
        assert "***" in said
    else:
        assert said == before + key + after, "so short a key is in many a word"


@given(key=st.text(max_size=12) | st.integers() | st.none())
def test_what_no_header_carries_is_refused_without_being_said(key: object) -> None:
    fine = isinstance(key, str) and len(key) >= 1 and all("!" <= letter <= "~" for letter in key)
    if fine:
        check_key(key, "the key")
        return
    with pytest.raises(InvalidInputError, match=r"^the key must be 1 to 512 printable ASCII characters") as caught:
        check_key(key, "the key")
    if isinstance(key, str) and len(key) > 3:
        assert key not in str(caught.value)


@pytest.mark.parametrize("length", [MAX_KEY_LENGTH, MAX_KEY_LENGTH + 1])
def test_a_key_has_512_characters_at_most(length: int) -> None:
    if length == 512:
        assert ApiKey("k" * length).header().endswith("k" * 512)
    else:
        with pytest.raises(InvalidInputError, match="got 513"):
            ApiKey("k" * length)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://cval.ai/api/dataset", True),
        ("https://cval.ai:443/elsewhere", True),
        ("http://cval.ai/api", False),
        ("https://cval.ai:8443/api", False),
        ("https://cval.ai.example/api", False),
        ("https://example/cval.ai", False),
    ],
)
def test_the_key_goes_to_one_origin(url: str, sent: bool) -> None:
    request = requests.Request("GET", url).prepare()
    KeyAuth(ApiKey("a-key"), "https://cval.ai/api")(request)
    assert request.headers.get("Authorization") == ("user_api_key:a-key" if sent else None)
