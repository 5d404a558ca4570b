"""`RestBackend` against services that answer what they should not, take their time, or have less than ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fault_server import Behaviour, answer, faulty, reset
from scripted_service import NOT_FOUND, asked, backend_of, done, make_rest_pool, running, service

from cval_torch.errors import (
    AuthenticationError,
    DeadlineExceededError,
    InvalidInputError,
    ServiceUnreachableError,
    UnsupportedByServiceError,
)
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Backend
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.protocol import DetectionSamplingRequest
from cval_torch.service.rest import RestBackend
from cval_torch.strategies.columns import COLUMNS


def stage(strategy: Any, n: int, **fields: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **fields)


STAGES = [stage("entropy", 3), stage("clustering", 2)]


def test_it_is_a_backend() -> None:
    assert isinstance(RestBackend(api_key="key-of-tests"), Backend)
    assert repr(RestBackend(api_key="key-of-tests")) == (
        "RestBackend(CVALConnection('https://cval.ai/api'), part_of_dataset='training')"
    )


def test_it_says_which_columns_it_looks_at() -> None:
    backend = RestBackend(api_key="key-of-tests")
    described = {"labels", "scores", "box_embeddings", "frame_embeddings"}
    assert backend.columns([stage("probability", 2)]) == {"scores"}
    assert backend.columns(STAGES) == {*described, "probabilities"}
    assert backend.columns([stage("of a later server", 2)]) == set(COLUMNS)
    assert backend.columns(["no stage"]) == set(COLUMNS)  # type: ignore[list-item]

    class Another(RestBackend):
        def select(self, pool: Pool, stages: Any) -> Any:
            return super().select(pool, stages)

    assert Another(api_key="key-of-tests").columns([stage("probability", 2)]) == set(COLUMNS)


def test_a_pass_with_embeddings_of_some_boxes_is_refused_for_stages_that_send_those_of_all() -> None:
    backend = RestBackend(api_key="key-of-tests")
    backend.check_pass(STAGES, top_boxes=None)
    backend.check_pass([stage("entropy", 2), stage("of a later server", 2)], top_boxes=5)
    message = r"`top_boxes=5` .* stage 1 \(clustering\) .*: leave `top_boxes` out, or choose with LocalBackend"
    with pytest.raises(InvalidInputError, match=message):
        backend.check_pass(STAGES, top_boxes=5)
    with pytest.raises(InvalidInputError, match=r"`top_boxes=1` .* stage 0 \(entropy\)"):
        backend.check_pass([stage("entropy", 2, min_distance=0.5)], top_boxes=1)


REFUSED: dict[str, tuple[list[DetectionSampling], str]] = {
    "random": ([stage("entropy", 3), stage("random", 2)], "no `selection_strategy` 'random', which stage 1 asks for"),
    "auto": ([stage("auto", 2)], "no `selection_strategy` 'auto', which stage 0 asks for.*or a server of your own"),
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
            backend_of(server).select(make_rest_pool(), stages)
        assert [request.path for request in server.requests] == ["/api/strategies"]
        assert all(not request.body for request in server.requests)


def test_annotated_frames_go_to_no_service_that_has_no_place_for_them() -> None:
    pool = make_rest_pool()
    labeled = pool.take([0]).replace(frame_ids=["known"])
    with faulty(service(strategies=NOT_FOUND, detection=done("f0", "f1"))) as server:
        backend = backend_of(server)
        backend.labeled, backend.labeled_counts = labeled, {1: 5.0}
        for stages in (STAGES, [stage("entropy", 2, min_distance=0.5)]):
            with pytest.raises(UnsupportedByServiceError, match=r"the service has no `(labeled` frames|min_distance)"):
                backend.select(pool, stages)
        assert all(not request.body for request in server.requests)
        backend.select(pool, stage("entropy", 2))  # which does not look at them
        assert [b"known" in request.body or b"labeled" in request.body for request in server.requests][-1] is False
        backend.labeled = labeled.replace(frame_ids=[pool.frame_ids[1]])
        with pytest.raises(InvalidInputError, match="`labeled` frames cannot be chosen again"):
            backend.select(pool, stage("entropy", 2))


def test_annotated_frames_have_the_columns_of_the_others() -> None:
    pool = make_rest_pool()
    options = {"strategies": ["clustering"], "options": ["labeled"]}
    with faulty(service(strategies=answer(options))) as server:
        backend = backend_of(server)
        backend.labeled = pool.take([0]).replace(frame_ids=["known"], scores=None)
        with pytest.raises(InvalidInputError, match="`labeled` must have the column `scores`, which the pool has"):
            backend.select(pool, stage("clustering", 2))
        assert all(not request.body for request in server.requests)


BAD: dict[str, tuple[Callable[[], Pool], Any, str]] = {
    "no stages": (make_rest_pool, [], "at least one DetectionSampling"),
    "no frames": (lambda: make_rest_pool().take([]), stage("entropy", 1), "at least one frame"),
    "not a stage": (make_rest_pool, [3], "`stages` must be DetectionSampling; got int at 0"),
    "no scores": (lambda: make_rest_pool().replace(scores=None), stage("entropy", 1), "`probabilities` or `scores`"),
    "frames": (
        make_rest_pool,
        DetectionSamplingRequest(selection_strategy="entropy", num_of_samples=1, frames=[]),
        "has `frames`",
    ),
    "no embeddings to keep a distance by": (
        lambda: make_rest_pool().replace(box_embeddings=None, frame_embeddings=None),
        stage("entropy", 1, min_distance=0.1),
        "must have `box_embeddings` or `frame_embeddings`",
    ),
    "quotas of diversity": (
        make_rest_pool,
        stage("clustering", 1, class_quotas={1: 1}),
        "`class_quotas` are for stages",
    ),
    "no labels": (
        lambda: make_rest_pool().replace(labels=None),
        stage("entropy", 1, class_quotas={1: 1}),
        "`class_quotas` need the column `labels`",
    ),
    "no embeddings": (
        lambda: make_rest_pool().replace(box_embeddings=None, frame_embeddings=None),
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
            backend_of(server).select(make_rest_pool(nulls=2), stage("entropy", 1, use_null_detections=False))
        assert asked(server) == []


def test_the_service_is_asked_once_what_it_has() -> None:
    with faulty(service(detection=done("f1"))) as server:
        backend = backend_of(server)
        for _ in range(3):
            backend.select(make_rest_pool(), stage("entropy", 1))
        assert [request.path for request in server.requests].count("/api/strategies") == 1


def test_a_wrong_key_is_told_as_such() -> None:
    with faulty(answer({"detail": "who?"}, 401)) as server, pytest.raises(AuthenticationError, match="who"):
        backend_of(server).select(make_rest_pool(), stage("entropy", 1))


def test_a_selection_that_ran_out_of_time_goes_on_where_it_was() -> None:
    pool = make_rest_pool()
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
    pool = make_rest_pool()
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
        assert backend_of(server).resume(make_rest_pool(), stage("entropy", 1), task_id="t").frame_ids == ("f1",)


def test_a_sampling_whose_fate_is_unknown_is_not_asked_for_twice() -> None:
    with faulty(service(detection=reset)) as server:
        with pytest.raises(ServiceUnreachableError):
            backend_of(server).select(make_rest_pool(), stage("entropy", 1))
        assert sum(request.path.endswith("detection") for request in server.requests) == 1
