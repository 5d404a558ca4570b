"""What is done with a request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cval_torch.service.protocol import DatasetRequest
from cval_torch.service.server import incoming, splitting
from cval_torch.service.server.answers import embeddings_answer
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.work import Work


def asked(work: Work, owner: str, sent: Any) -> dict[str, Any]:
    """What a request is answered."""
    answer, waits = work.take_sampling(owner, sent)
    task: dict[str, Any] = json.loads(answer)
    assert waits is (task["result"] is None)
    return task


def newest(work: Work) -> list[str]:
    return work.tasks.newest("me", None, 9)


def claimed(work: Work) -> str | None:
    task = work.tasks.claim({})
    return None if task is None else task.id


def stored_in(work: Work, dataset: str) -> Any:
    store = work.store
    return json.loads(b"".join(embeddings_answer(store, store.frames(dataset, "test", 0, 99))))


def test_tasks_that_wait_are_not_forgotten(tmp_path: Path) -> None:
    work = Work(tmp_path, Limits())
    waiting = work.tasks.add("me", None, start=1.0, stages="[]")
    done = [work.tasks.add("me", None, start=2.0, result=["a"], keep=1) for _ in range(3)]
    assert newest(work) == [done[-1].id, waiting.id]
    work.close()


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    work = Work(
        tmp_path, Limits(answer_at_once=3, waiting_tasks=2, vector_length=2, id_length=3, predictions=9, frames=5)
    )
    yield work
    work.close()


def body(count: int = 3, **fields: Any) -> bytes:
    """Frame `f0` is the surest; each has one box."""
    scores = [0.9 - 0.1 * row for row in range(count)]
    payload = [{"frame_id": f"f{row}", "predictions": [{"score": score}]} for row, score in enumerate(scores)]
    return json.dumps({"num_of_samples": 2, "selection_strategy": "least", "frames": payload, **fields}).encode()


def test_a_small_request_is_answered_and_kept(work: Work) -> None:
    answer = asked(work, "me", body())
    assert answer["result"] == ["f2", "f1"]
    kept = work.tasks.get(answer["task_id"], "me")
    assert kept is not None
    assert (kept.state, kept.result) == ("done", ["f2", "f1"])
    work.run_task(kept.id)
    assert work.tasks.get(kept.id) == kept, "what is done is not done again"


def test_a_large_request_is_a_task_until_it_is_run(work: Work, tmp_path: Path) -> None:
    answer = asked(work, "me", body(4, sort_strategy="ascending"))
    assert (answer["result"], answer["time_end"]) == (None, None)
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == [f"{answer['task_id']}.pool"]
    assert claimed(work) == answer["task_id"]
    work.run_task(answer["task_id"])
    ended = work.tasks.get(answer["task_id"])
    assert ended is not None
    assert (ended.state, ended.result) == ("done", ["f0", "f1"])
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_task_whose_frames_are_gone_or_damaged_fails_and_says_why(work: Work, tmp_path: Path) -> None:
    gone, damaged = (asked(work, "me", body(4))["task_id"] for _ in range(2))
    (tmp_path / "tasks" / f"{gone}.pool").unlink()
    (tmp_path / "tasks" / f"{damaged}.pool").write_bytes(b"no pool")
    for task_id, problem in ((gone, "FileNotFoundError: "), (damaged, "InvalidInputError: .* is not a saved Pool")):
        work.run_task(task_id)
        ended = work.tasks.get(task_id)
        assert ended is not None
        assert ended.state == "failed"
        assert re.match(problem, str(ended.problem))
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_stage_that_scored_before_weighs_the_frames(work: Work) -> None:
    """`scored_by` is a stage before: of two that look alike the less sure one is taken."""
    dataset = work.store.create_dataset("me", DatasetRequest())
    looks = {"f0": [1.0, 0.0], "f1": [1.0, 0.0], "f2": [0.0, 1.0]}
    upload = [
        {"frame_id": name, "embeddings": [{"embedding_id": "0", "embedding": look}]} for name, look in looks.items()
    ]
    work.store_embeddings(dataset, "training", json.dumps(upload).encode())
    boxes = [{"frame_id": f"f{row}", "predictions": [{"score": score, "embedding_id": "0"}]}
             for row, score in enumerate([0.9, 0.6, 0.7])]  # fmt: skip
    request = {"frames": boxes, "dataset_id": dataset, "selection_strategy": "weighted_kmeans"}
    found = {
        name: asked(work, "me", body(**request, scored_by={"selection_strategy": "least", "sort_strategy": name}))
        for name in ("descending", "ascending")
    }
    assert found["descending"]["result"] == ["f1", "f2"]
    assert set(found["ascending"]["result"]) == {"f0", "f2"}


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (body(6), 413, "at most 5 frames are taken; got 6"),
        (body(selection_strategy="class_gain"), 422, "'class_gain' needs the `dataset_id` of the embeddings"),
        (body(frames=[{"frame_id": "a", "labeled": True}]), 422, "at least one frame that is not `labeled`"),
        (body(dataset_id="none"), 404, "there is no dataset 'none'"),
        (body(selection_strategy="clustering"), 422, "'clustering' needs the `dataset_id` of the embeddings"),
        (b"{", 422, "Invalid JSON"),
    ],
)
def test_what_is_not_taken_leaves_no_task(work: Work, sent: bytes, status: int, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as caught:
        asked(work, "me", sent)
    assert caught.value.status == status
    assert newest(work) == []


def test_the_tasks_of_a_key_that_wait_take_so_many_bytes(tmp_path: Path) -> None:
    work = Work(tmp_path, Limits(answer_at_once=3, stored_bytes=3000))
    taken = [asked(work, "me", body(4))["task_id"]]
    size = work.pool_path(taken[0]).stat().st_size
    taken += [asked(work, "me", body(4))["task_id"] for _ in range(3000 // size - 1)]
    with pytest.raises(RefusedError, match="the tasks of a key that wait have at most 3000 bytes") as caught:
        asked(work, "me", body(4))
    assert caught.value.status == 507
    assert len(list((tmp_path / "tasks").iterdir())) == len(taken), "what is not taken leaves nothing"
    assert asked(work, "you", body(4))["result"] is None
    work.run_task(taken[0])
    assert asked(work, "me", body(4))["result"] is None, "what has ended does not count"
    work.close()


def test_a_task_that_an_earlier_version_took_is_run(work: Work) -> None:
    """Its stages were all that was written down of it."""
    stages = json.dumps([{"selection_strategy": "least", "num_of_samples": 2}])
    taken = asked(work, "me", body(4))["task_id"]
    work.tasks._database._connection.execute("UPDATE tasks SET stages = ? WHERE id = ?", (stages, taken))
    work.run_task(taken)
    task = work.tasks.get(taken)
    assert task is not None
    assert task.result == ["f3", "f2"]


def test_fields_that_nobody_knows_are_passed_over(work: Work) -> None:
    assert asked(work, "me", body(of_a_later_protocol=3))["result"] == ["f2", "f1"]


def test_a_key_has_so_many_tasks_waiting_and_no_more(work: Work) -> None:
    for _ in range(2):
        asked(work, "me", body(4))
    with pytest.raises(RefusedError, match="2 tasks of this key are waiting already") as caught:
        asked(work, "me", body(4))
    assert caught.value.status == 429
    assert asked(work, "me", body())["result"] == ["f2", "f1"], "small ones are answered all the same"
    assert asked(work, "you", body(4))["result"] is None


@pytest.mark.parametrize(
    ("frame_id", "embedding_id", "vector", "message"),
    [
        ("a", "0", [1.0, 2.0, 3.0], "at most 2 numbers in an embedding of frame 'a' are taken; got 3"),
        ("a", "long", [1.0], "at most 3 characters of an embedding id of frame 'a' are taken; got 4"),
        ("a", "0", [1e39], "an embedding of frame 'a' has a number that float32 cannot hold"),
    ],
)
def test_embeddings_within_bounds(
    work: Work, frame_id: str, embedding_id: str, vector: list[float], message: str
) -> None:
    dataset = work.store.create_dataset("me", DatasetRequest())
    good = {"frame_id": "b", "embeddings": [{"embedding_id": "0", "embedding": [0.1, -0.0]}]}
    bad = {"frame_id": frame_id, "embeddings": [{"embedding_id": embedding_id, "embedding": vector}]}
    with pytest.raises(RefusedError, match=message):
        work.store_embeddings(dataset, "test", json.dumps([good, bad]).encode())
    assert stored_in(work, dataset) == []
    answer = work.store_embeddings(dataset, "test", json.dumps([good]).encode())
    assert json.loads(answer) == {
        "frames_quantity": 1,
        "frames": [{"frame_id": "b", "embeddings_quantity": 1, "embeddings": ["0"]}],
    }
    (stored,) = stored_in(work, dataset)
    assert stored == good, "float32 in short decimals: as it was sent"


def verdict(work: Work, sent: Any) -> Any:
    """What a request is answered, at once or as a task, or why it is not."""
    try:
        answer = asked(work, "me", sent)
    except RefusedError as refusal:
        return refusal.status, refusal.detail
    if answer["result"] is not None:
        return answer["result"]
    work.run_task(answer["task_id"])
    ended = work.tasks.get(answer["task_id"])
    assert ended is not None
    return "a task", ended.result, ended.problem


def frame(frame_id: str, *boxes: dict[str, Any]) -> dict[str, Any]:
    return {"frame_id": frame_id, "predictions": list(boxes)}


REQUESTS = {
    "a small one": {},
    "a large one": {"frames": [frame(f"f{row}", {"score": 0.5}) for row in range(4)]},
    "no frames": {"frames": []},
    "no frames, and an unknown strategy": {"frames": [], "selection_strategy": "best"},
    "an unknown strategy": {"selection_strategy": "best"},
    "an unknown strategy before": {"scored_by": {"selection_strategy": "best"}},
    "an unknown strategy, and a score that is none": {
        "selection_strategy": "best", "frames": [frame("a", {"score": 2})]},
    "a dataset that is not there": {"dataset_id": "nope", "selection_strategy": "k_center"},
    "too many frames": {"frames": [frame(f"f{row}") for row in range(6)]},
    "too many boxes": {"frames": [frame("a", *[{"score": 0.5}] * 10)]},
    "too many classes": {"frames": [frame("a", {"score": 0.5, "probabilities": [0.1] * 3})]},
    "too many of all": {"frames": [frame(f"f{row}", *[{"probabilities": [0.1] * 3}] * 2) for row in range(6)]},
    "diversity without a dataset": {"selection_strategy": "k_center"},
    "a distance without a dataset": {"min_distance": 0.5},
    "a score that is missing": {"frames": [frame("a", {"score": 0.5}), frame("b", {})]},
    "probabilities of two lengths": {
        "frames": [frame("a", {"score": 0.5, "probabilities": [1]}, {"score": 0.5, "probabilities": [0.5, 0.5]})]},
    "a probability above 1": {"frames": [frame("a", {"score": 0.5, "probabilities": [0.5, 1.5]})]},
    "a probability that float32 cannot hold": {"frames": [frame("a", {"score": 0.5, "probabilities": [1e300, 0]})]},
    "an id twice": {"frames": [frame("a", {"score": 0.5})] * 2},
    "frames without boxes": {"frames": [frame("a"), {"frame_id": "b"}], "use_null_detections": False},
    "weights that do not fit": {"selection_strategy": "entropy", "probs_weights": [1.0],
                                "frames": [frame("a", {"score": 0.5, "probabilities": [0.5, 0.5]})]},
    "embeddings": {"selection_strategy": "k_center", "dataset_id": "stored", "frames": [
        frame("a", {"score": 0.5, "embedding_id": "0"}), frame("b", {"category_id": -1, "embedding_id": "0"})]},
    "an embedding that is not there": {"selection_strategy": "k_center", "dataset_id": "stored", "frames": [
        frame("a", {"score": 0.5, "embedding_id": "1"})]},
    "an embedding of a frame that is not there": {"selection_strategy": "k_center", "dataset_id": "stored", "frames": [
        frame("c", {"category_id": -1, "embedding_id": "0"})]},
    "a distance": {"min_distance": 0.5, "dataset_id": "stored", "frames": [
        frame("a", {"score": 0.5, "embedding_id": "0"}), frame("b", {"score": 0.5, "embedding_id": "0"})]},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the stage")
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_in_memory_and_in_a_file_is_answered_alike(work: Work, tmp_path: Path, name: str) -> None:
    dataset = work.store.create_dataset("me", DatasetRequest())
    vectors = [{"frame_id": name, "embeddings": [{"embedding_id": "0", "embedding": [1.0, 0.5]}]} for name in "ab"]
    work.store_embeddings(dataset, "test", json.dumps(vectors).encode())
    fields = {key: dataset if value == "stored" else value for key, value in REQUESTS[name].items()}
    text = body(**fields)
    path = tmp_path / "body"
    path.write_bytes(text)
    in_memory = verdict(work, text)
    for run in (1 << 18, 60, 1):
        with mock.patch.object(splitting, "RUN", run), mock.patch.object(incoming, "RUN", run):
            assert verdict(work, path) == in_memory


def test_an_upload_in_a_file_is_stored_as_one_in_memory(work: Work, tmp_path: Path) -> None:
    """All of it in one transaction, also where its frames come in parts, and none of it if its end is wrong."""
    frames = [
        {"frame_id": name, "embeddings": [{"embedding_id": str(n), "embedding": [n / 7, -n]} for n in range(count)]}
        for name, count in (("a", 3), ("b", 0), ("c", 40))
    ]
    text = json.dumps(frames).encode()
    path = tmp_path / "body"
    for content in (text, text[:-3], text + b"]", text.replace(b"-39", b"-1e39"), text.replace(b'"39"', b'"long"')):
        held = []
        path.write_bytes(content)
        for sent in (content, path):
            dataset = work.store.create_dataset("me", DatasetRequest())
            with mock.patch.object(splitting, "RUN", 100), mock.patch.object(incoming, "RUN", 100):
                try:
                    said = work.store_embeddings(dataset, "test", sent).decode()
                except RefusedError as refusal:
                    said = "Invalid JSON" if refusal.detail.startswith("Invalid JSON") else refusal.detail
            held.append((said, stored_in(work, dataset)))
        assert held[0] == held[1]
        assert bool(held[0][1]) is (content == text)
    assert [path.name for path in tmp_path.iterdir() if path.is_file() and "sqlite" not in path.name] == ["body"]
