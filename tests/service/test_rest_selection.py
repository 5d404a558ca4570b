"""What is sent of a selection, stage by stage, and what may come back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fault_server import answer, faulty, stores
from scripted_service import NOT_FOUND, OURS, asked, backend_of, done, make_rest_pool, running, service

from cval_torch.errors import (
    CvalError,
    DeadlineExceededError,
    ProtocolError,
    UnsupportedByServiceError,
)
from cval_torch.pool.pool import Pool
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.client.connection import CVALConnection
from cval_torch.service.client.deadline import Deadline
from cval_torch.service.rest_selection import DATASET_NAME, Asking


def stage(strategy: Any, n: int, **fields: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **fields)


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
        backend_of(server).select(make_rest_pool(), stage("entropy", 2))


def test_a_later_stage_may_choose_only_what_the_earlier_kept() -> None:
    with (
        faulty(service(detection=[done("f1", "f2", "f3"), done("f0")])) as server,
        pytest.raises(ProtocolError, match="for stage 1, chose 'f0', which is not one of the frames"),
    ):
        backend_of(server).select(make_rest_pool(), [stage("entropy", 3), stage("margin", 1)])


def test_embeddings_go_up_only_for_the_frames_that_the_earlier_stage_kept() -> None:
    pool = make_rest_pool()
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
        backend_of(server).select(make_rest_pool(), stages)
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
            backend_of(server).select(make_rest_pool(nulls=2), stage("clustering", 1))
            (uploaded,) = asked(server, last="embeddings")
        assert len(uploaded[-1]["embeddings"][0]["embedding"]) == width


@pytest.mark.parametrize("strategy", ["entropy", "random", "clustering"])
@pytest.mark.parametrize("field", ["num_of_boxes", "min_distance"])
def test_what_looks_at_boxes_is_refused_where_only_whole_frames_can_be_sent(strategy: str, field: str) -> None:
    if (strategy, field) in {("entropy", "num_of_boxes"), ("random", "num_of_boxes")}:
        return  # no embeddings are sent for these
    pool = make_rest_pool().replace(box_embeddings=None)
    with faulty(service(strategies=OURS)) as server:
        with pytest.raises(UnsupportedByServiceError, match=f"{field}=1.0 of a stage .* needs `box_embeddings`"):
            backend_of(server).select(pool, stage(strategy, 2, **{field: 1}))
        assert asked(server) == asked(server, last="embeddings") == []


def test_a_budget_in_boxes_is_sent_without_a_number_of_frames() -> None:
    with faulty(service(strategies=OURS, detection=done("f1", "f2", "f3"))) as server:
        with pytest.warns(UserWarning, match=r"'entropy' keeps about .* boxes: more than num_of_boxes=1.5"):
            selection = backend_of(server).select(make_rest_pool(), stage("entropy", None, num_of_boxes=1.5))
        (request,) = asked(server)
    assert "num_of_samples" not in request
    assert request["num_of_boxes"] == 1.5
    assert selection.frame_ids == ("f1", "f2", "f3")


@pytest.mark.parametrize("broken", ["embeddings", "detection"])
def test_embeddings_are_deleted_when_a_selection_fails(broken: str) -> None:
    refusing = answer({"detail": "no"}, 422)
    with faulty(service(**{"detection": done("f1"), "d": answer(None), broken: refusing})) as server:
        with pytest.raises(CvalError, match="422: no"):
            backend_of(server).select(make_rest_pool(), stage("clustering", 1))
        assert len(asked(server, "DELETE", "embeddings")) >= 1


def test_a_selection_is_good_also_if_tidying_up_fails(caplog: pytest.LogCaptureFixture) -> None:
    stored = stores
    with faulty(service(detection=done("f1"), embeddings=[stored, answer({"detail": "no"}, 422)])) as server:
        assert backend_of(server).select(make_rest_pool(), stage("clustering", 1)).frame_ids == ("f1",)
    assert "dataset d could not be emptied" in caplog.text


def asking(
    server: Any, *stages: DetectionSampling, pool: Pool | None = None, seconds: float = 60, **options: Any
) -> Asking:
    connection = CVALConnection("key-of-tests", server.url)
    deadline = Deadline(seconds, clock=connection._transport.clock)
    given = {"features": None, "progress": False, **options}
    return Asking(connection, "test", make_rest_pool() if pool is None else pool, stages, deadline, **given)


def test_a_selection_may_begin_at_any_stage_and_with_any_rows() -> None:
    """Rows are those of the whole pool, whatever was kept before."""
    with faulty(service(detection=[done("f5", "f2")])) as server:
        one = asking(server, stage("entropy", 4), stage("margin", 2))
        chosen = one.go_on(1, torch.tensor([1, 2, 5]))
        (sent,) = asked(server)
    assert chosen.frame_ids == ("f5", "f2")
    assert chosen.rows.tolist() == [5, 2]
    assert [frame["frame_id"] for frame in sent["frames"]] == ["f1", "f2", "f5"]
    assert (sent["selection_strategy"], sent["num_of_samples"]) == ("margin", 2)
    assert torch.equal(chosen.scores, frame_scores(make_rest_pool(), stage("margin", 2))[[5, 2]])


def test_nothing_is_left_to_the_services_defaults() -> None:
    with faulty(service(detection=[done("f0")])) as server:
        asking(server, stage("probability", 1)).go_on(0, torch.arange(6))
        (sent,) = asked(server)
    del sent["frames"]
    assert sent == {
        "selection_strategy": "probability",
        "num_of_samples": 1,
        "use_null_detections": True,
        "num_of_clusters": -1,
        "bbox_selection_policy": "max",
        "sort_strategy": "ascending",
    }


def test_a_dataset_is_named_and_emptied_after_use() -> None:
    with faulty(service(detection=[done("f0", dataset_id="d")])) as server:
        asking(server, stage("clustering", 1)).go_on(0, torch.arange(6))
        (dataset,) = asked(server, last="dataset")
        deleted = [request.path for request in server.requests if request.method == "DELETE"]
    assert dataset["dataset_name"] == DATASET_NAME == "cval_torch"
    assert deleted == ["/api/dataset/d/test/embeddings"]


def test_no_time_is_left() -> None:
    with faulty(service()) as server, pytest.raises(DeadlineExceededError, match="was not done within 0 s"):
        asking(server, stage("entropy", 1), seconds=0).go_on(0, torch.arange(6))


def test_remarks_are_of_all_stages_and_warned_of_at_the_end() -> None:
    with faulty(service(detection=[done(*(f"f{row}" for row in range(6))), done("f1", "f0")])) as server:
        one = asking(server, stage("entropy", 9), stage("margin", 7), pool=make_rest_pool())
        with pytest.warns(UserWarning, match=r"the stage '\w+' keeps all 6 frames there are: fewer than num_of"):
            chosen = one.go_on(0, torch.arange(6))
    assert [remark.split(" keeps")[0] for remark in chosen.remarks] == ["the stage 'entropy'", "the stage 'margin'"]
