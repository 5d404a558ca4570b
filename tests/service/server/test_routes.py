"""The protocol's paths, asked over a socket by plain `requests`."""

from __future__ import annotations

import itertools
import random
import socket
import struct

import pytest
import requests
from own_server import KEY
from server_calls import SAMPLING, Api, sampling, vector

PATHS = [
    ("GET", "/strategies"),
    ("POST", "/dataset"),
    ("PUT", "/dataset/x"),
    ("GET", "/dataset/x"),
    ("DELETE", "/dataset/x"),
    ("GET", "/datasets/all"),
    ("POST", "/dataset/x/training/embeddings"),
    ("GET", "/dataset/x/training/embeddings"),
    ("GET", "/dataset/x/training/embeddings/meta"),
    ("DELETE", "/dataset/x/training/embeddings"),
    ("GET", "/dataset/x/training/embedding/a/b"),
    ("GET", "/dataset/x/training//embedding/a/b"),
    ("DELETE", "/dataset/x/training/embedding/a/b"),
    ("POST", SAMPLING),
    ("GET", "/result/x"),
    ("DELETE", "/result/x"),
    ("GET", "/results"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nobody_gets_in_without_a_key(url: str, method: str, path: str) -> None:
    wrong = [None, b"", b"user_api_key:", b"user_api_key:wrong", KEY.encode(), b"Bearer " + KEY.encode()]
    wrong += [f"user_api_key:{KEY}x".encode(), f"user_api_key:{KEY[:-1]}".encode(), b"user_api_key:\xff\xfe\xe9"]
    with requests.Session() as session:
        session.trust_env = False
        for header in wrong:
            headers = {} if header is None else {"Authorization": header}
            answer = session.request(method, url + path, headers=headers, data=b"{not json", timeout=30)
            assert (answer.status_code, answer.headers["WWW-Authenticate"][:12]) == (401, "user_api_key"), header
            assert KEY not in answer.text


def test_every_path_of_the_schema_but_those_of_health_was_asked_for_a_key(url: str) -> None:
    schema = requests.get(url.removesuffix("/api") + "/openapi.json", timeout=30).json()
    named = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    tried = {(method, path.replace("//", "/")) for method, path in PATHS}
    free = {("GET", f"/{name}") for name in ("healthz", "livez", "readyz")}
    assert free < named
    assert len(named - free) == len(tried)


def test_two_keys_in_one_request_are_none(url: str) -> None:
    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    line = f"Authorization: user_api_key:{KEY}\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"GET /api/results HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{line}{line}\r\n".encode())
        assert b" 401 " in connection.recv(100)


def test_a_dataset_lives_and_ends(api: Api) -> None:
    empty = {"cloud_storage_id": None, "dataset_name_in_storage": None}
    made = api("POST", "/dataset", {"dataset_name": "n", "dataset_description": "", "storage_config": empty}).json()
    path = f"/dataset/{made['dataset_id']}"
    assert api("GET", path).json() == {**made, "dataset_name": "n", "dataset_description": ""}
    changed = api("PUT", path, {"dataset_name": None, "dataset_description": "new"}).json()
    assert changed == {**made, "dataset_name": "n", "dataset_description": "new"}
    assert changed in api("GET", "/datasets/all").json()
    assert api("DELETE", path).status_code == 200
    assert api("GET", path).status_code == 404
    assert api("DELETE", path).status_code == 404


def test_embeddings_are_kept_in_order_as_float32(api: Api) -> None:
    path = f"/dataset/{api.dataset()}/training/embeddings"
    sent = [vector(0.1, -1e-10, 3e8, frame_id=f"f{row}", embedding_id=f"e{row}") for row in (3, 1, 2)]
    meta = api("POST", path, sent)
    names = [{"frame_id": f"f{row}", "embeddings_quantity": 1, "embeddings": [f"e{row}"]} for row in (3, 1, 2)]
    assert meta.json() == {"frames_quantity": 3, "frames": names}
    assert api("GET", path).json() == sent
    assert api("GET", path, params={"start_limit": 1, "stop_limit": 2}).json() == sent[1:2]
    assert api("GET", path + "/meta", params={"start_limit": 1}).json()["frames"] == names[1:]
    assert api("GET", path, params={"start_limit": 5, "stop_limit": 2}).json() == []
    # one is replaced where it is, and one joins its frame
    again = {"frame_id": "f1", "embeddings": [{"embedding_id": n, "embedding": [7.0]} for n in ("new", "e1")]}
    api("POST", path, [again])
    stored = api("GET", path).json()
    assert [frame["frame_id"] for frame in stored] == ["f3", "f1", "f2"]
    assert stored[1]["embeddings"] == again["embeddings"][::-1]
    one = struct.unpack("<f", struct.pack("<f", stored[0]["embeddings"][0]["embedding"][0]))[0]
    assert one == struct.unpack("<f", struct.pack("<f", 0.1))[0]


@pytest.mark.parametrize("slash", ["/", "//"])
@pytest.mark.parametrize("frame_id", ["a", "a/b", "../x", "é %2F?#", "</script>", "a//b", "all"])
def test_one_embedding_by_any_id(api: Api, slash: str, frame_id: str) -> None:
    base = f"/dataset/{api.dataset()}/validation"
    embeddings = [{"embedding_id": name, "embedding": [1.0]} for name in ("x/y", "z")]
    api("POST", f"{base}/embeddings", [{"frame_id": frame_id, "embeddings": embeddings}])
    quoted = requests.utils.quote(frame_id, safe="")
    got = api("GET", f"{base}{slash}embedding/{quoted}/x%2Fy")
    assert got.json() == {"frame_id": frame_id, "embeddings": embeddings[:1]}
    assert api("DELETE", f"{base}/embedding/{quoted}/x%2Fy").status_code == 200
    assert api("GET", f"{base}{slash}embedding/{quoted}/x%2Fy").status_code == 404
    assert api("GET", f"{base}/embeddings").json() == [{"frame_id": frame_id, "embeddings": embeddings[1:]}]
    assert api("DELETE", f"{base}/embedding/{quoted}/all").status_code == 200
    assert api("GET", f"{base}/embeddings").json() == []
    assert api("DELETE", f"{base}/embedding/{quoted}/all").status_code == 404


def test_the_polarity_is_that_of_the_live_service(api: Api) -> None:
    """`margin`, `min`, `ascending`: by 1 - |2s - 1| of each frame's surest box, the surest frame first."""
    numbers = random.Random(0)
    boxes = {f"frame {row}": [numbers.random() for _ in range(10)] for row in range(10)}
    expected = sorted(boxes, key=lambda name: min(1 - abs(2 * score - 1) for score in boxes[name]))
    request = {
        "num_of_samples": 200,
        "dataset_id": None,
        "use_null_detections": True,
        "bbox_selection_policy": "min",
        "selection_strategy": "margin",
        "sort_strategy": "ascending",
        "probs_weights": None,
        "frames": [
            {
                "frame_id": name,
                "predictions": [
                    {"category_id": "1", "score": score, "embedding_id": None, "probabilities": None}
                    for score in scores
                ],
            }
            for name, scores in boxes.items()
        ],
    }
    result = api("POST", SAMPLING, request).json()
    assert result["result"] == expected
    assert result["time_start"] <= result["time_end"]
    fields = {name: result[name] for name in ("type_of_task", "action", "dataset_id", "weights", "queue_info")}
    assert fields == {
        "type_of_task": "detection",
        "action": "sampling",
        "dataset_id": None,
        "weights": None,
        "queue_info": None,
    }
    assert api("GET", f"/result/{result['task_id']}").json() == result


def test_results_are_listed_newest_first(other: Api) -> None:
    dataset_id = other.dataset()
    tasks = [other("POST", SAMPLING, sampling(dataset_id=each)).json() for each in (None, dataset_id, None)]
    assert other("GET", "/results").json() == tasks[::-1]
    assert other("GET", "/results", params={"limit": 1}).json() == tasks[2:]
    assert other("GET", "/results", params={"dataset_id": dataset_id}).json() == [tasks[1]]
    assert other("GET", "/results", params={"dataset_id": "none"}).json() == []


def test_embeddings_are_found_in_any_part_and_training_leads(api: Api) -> None:
    dataset_id = api.dataset()
    names = [f"f{row}" for row in range(4)]
    ids = {"f0": "training", "f1": "test", "f2": "validation", "f3": "training"}
    for name, part in ids.items():
        near = [1.0, 0.0] if name in ("f0", "f1") else [0.0, 1.0]
        api("POST", f"/dataset/{dataset_id}/{part}/embeddings", [vector(*near, frame_id=name)])
    # were it read, this one would put f0 beside f2 and f3
    api("POST", f"/dataset/{dataset_id}/test/embeddings", [vector(0.0, 1.0, frame_id="f0")])
    boxes = [{"frame_id": name, "predictions": [{"score": 0.5, "embedding_id": "0"}]} for name in names]
    request = sampling(selection_strategy="clustering", dataset_id=dataset_id, frames=boxes)
    chosen = api("POST", SAMPLING, request).json()["result"]
    assert {tuple(sorted(chosen))} <= set(itertools.product(["f0", "f1"], ["f2", "f3"]))


def test_what_is_answered_at_once_is_a_matter_of_cost(api: Api) -> None:
    """To compare frames with each other takes far longer than to score them, however few boxes they have."""
    dataset_id = api.dataset()
    names = [f"f{row}" for row in range(45)]
    vectors = [vector(row, 1.0, frame_id=name) for row, name in enumerate(names)]
    assert api("POST", f"/dataset/{dataset_id}/training/embeddings", vectors).status_code == 200
    boxes = [{"frame_id": name, "predictions": [{"score": 0.5, "embedding_id": "0"}]} for name in names]
    for fields, count, waits in [
        ({"selection_strategy": "margin"}, 45, False),
        ({"selection_strategy": "hierarchical"}, 40, False),
        ({"selection_strategy": "hierarchical"}, 41, True),
        ({"selection_strategy": "margin", "min_distance": 0.1}, 41, True),
    ]:
        task = api("POST", SAMPLING, sampling(dataset_id=dataset_id, frames=boxes[:count], **fields)).json()
        assert (task["result"] is None) is waits, fields
        assert api("DELETE", f"/result/{task['task_id']}").status_code == 200
