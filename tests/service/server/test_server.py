"""The server, asked over a socket by plain `requests`: the protocol's paths, whoever asks and whatever is sent."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hmac
import itertools
import json
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from own_server import KEY, OwnServer, serving_here

from cval_torch.cli import main
from cval_torch.errors import InvalidInputError
from cval_torch.service.server.jobs import MOST_ATTEMPTS, JobRunner
from cval_torch.service.server.keys import KeyRing, read_key_file
from cval_torch.service.server.patterns import matching
from cval_torch.service.server.service import Service
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.work import Work
from cval_torch.service.server.worker import WorkerDiedError

OTHER = "test-key-two"
SAMPLING = "/on-premise/sampling/detection"


class Api:
    """A session that speaks for one key."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"user_api_key:{key}"

    def __call__(self, method: str, path: str, content: Any = None, **options: Any) -> requests.Response:
        return self.session.request(method, self.url + path, json=content, timeout=60, **options)

    def dataset(self) -> str:
        created: str = self("POST", "/dataset", {}).json()["dataset_id"]
        return created

    def result(self, task_id: str) -> dict[str, Any]:
        """The task, once it has ended."""
        for _ in range(1200):
            answer = self("GET", f"/result/{task_id}")
            task: dict[str, Any] = answer.json()
            if answer.status_code != 200 or task["result"] is not None:
                return task
            time.sleep(0.05)
        raise AssertionError(f"{task} did not end")


LIMITS = Limits(body_bytes=200_000, frames=50, predictions=200, vector_length=64, id_length=40, page=1000, datasets=400)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def url(data: Path) -> Iterator[str]:
    with serving_here(data, LIMITS, keys=[(None, KEY), ("second", OTHER)]) as url:
        yield url


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[Api]:
    api = Api(url)
    yield api
    api.session.close()


@pytest.fixture(scope="module")
def other(url: str) -> Iterator[Api]:
    other = Api(url, OTHER)
    yield other
    other.session.close()


def frames(*scores: float, name: str = "f") -> list[dict[str, Any]]:
    return [{"frame_id": f"{name}{row}", "predictions": [{"score": score}]} for row, score in enumerate(scores)]


def sampling(**fields: Any) -> dict[str, Any]:
    return {"num_of_samples": 2, "selection_strategy": "margin", "frames": frames(0.9, 0.6, 0.1), **fields}


def vector(*values: float, frame_id: str = "a", embedding_id: str = "0") -> dict[str, Any]:
    return {"frame_id": frame_id, "embeddings": [{"embedding_id": embedding_id, "embedding": list(values)}]}


# Who asks

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
            assert answer.status_code == 401, header
            assert KEY not in answer.text


def test_every_path_of_the_schema_but_healthz_was_asked_for_a_key(url: str) -> None:
    schema = requests.get(url.removesuffix("/api") + "/openapi.json", timeout=30).json()
    named = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    tried = {(method, path.replace("//", "/")) for method, path in PATHS}
    assert ("GET", "/healthz") in named
    assert len(named) - 1 == len(tried)


def test_two_keys_in_one_request_are_none(url: str) -> None:
    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    line = f"Authorization: user_api_key:{KEY}\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"GET /api/results HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{line}{line}\r\n".encode())
        assert b" 401 " in connection.recv(100)


def test_each_key_has_its_own_data(api: Api, other: Api) -> None:
    mine = api.dataset()
    assert api("POST", f"/dataset/{mine}/test/embeddings", [vector(1.0)]).status_code == 200
    task = api("POST", SAMPLING, sampling(dataset_id=mine)).json()["task_id"]
    for method, path, content in [
        ("GET", f"/dataset/{mine}", None),
        ("PUT", f"/dataset/{mine}", {"dataset_name": "stolen"}),
        ("DELETE", f"/dataset/{mine}", None),
        ("GET", f"/dataset/{mine}/test/embeddings", None),
        ("POST", f"/dataset/{mine}/test/embeddings", [vector(2.0)]),
        ("DELETE", f"/dataset/{mine}/test/embeddings", None),
        ("GET", f"/dataset/{mine}/test/embedding/a/0", None),
        ("DELETE", f"/dataset/{mine}/test/embedding/a/0", None),
        ("POST", SAMPLING, sampling(dataset_id=mine)),
        ("GET", f"/result/{task}", None),
    ]:
        assert other(method, path, content).status_code == 404, (method, path)
    assert mine not in other("GET", "/datasets/all").text
    assert task not in other("GET", "/results").text
    assert api("GET", f"/dataset/{mine}/test/embedding/a/0").json() == vector(1.0)


def test_keys_are_kept_as_digests_and_every_one_is_compared(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path for path in data.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    keys = KeyRing([(None, KEY), ("second", OTHER), (None, "third")], salt=b"s")
    assert KEY not in repr(vars(keys)) + repr(keys)
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert keys.owner_of(f"user_api_key:{OTHER}".encode()) == "second"
    assert len(compared) == 3
    assert all(len(a) == len(b) == 32 for a, b in compared)
    same = KeyRing([(None, KEY)], salt=b"s").owner_of(f"user_api_key:{KEY}".encode())
    assert same == keys.owner_of(f"user_api_key:{KEY}".encode())


@pytest.mark.parametrize(
    "keys", [[], [(None, "")], [(None, "a b")], [(None, "a\n")], [(None, "same"), ("x", "same")], [(None, "é")]]
)
def test_bad_keys_are_refused_unseen(keys: list[tuple[str | None, str]]) -> None:
    with pytest.raises(InvalidInputError, match="API key") as caught:
        KeyRing(keys, salt=b"s")
    assert "same" not in str(caught.value)


def test_a_key_file_names_owners(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# team\nalice  key-a\n\n  key-b\n")
    assert read_key_file(file) == [("alice", "key-a"), (None, "key-b")]
    file.write_text("a b c")
    with pytest.raises(InvalidInputError, match=r"line 1 of .* it has 3 words"):
        read_key_file(file)


# Datasets


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


def test_datasets_are_found_by_regular_expressions(other: Api) -> None:
    for name, description in [("cats-1", "x"), ("cats-2", "y"), ("dogs", None), (None, "x")]:
        other("POST", "/dataset", {"dataset_name": name, "dataset_description": description})

    def found(**query: str) -> list[str | None]:
        return [each["dataset_name"] for each in other("GET", "/datasets/all", params=query).json()]

    assert found() == ["cats-1", "cats-2", "dogs", None]
    assert found(dataset_name="cats") == ["cats-1", "cats-2"]
    assert found(dataset_name="^.*s$") == ["dogs"]
    assert found(dataset_name="cats|dogs", dataset_description="^x") == ["cats-1"]
    assert found(dataset_description="") == ["cats-1", "cats-2", "dogs", None]
    assert found(storage_config="cloud_storage_id") == ["cats-1", "cats-2", "dogs", None]
    for bad in ("(", "(a+)+$" * 50, "a{9999999999}"):
        assert other("GET", "/datasets/all", params={"dataset_name": bad}).status_code == 422


def test_a_regular_expression_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.service.server.patterns.SECONDS", 0.3)
    with pytest.raises(RefusedError, match="takes too long"):
        matching("(a+)+$", ["a" * 40 + "b"])
    assert matching("a.c", ["abc", None, "ac"]) == [True, False, False]


# Embeddings


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


def test_an_upload_is_stored_whole_or_not_at_all(api: Api) -> None:
    path = f"/dataset/{api.dataset()}/test/embeddings"
    answer = api("POST", path, [vector(1.0), vector(1e39, frame_id="b")])
    assert answer.status_code == 422
    assert "frame 'b' has a number that float32 cannot hold" in answer.json()["detail"]
    assert api("GET", path).json() == []
    api("POST", path, [vector(1.0)])
    assert api("DELETE", path).status_code == 200
    assert api("GET", path).json() == []


# Sampling


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


def test_the_oldest_finished_tasks_of_a_key_are_forgotten(tmp_path: Path) -> None:
    with serving_here(tmp_path, Limits(finished_tasks=3), keys=[(None, KEY), ("second", OTHER)]) as url:
        api, other = Api(url), Api(url, OTHER)
        kept = other("POST", SAMPLING, sampling()).json()
        tasks = [api("POST", SAMPLING, sampling()).json() for _ in range(5)]
        assert api("GET", "/results").json() == tasks[:1:-1]
        assert api("GET", f"/result/{tasks[1]['task_id']}").status_code == 404
        assert api("GET", f"/result/{tasks[2]['task_id']}").json() == tasks[2]
        assert other("GET", "/results").json() == [kept]
        api.session.close()
        other.session.close()


def test_tasks_that_wait_are_not_forgotten(tmp_path: Path) -> None:
    work = Work(tmp_path, Limits())
    waiting = work.store.add_task("me", None, start=1.0, stages="[]")
    done = [work.store.add_task("me", None, start=2.0, result=["a"], keep=1) for _ in range(3)]
    assert [task.id for task in work.store.tasks("me", None, 9)] == [done[-1].id, waiting.id]
    work.close()


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
        "`num_of_samples` or `num_of_boxes` must be given",
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


# Whatever is sent

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


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_compressed_bodies_are_refused(api: Api, encoding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    answer = api("POST", SAMPLING, data=bomb, headers={"Content-Encoding": encoding})
    assert answer.status_code == 415


def test_long_bodies_are_refused_however_they_come(api: Api) -> None:
    assert api("POST", SAMPLING, data=b" " * 200_001).status_code == 413
    pieces = (b" " * 50_000 for _ in range(100))
    with contextlib.suppress(requests.ConnectionError):  # it may hang up while more is being sent
        assert api("POST", SAMPLING, data=pieces).status_code == 413
    exactly = json.dumps(sampling()).encode().ljust(200_000)
    assert api("POST", SAMPLING, data=exactly).status_code == 200
    assert api("POST", SAMPLING, data=iter([exactly])).status_code == 200


def talk(url: str, *parts: bytes) -> bytes:
    """Raw bytes to the server, and what it says until it closes."""
    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        said = b""
        with contextlib.suppress(ConnectionError):  # it may hang up before it has read all
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                said += piece
    return said


def head(*lines: str) -> bytes:
    fixed = ["POST /api/dataset HTTP/1.1", "Host: x", "Connection: close", f"Authorization: user_api_key:{KEY}"]
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def test_broken_requests_leave_the_server_well(url: str) -> None:
    for said in (
        talk(url, head("Content-Length: 100"), b"{"),
        talk(url, head("Content-Length: -5")),
        talk(url, head("Content-Length: 99999999999999999999999")),
        talk(url, head("Transfer-Encoding: chunked"), b"zz\r\n"),
        talk(url, b"\x00\x01\x02\r\n\r\n"),
        talk(url, b"GET /" + b"x" * 200_000),
    ):
        assert b" 500 " not in said
    assert requests.get(url.removesuffix("/api") + "/healthz", timeout=30).json()["status"] == "ok"


def test_a_body_that_drips_is_given_up(tmp_path: Path) -> None:
    with serving_here(tmp_path, Limits(body_seconds=0.3)) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head("Content-Length: 1000") + b"{")
            assert b" 408 " in connection.recv(1000)


# Large requests, restarts, and ends that nobody wished for


def test_large_requests_become_tasks_and_large_bodies_go_through_files(tmp_path: Path) -> None:
    limits = Limits(answer_at_once=5, waiting_tasks=2)
    with serving_here(tmp_path, limits) as url:
        api = Api(url)
        small = api("POST", SAMPLING, sampling())
        assert small.json()["result"] == ["f1", "f0"]
        large = [api("POST", SAMPLING, sampling(frames=frames(*[0.9] * 6, 0.6))).json() for _ in range(2)]
        assert [task["result"] for task in large] == [None, None]
        assert [task["time_end"] for task in large] == [None, None]
        busy = api("POST", SAMPLING, sampling(frames=frames(*[0.9] * 7)))
        assert (busy.status_code, busy.headers["Retry-After"]) == (429, "5")
        # more than 1 MiB, without a declared length too: parsed by another process
        wide = json.dumps(sampling(frames=frames(0.5))).encode().ljust(2 << 20)
        assert api("POST", SAMPLING, data=wide).json()["result"] == ["f0"]
        assert api("POST", SAMPLING, data=iter([wide[: 1 << 20], wide[1 << 20 :]])).json()["result"] == ["f0"]
        assert api("POST", SAMPLING, data=b"[" * (2 << 20)).status_code == 422
        for task in large:
            assert api.result(task["task_id"])["result"] == ["f6", "f0"]
        failing = api(
            "POST", SAMPLING, sampling(frames=[{"frame_id": str(row)} for row in range(6)], use_null_detections=False)
        )
        assert api.result(failing.json()["task_id"])["detail"].endswith("frame '0' has no boxes")
        assert api("GET", f"/result/{failing.json()['task_id']}").status_code == 409
        assert api("GET", "/results").json()[0]["result"] is None
        api.session.close()
        assert list((tmp_path / "incoming").iterdir()) == []
    assert list((tmp_path / "tasks").iterdir()) == []


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_kill_9_loses_nothing_and_runs_again_what_ran(tmp_path: Path) -> None:
    """2000 frames in a tree of clusters: long enough to be in the middle of it when the server dies."""
    numbers = random.Random(0)
    names = [f"f{row}" for row in range(2000)]
    server = OwnServer(tmp_path, "--answer-at-once", "100")
    try:
        api = Api(server.url)
        dataset_id = api.dataset()
        vectors = [vector(*(numbers.random() for _ in range(4)), frame_id=name) for name in names]
        assert api("POST", f"/dataset/{dataset_id}/training/embeddings", vectors).status_code == 200
        boxes = [{"frame_id": name, "predictions": [{"score": 0.5, "embedding_id": "0"}]} for name in names]
        request = sampling(selection_strategy="hierarchical", dataset_id=dataset_id, frames=boxes, num_of_samples=50)
        tasks = [api("POST", SAMPLING, request).json()["task_id"] for _ in range(2)]
        wait_until(lambda: len(children_of(server.process.pid)) > 1)
        helpers = children_of(server.process.pid)
        with pytest.raises(InvalidInputError, match="in use by another server"):
            Service(tmp_path, [(None, KEY)], Limits())
        server.kill()
        wait_until(lambda: not any(map(is_running, helpers)))
        api.session.close()
    finally:
        server.stop()
    assert KEY not in server.log
    with serving_here(tmp_path) as url:
        api = Api(url)
        stored = api("GET", f"/dataset/{dataset_id}/training/embeddings/meta", params={"stop_limit": 3000}).json()
        assert [frame["frame_id"] for frame in stored["frames"]] == names
        results = [api.result(task)["result"] for task in tasks]
        api.session.close()
    assert results[0] == results[1]
    assert len(set(results[0]) & set(names)) == 50
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


class DyingWorker:
    """A worker whose process is killed whatever it is asked."""

    calls = 0

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        self.calls += 1
        raise WorkerDiedError("its process ended before it was done")

    def kill(self) -> None:
        return


def test_a_task_that_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    async def run(work: Work, worker: Any) -> None:
        runner = JobRunner(work, worker, Limits())
        runner.start()
        while work.store.count_waiting(None):
            await asyncio.sleep(0.01)
        await runner.stop()

    work = Work(tmp_path, Limits())
    task = work.store.add_task("me", None, start=1.0, stages="[]")
    worker = DyingWorker()
    asyncio.run(run(work, worker))
    ended = work.store.task(task.id)
    work.close()
    assert worker.calls == MOST_ATTEMPTS
    assert ended is not None
    assert (ended.state, ended.problem) == ("failed", "given up after 3 attempts: its process ended before it was done")


# The command line


def test_serving_needs_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CVAL_API_KEY", raising=False)
    assert main(["serve", "--data", str(tmp_path / "d")]) == 2
    assert "set CVAL_API_KEY, or give --api-key-file" in capsys.readouterr().err
    file = tmp_path / "keys"
    file.write_text("se\x07cret\n")
    assert main(["serve", "--data", str(tmp_path / "d"), "--api-key-file", str(file)]) == 2
    error = capsys.readouterr().err
    assert "API key number 1 must be" in error
    assert "cret" not in error
    assert main(["serve", "--data", str(tmp_path / "d"), "--api-key-file", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "d").exists()


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CVAL_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--data", str(tmp_path)]) == 2
    assert 'pip install "cval_torch[server]"' in capsys.readouterr().err


def test_every_limit_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for name in vars(Limits()):
        assert f"-{name.replace('_', '-')} N" in text
    assert KEY not in text
