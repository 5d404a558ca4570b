"""`RestBackend` against services that answer what they should not, take their time, or have less than ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fault_server import Behaviour, FaultServer, Request, answer, faulty, reset

from cval_torch.errors import (
    AuthenticationError,
    CvalError,
    DeadlineExceededError,
    InvalidInputError,
    ProtocolError,
    ServiceUnreachableError,
    UnsupportedByServiceError,
)
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Backend
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.protocol import DetectionSamplingRequest
from cval_torch.service.rest import RestBackend

NOT_FOUND = answer({"detail": "Not Found"}, 404)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def make_pool(frames: int = 6, *, nulls: int = 0, width: int = 3) -> Pool:
    """Frame `f0` is the least sure; the last `nulls` frames have no boxes."""
    counts = torch.tensor([2] * (frames - nulls) + [0] * nulls)
    boxes = int(counts.sum())
    generator = torch.Generator().manual_seed(0)
    return Pool(
        [f"f{row}" for row in range(frames)],
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        scores=torch.linspace(0.5, 0.99, boxes),
        labels=torch.arange(boxes) % 3,
        box_embeddings=torch.randn(boxes, 4, generator=generator),
        frame_embeddings=torch.randn(frames, width, generator=generator),
    )


def stage(strategy: Any, n: int, **fields: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **fields)


def service(**routes: Behaviour | list[Behaviour]) -> Behaviour:
    """A service of the protocol alone: by the last word of a path, what it does; the last of a list goes on."""
    known: dict[str, Behaviour | list[Behaviour]] = {
        "strategies": NOT_FOUND,
        "dataset": answer({"dataset_id": "d"}),
        "embeddings": answer({"frames_quantity": 0, "frames": []}),
        **routes,
    }

    def behave(connection: Any, request: Request) -> None:
        what = known[request.path.split("/")[-1].split("?")[0]]
        if isinstance(what, list):
            what = what.pop(0) if len(what) > 1 else what[0]
        what(connection, request)

    return behave


def done(*frame_ids: str, **fields: Any) -> Behaviour:
    return answer({"task_id": "t", "time_start": 1.0, "time_end": 2.0, "result": list(frame_ids), **fields})


def running(**fields: Any) -> Behaviour:
    return answer({"task_id": "t", "time_start": 1.0, "time_end": None, "result": None, **fields})


def backend_of(server: FaultServer, **options: Any) -> RestBackend:
    return RestBackend(api_key="key-of-tests", url=server.url, progress=False, **options)


def asked(server: FaultServer, method: str = "POST", last: str = "detection") -> list[Any]:
    """The bodies of the requests to paths that end so."""
    return [
        json.loads(request.body) if request.body else None
        for request in server.requests
        if request.method == method and request.path.endswith(f"/{last}")
    ]


STAGES = [stage("entropy", 3), stage("clustering", 2)]


def test_it_is_a_backend() -> None:
    assert isinstance(RestBackend(api_key="key-of-tests"), Backend)
    assert repr(RestBackend(api_key="key-of-tests")) == (
        "RestBackend(CVALConnection('https://cval.ai/api'), part_of_dataset='training')"
    )


WRONG = {
    "unknown": (["f1", "elsewhere"], "chose 'elsewhere', which is not one of the frames"),
    "duplicate": (["f1", "f1"], "chose 'f1' twice"),
    "too many": (["f1", "f2", "f3"], "chose 3 frames, and was asked for 2"),
    "none": ([], "chose no frames"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("late", [False, True])
def test_what_the_service_may_not_choose_is_a_protocol_error(name: str, late: bool) -> None:
    ids, message = WRONG[name]
    routes = {"detection": running(), "t": done(*ids)} if late else {"detection": done(*ids)}
    with faulty(service(**routes)) as server, pytest.raises(ProtocolError, match=f"task 't', for stage 0, {message}"):
        backend_of(server).select(make_pool(), stage("entropy", 2))


def test_a_later_stage_may_choose_only_what_the_earlier_kept() -> None:
    with (
        faulty(service(detection=[done("f1", "f2", "f3"), done("f0")])) as server,
        pytest.raises(ProtocolError, match="for stage 1, chose 'f0', which is not one of the frames"),
    ):
        backend_of(server).select(make_pool(), [stage("entropy", 3), stage("margin", 1)])


def test_embeddings_go_up_only_for_the_frames_that_the_earlier_stage_kept() -> None:
    pool = make_pool()
    with faulty(service(detection=[done("f4", "f1", "f2"), done("f2", "f4")])) as server:
        selection = backend_of(server, part_of_dataset="test").select(
            pool, [stage("entropy", 3), stage("clustering", 2)]
        )
        first, second = asked(server)
        (uploaded,) = asked(server, last="embeddings")
        paths = [(request.method, request.path) for request in server.requests]
    assert selection.frame_ids == ("f2", "f4")
    assert selection.rows.tolist() == [2, 4]
    local = LocalBackend().select(pool, stage("entropy", 6))
    by_id = dict(zip(local.frame_ids, local.scores.tolist(), strict=True))
    assert selection.scores.tolist() == [by_id["f2"], by_id["f4"]]
    assert [frame["frame_id"] for frame in first["frames"]] == [f"f{row}" for row in range(6)]
    assert all("embedding_id" not in box for frame in first["frames"] for box in frame["predictions"])
    assert [frame["frame_id"] for frame in second["frames"]] == ["f4", "f1", "f2"]
    assert second["dataset_id"] == "d"
    assert {frame["frame_id"] for frame in uploaded} == {"f1", "f2", "f4"}
    named = {box["embedding_id"] for frame in second["frames"] for box in frame["predictions"]}
    assert named == {vector["embedding_id"] for frame in uploaded for vector in frame["embeddings"]}
    # what served is deleted; a dataset cannot be, there
    assert paths[-1] == ("DELETE", "/api/dataset/d/test/embeddings")


def test_only_fields_of_the_protocol_go_to_a_service_that_has_no_others() -> None:
    with faulty(service(detection=done("f1"))) as server:
        stages = stage("entropy", 2, seed=7)
        backend_of(server).select(make_pool(), stages)
        (request,) = asked(server)
    request.pop("frames")
    assert request == {
        "num_of_samples": 2,
        "selection_strategy": "entropy",
        "bbox_selection_policy": "max",
        "sort_strategy": "descending",
        "use_null_detections": True,
        "num_of_clusters": -1,
    }


def test_a_service_of_one_space_gets_embeddings_of_one_width() -> None:
    for features, width in ((NOT_FOUND, 4), (answer({"strategies": ["clustering"], "options": []}), 3)):
        with faulty(service(strategies=features, detection=done("f1"), d=answer(None))) as server:
            backend_of(server).select(make_pool(nulls=2), stage("clustering", 1))
            (uploaded,) = asked(server, last="embeddings")
        assert len(uploaded[-1]["embeddings"][0]["embedding"]) == width


REFUSED: dict[str, tuple[list[DetectionSampling], str]] = {
    "random": ([stage("entropy", 3), stage("random", 2)], "no `selection_strategy` 'random', which stage 1 asks for"),
    "unheard of": ([stage("best", 2)], "'best'.*it has least, margin, ratio, entropy, probability, clustering"),
    "a callable": ([stage(lambda pool: pool.scores, 2)], "`selection_strategy` of stage 0 is a callable"),
    "a policy of one's own": ([stage("entropy", 2, bbox_selection_policy=max)], "`bbox_selection_policy` of stage 0"),
    "a null policy": ([stage("entropy", 2, null_policy="last")], "no `null_policy`, which stage 0 sets to 'last'"),
    "weights of classes": ([stage("entropy", 2, class_weights={1: 2})], "no `class_weights`, which stage 0 sets"),
    "a budget": ([stage("entropy", None, num_of_boxes=4)], "no `num_of_boxes`, which stage 0 sets to 4.0"),
    "a distance": (
        [stage("entropy", 2, min_distance=0.5)],
        "no `min_distance`, which stage 0 sets to 0.5.*or leave it None",
    ),
    "quotas": ([stage("least", 2), stage("least", 2, class_quotas={1: 1})], "no `class_quotas`, which stage 1 sets to"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("probe", [NOT_FOUND, answer({}, 405), answer(raw=b"<html>"), answer({"x": 1})])
def test_what_the_service_does_not_have_is_refused_by_name_before_anything_goes_up(name: str, probe: Behaviour) -> None:
    stages, message = REFUSED[name]
    with faulty(service(strategies=probe)) as server:
        with pytest.raises(UnsupportedByServiceError, match=message):
            backend_of(server).select(make_pool(), stages)
        assert [request.path for request in server.requests] == ["/api/strategies"]
        assert all(not request.body for request in server.requests)


OURS = answer(
    {"strategies": ["entropy", "random", "clustering"], "options": ["num_of_boxes", "min_distance", "class_quotas"]}
)


@pytest.mark.parametrize("strategy", ["entropy", "random", "clustering"])
@pytest.mark.parametrize("field", ["num_of_boxes", "min_distance"])
def test_what_looks_at_boxes_is_refused_where_only_whole_frames_can_be_sent(strategy: str, field: str) -> None:
    if (strategy, field) in {("entropy", "num_of_boxes"), ("random", "num_of_boxes")}:
        return  # no embeddings are sent for these
    pool = make_pool().replace(box_embeddings=None)
    with faulty(service(strategies=OURS)) as server:
        with pytest.raises(UnsupportedByServiceError, match=f"{field}=1.0 of a stage .* needs `box_embeddings`"):
            backend_of(server).select(pool, stage(strategy, 2, **{field: 1}))
        assert asked(server) == asked(server, last="embeddings") == []


def test_a_budget_in_boxes_is_sent_without_a_number_of_frames() -> None:
    with faulty(service(strategies=OURS, detection=done("f1", "f2", "f3"))) as server:
        with pytest.warns(UserWarning, match=r"'entropy' keeps about .* boxes: more than num_of_boxes=1.5"):
            selection = backend_of(server).select(make_pool(), stage("entropy", None, num_of_boxes=1.5))
        (request,) = asked(server)
    assert "num_of_samples" not in request
    assert request["num_of_boxes"] == 1.5
    assert selection.frame_ids == ("f1", "f2", "f3")


BAD: dict[str, tuple[Callable[[], Pool], Any, str]] = {
    "no stages": (make_pool, [], "at least one DetectionSampling"),
    "no frames": (lambda: make_pool().take([]), stage("entropy", 1), "at least one frame"),
    "not a stage": (make_pool, [3], "`stages` must be DetectionSampling; got int at 0"),
    "no scores": (lambda: make_pool().replace(scores=None), stage("entropy", 1), "`probabilities` or `scores`"),
    "frames": (
        make_pool,
        DetectionSamplingRequest(selection_strategy="entropy", num_of_samples=1, frames=[]),
        "has `frames`",
    ),
    "no embeddings to keep a distance by": (
        lambda: make_pool().replace(box_embeddings=None, frame_embeddings=None),
        stage("entropy", 1, min_distance=0.1),
        "must have `box_embeddings` or `frame_embeddings`",
    ),
    "quotas of diversity": (make_pool, stage("clustering", 1, class_quotas={1: 1}), "`class_quotas` are for stages"),
    "no labels": (
        lambda: make_pool().replace(labels=None),
        stage("entropy", 1, class_quotas={1: 1}),
        "`class_quotas` need the column `labels`",
    ),
    "no embeddings": (
        lambda: make_pool().replace(box_embeddings=None, frame_embeddings=None),
        stage("clustering", 1),
        "must have `box_embeddings` or `frame_embeddings`",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_told_before_anything_is_sent(name: str) -> None:
    make, stages, message = BAD[name]
    with faulty(service()) as server:
        with pytest.raises(InvalidInputError, match=message):
            backend_of(server).select(make(), stages)
        assert server.requests == []


def test_frames_without_boxes_that_are_not_wanted_are_told_by_name() -> None:
    with faulty(service()) as server:
        with pytest.raises(InvalidInputError, match="use_null_detections=False, but frame 'f4' has no boxes"):
            backend_of(server).select(make_pool(nulls=2), stage("entropy", 1, use_null_detections=False))
        assert asked(server) == []


def test_the_service_is_asked_once_what_it_has() -> None:
    with faulty(service(detection=done("f1"))) as server:
        backend = backend_of(server)
        for _ in range(3):
            backend.select(make_pool(), stage("entropy", 1))
        assert [request.path for request in server.requests].count("/api/strategies") == 1


def test_a_wrong_key_is_told_as_such() -> None:
    with faulty(answer({"detail": "who?"}, 401)) as server, pytest.raises(AuthenticationError, match="who"):
        backend_of(server).select(make_pool(), stage("entropy", 1))


def test_a_selection_that_ran_out_of_time_goes_on_where_it_was() -> None:
    pool = make_pool()
    with faulty(service(detection=running(), t=running())) as server:
        with pytest.raises(DeadlineExceededError, match=r"resume\(pool, stages, task_id='t', stage=0\)") as caught:
            backend_of(server, timeout=0.5).select(pool, STAGES)
        assert (caught.value.task_id, caught.value.stage) == ("t", 0)
        server.behaviours[:] = [service(t=done("f3", "f1", "f0"), detection=done("f0", "f3"))]
        before = len(server.requests)
        selection = backend_of(server).resume(pool, STAGES, task_id="t", stage=0)
        assert [request.path.split("/")[-1] for request in server.requests[before:]] == [
            *("strategies", "t", "dataset", "embeddings", "detection", "embeddings")
        ]
    assert selection.frame_ids == ("f0", "f3")


def test_the_last_stage_is_resumed_too_and_its_embeddings_are_kept_until_then() -> None:
    pool = make_pool()
    routes = {"detection": [done("f3", "f1", "f0"), running(dataset_id="d")], "t": running(dataset_id="d")}
    with faulty(service(**routes)) as server:
        with pytest.raises(DeadlineExceededError) as caught:
            backend_of(server, timeout=1.0).select(pool, STAGES)
        assert caught.value.stage == 1
        assert asked(server, "DELETE", "embeddings") == []
        server.behaviours[:] = [service(t=done("f1", "f3", dataset_id="d"))]
        backend = backend_of(server)
        for number in (None, 2, -1):
            with pytest.raises(InvalidInputError, match="`stage` must be from 0 to 1"):
                backend.resume(pool, STAGES, task_id="t", stage=number)
        selection = backend.resume(pool, STAGES, task_id=str(caught.value.task_id), stage=caught.value.stage)
        assert len(asked(server, "DELETE", "embeddings")) == 1
    assert selection.frame_ids == ("f1", "f3")
    local = LocalBackend().select(pool.take([1, 3]), stage("entropy", 2, sort_strategy="ascending"))
    assert sorted(selection.scores.tolist()) == local.scores.tolist()


def test_a_stage_alone_is_resumed_without_its_number() -> None:
    with faulty(service(t=done("f1"))) as server:
        assert backend_of(server).resume(make_pool(), stage("entropy", 1), task_id="t").frame_ids == ("f1",)


@pytest.mark.parametrize("broken", ["embeddings", "detection"])
def test_embeddings_are_deleted_when_a_selection_fails(broken: str) -> None:
    refusing = answer({"detail": "no"}, 422)
    with faulty(service(**{"detection": done("f1"), "d": answer(None), broken: refusing})) as server:
        with pytest.raises(CvalError, match="422: no"):
            backend_of(server).select(make_pool(), stage("clustering", 1))
        assert len(asked(server, "DELETE", "embeddings")) >= 1


def test_a_selection_is_good_also_if_tidying_up_fails(caplog: pytest.LogCaptureFixture) -> None:
    stored = answer({"frames_quantity": 0, "frames": []})
    with faulty(service(detection=done("f1"), embeddings=[stored, answer({"detail": "no"}, 422)])) as server:
        assert backend_of(server).select(make_pool(), stage("clustering", 1)).frame_ids == ("f1",)
    assert "dataset d could not be emptied" in caplog.text


def test_a_sampling_whose_fate_is_unknown_is_not_asked_for_twice() -> None:
    with faulty(service(detection=reset)) as server:
        with pytest.raises(ServiceUnreachableError):
            backend_of(server).select(make_pool(), stage("entropy", 1))
        assert sum(request.path.endswith("detection") for request in server.requests) == 1
