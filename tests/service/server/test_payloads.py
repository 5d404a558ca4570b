"""Bodies that cannot be served, and what is said of them."""

from __future__ import annotations

import gc
import json

import pytest
from server_calls import SAMPLING, Api, frames, sampling, vector

from cval_torch.service.server.payloads import SAMPLING as PARSED_SAMPLING
from cval_torch.service.server.payloads import body_schemas, not_collecting, parsed
from cval_torch.service.server.settings import RefusedError

REFUSED = {
    "no frames": (sampling(frames=[]), 422, "at least one frame"),
    "unknown strategy": (sampling(selection_strategy="best"), 422, "one of least, margin, .*random; got 'best'"),
    "unknown policy": (sampling(bbox_selection_policy="median"), 422, "bbox_selection_policy"),
    "unknown dataset": (sampling(dataset_id="nope"), 404, "no dataset 'nope'"),
    "diversity without a dataset": (sampling(selection_strategy="clustering"), 422, "needs the `dataset_id`"),
    "score of 1": (sampling(frames=frames(1.0)), 422, "frames.0.predictions.0.score"),
    "no samples": (sampling(num_of_samples=0), 422, "num_of_samples"),
    "neither frames nor boxes": (
        sampling(num_of_samples=None),
        422,
        "`num_of_samples`, `num_of_boxes` or `num_of_minutes` must be given",
    ),
    "no boxes": (sampling(num_of_boxes=0), 422, "num_of_boxes"),
    "a distance of nothing": (sampling(min_distance=0), 422, "min_distance"),
    "a distance without a dataset": (sampling(min_distance=0.5), 422, "`min_distance` needs the `dataset_id`"),
    "quotas of no number": (sampling(class_quotas={"dog": 1}), 422, "class_quotas.dog"),
    "quotas without classes": (sampling(class_quotas={"3": 1}), 422, "need the column `labels`"),
    "quotas of diversity": (sampling(selection_strategy="k_center", class_quotas={"3": 1}), 422, "are for stages"),
    "no nulls wanted": (sampling(frames=[{"frame_id": "a"}], use_null_detections=False), 422, "'a' has no boxes"),
    "a frame twice": (sampling(frames=frames(0.5) * 2), 422, "distinct; got 'f0' again"),
    "no scores": (sampling(frames=[{"frame_id": "a", "predictions": [{}]}]), 422, "needs the column"),
    "negative weights of classes": (
        sampling(class_weights={"1": -1}, selection_strategy="least"),
        422,
        "class_weights",
    ),
    "weights of no classes": (sampling(class_weights={"car": 1}, selection_strategy="least"), 422, "class_weights"),
    "balanced classes": (sampling(class_weights="balanced", selection_strategy="least"), 422, "class_weights"),
    "weights of classes for what has none": (
        sampling(class_weights={"1": 2}, selection_strategy="probability"),
        422,
        "`class_weights` weigh least",
    ),
    "weights that do not fit": (sampling(probs_weights=[1.0], selection_strategy="entropy"), 422, "probs_weights"),
    "too many frames": (sampling(frames=frames(*[0.5] * 51)), 413, "at most 50 frames are taken; got 51"),
    "too many boxes": (
        sampling(frames=[{"frame_id": "a", "predictions": [{"score": 0.5}] * 201}]),
        413,
        "at most 200 predictions are taken; got 201",
    ),
    "too many classes": (
        sampling(frames=[{"frame_id": "a", "predictions": [{"probabilities": [0.5] * 65}]}]),
        413,
        "at most 64 probabilities of a box",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_cannot_be_served_says_why(api: Api, name: str) -> None:
    request, status, message = REFUSED[name]
    answer = api("POST", SAMPLING, request)
    assert answer.status_code == status
    assert pytest.raises(AssertionError, match=message).matches(AssertionError(answer.json()["detail"]))


def test_uploads_and_slices_have_bounds(api: Api) -> None:
    path = f"/dataset/{api.dataset()}/test/embeddings"
    for content, status in [
        ([vector(*[0.5] * 65)], 413),
        ([vector(1.0, embedding_id="x" * 41)], 413),
        ([vector(1.0, frame_id="x" * 129)], 422),
        ([vector(1.0, frame_id=str(row)) for row in range(51)], 413),
    ]:
        assert api("POST", path, content).status_code == status
    assert api("GET", path, params={"stop_limit": 1001}).status_code == 413
    assert api("GET", path + "/meta", params={"start_limit": 10, "stop_limit": 1010}).status_code == 200
    for query in ({"start_limit": -1}, {"stop_limit": "x"}, {"start_limit": 10**30}):
        assert api("GET", path, params=query).status_code == 422
    assert api("GET", "/results", params={"limit": -1}).status_code == 422


HOSTILE = {
    "nothing": b"",
    "not json": b"{",
    "not utf-8": b'{"a": "\xff\xfe"}',
    "null": b"null",
    "a number": b"1e999",
    "nan": b'{"num_of_samples": NaN, "selection_strategy": "margin", "frames": []}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "deep within": b'{"num_of_samples": 1, "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "a long number": b'{"num_of_samples": ' + b"9" * 100_000 + b"}",
    "a list": b"[1, 2, 3]",
    "lone surrogate": b'[{"frame_id": "\\ud800", "embeddings": []}]',
    "an object for a list": b'{"0": {"frame_id": "a"}}',
    "two documents": b"{} {}",
    "a huge category": b'{"num_of_samples":1,"selection_strategy":"margin","frames":[{"frame_id":"a","predictions":'
    b'[{"score":0.5,"category_id":' + b"9" * 400 + b"}]}]}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_answered_422(api: Api, name: str) -> None:
    dataset_id = api.dataset()
    paths = [("POST", SAMPLING), ("POST", f"/dataset/{dataset_id}/test/embeddings")]
    if name not in ("nan", "a long number", "an object for a list", "a huge category"):  # an object of unknown fields
        paths += [("POST", "/dataset"), ("PUT", f"/dataset/{dataset_id}")]
    for method, path in paths:
        answer = api(method, path, data=HOSTILE[name])
        assert answer.status_code == 422, (path, answer.text[:200])
        assert len(answer.content) < 3000, "what was sent is not sent back"


@pytest.mark.parametrize("content", [b"", b"[", b"nul", b"[" * 300 + b"]" * 300, b"\xff"])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parsed(content, PARSED_SAMPLING)
    assert caught.value.status == 422


def test_the_collector_rests_for_a_while_only() -> None:
    for was in (True, False):
        (gc.enable if was else gc.disable)()
        try:
            with not_collecting():
                assert not gc.isenabled()
            assert gc.isenabled() is was
        finally:
            gc.enable()


def test_what_is_wrong_is_named_without_its_values() -> None:
    secrets = [{"frame_id": "", "predictions": [{"score": "hunter2"}]} for _ in range(9)]
    with pytest.raises(RefusedError) as caught:
        parsed(json.dumps(sampling(frames=secrets)).encode(), PARSED_SAMPLING)
    said = caught.value.detail
    assert "hunter2" not in said
    assert said.startswith("frames.0.frame_id: String should have at least 1 character; frames.0.predictions.0.score: ")
    assert said.endswith("; and 13 more"), "of 18 the first five are said"


def test_schemas_of_bodies_are_named_for_openapi() -> None:
    schemas = body_schemas()
    assert {"SamplingRequest", "FrameEmbedding", "DatasetRequest", "SampledFrame", "NamedScoring"} <= set(schemas)
    assert "#/components/schemas/SampledFrame" in json.dumps(schemas)
