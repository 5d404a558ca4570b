"""Samplings and their results, waited for."""

from __future__ import annotations

import json

import pytest
from client_calls import DONE, RUNNING, Clock, connect
from fault_server import answer, faulty, hang_up

from cval_torch.errors import (
    DeadlineExceededError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    RequestRejectedError,
)
from cval_torch.service.client.tasks import SAMPLING_PATH, DetectionResource, Features, ResultResource


def test_the_answer_for_another_task_is_refused() -> None:
    with faulty(answer(DONE)) as server, pytest.raises(ProtocolError, match="task 'mine' was asked for, and 't'"):
        connect(server).result().get("mine")


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


def test_a_task_is_cancelled_by_its_id() -> None:
    with faulty(answer(RUNNING), answer(raw=b"null"), answer({"detail": "there is no task"}, 404)) as server:
        results = connect(server).result()
        results.get("t")
        results.cancel()
        with pytest.raises(NotFoundError, match="there is no task"):
            results.cancel("other")
        assert [(request.method, request.path) for request in server.requests[1:]] == [
            ("DELETE", "/api/result/t"),
            ("DELETE", "/api/result/other"),
        ]


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


def test_results_are_asked_for_by_dataset_and_number() -> None:
    with faulty(answer([DONE, RUNNING]), answer([])) as server:
        resource = connect(server).result()
        assert isinstance(resource, ResultResource)
        assert [task.result for task in resource.get_many()] == [["a"], None]
        assert resource.get_many("d", limit=3) == []
        assert [request.path for request in server.requests] == [
            "/api/results?limit=100",
            "/api/results?limit=3&dataset_id=d",
        ]


def test_a_sampling_is_sent_as_it_is_and_remembered() -> None:
    pieces = [b'{"selection_strategy":', b'"margin","num_of_samples":1,"frames":[]}']
    with faulty(answer(RUNNING), answer(DONE)) as server:
        detection = connect(server).detection()
        assert isinstance(detection, DetectionResource)
        assert detection.send_sampling(iter(pieces)).result is None
        assert detection.result.wait(progress=False).result == ["a"]
        assert [(request.method, request.path) for request in server.requests] == [
            ("POST", f"/api{SAMPLING_PATH}"),
            ("GET", "/api/result/t"),
        ]
        assert server.requests[0].body == b"".join(pieces)


@pytest.mark.parametrize("told", [{"strategies": ["a"]}, {"strategies": ["a"], "options": ["seed"], "more": 1}])
def test_what_a_server_has_beyond_the_protocol(told: dict[str, object]) -> None:
    with faulty(answer(told)) as server:
        found = connect(server).service().features()
        assert found == Features(strategies=["a"], options=told.get("options", []))  # type: ignore[arg-type]
        assert server.requests[0].path == "/api/strategies"
    with faulty(answer({"options": []})) as server, pytest.raises(ProtocolError, match="not what the protocol has"):
        connect(server).service().features()
