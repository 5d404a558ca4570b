"""What the server keeps on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_server import KEY, serving_here
from server_calls import OTHER, SAMPLING, Api, sampling, vector

from cval_torch.service.protocol import Dataset, DatasetRequest
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.store import Store, new_id


def test_an_upload_is_stored_whole_or_not_at_all(api: Api) -> None:
    path = f"/dataset/{api.dataset()}/test/embeddings"
    answer = api("POST", path, [vector(1.0), vector(1e39, frame_id="b")])
    assert answer.status_code == 422
    assert "frame 'b' has a number that float32 cannot hold" in answer.json()["detail"]
    assert api("GET", path).json() == []
    api("POST", path, [vector(1.0)])
    assert api("DELETE", path).status_code == 200
    assert api("GET", path).json() == []


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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "a.sqlite3")
    yield store
    store.close()


def made(store: Store, owner: str = "me", **fields: Any) -> str:
    return store.create_dataset(owner, DatasetRequest(**fields))


def test_datasets_belong_to_their_owners(store: Store) -> None:
    first, second, theirs = made(store, dataset_name="a"), made(store), made(store, "you", dataset_name="a")
    assert [dataset.dataset_id for dataset in store.datasets("me")] == [first, second]
    assert (store.count_datasets("me"), store.count_datasets("you"), store.count_datasets("they")) == (2, 1, 0)
    assert store.dataset("you", first) is None
    store.update_dataset(first, DatasetRequest(dataset_description="d"))
    assert store.dataset("me", first) == Dataset(dataset_id=first, dataset_name="a", dataset_description="d")
    store.add_embeddings(first, "test", [("f", [("0", b"1234")])])
    store.delete_dataset(first)
    assert store.dataset("me", first) is None
    assert store.embedding(first, "test", "f", "0") is None
    assert store.dataset("you", theirs) is not None


names = st.sampled_from(["a", "b", "é", ""])
uploads = st.lists(
    st.tuples(names, st.lists(st.tuples(names, st.binary(min_size=1, max_size=4)), max_size=3)), max_size=5
)


@given(steps=st.lists(st.tuples(st.sampled_from(["training", "test"]), uploads), max_size=4), start=st.integers(0, 3),
       stop=st.integers(0, 9), gone=st.tuples(names, st.none() | names))  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_embeddings_against_dicts(steps: list[Any], start: int, stop: int, gone: tuple[str, str | None]) -> None:
    """Frames and vectors stay in the order in which they first came; what comes again takes the old one's place."""
    store = Store(":memory:")  # type: ignore[arg-type]
    dataset, other = made(store), made(store)
    naive: dict[str, dict[str, dict[str, bytes]]] = {"training": {}, "test": {}}
    store.add_embeddings(other, "training", [("a", [("0", b"other")])])
    for part, frames in steps:
        store.add_embeddings(dataset, part, frames)
        for frame_id, vectors in frames:
            naive[part].setdefault(frame_id, {}).update(vectors)

    def held(part: str) -> list[tuple[str, list[tuple[str, bytes]]]]:
        return [(frame_id, list(vectors.items())) for frame_id, vectors in naive[part].items()]

    for part in naive:
        assert store.embeddings(dataset, part, start, stop, vectors=True) == held(part)[start:stop]
        bare = [(frame_id, [(name, b"") for name, _ in vectors]) for frame_id, vectors in held(part)]
        assert store.embeddings(dataset, part, 0, 99, vectors=False) == bare
    found: dict[tuple[str, str], bytes] = {}
    for frame_id in ("a", "b", "nobody"):
        for name, content in store.vectors_of(dataset, frame_id, {"a", "é", "x"}).items():
            found[frame_id, name] = content
    assert found == {
        (frame_id, name): content
        for part in ("test", "training")  # training leads
        for frame_id in ("a", "b")
        for name, content in naive[part].get(frame_id, {}).items()
        if name in ("a", "é")  # those that are asked for
    }
    frame_id, name = gone
    there = frame_id in naive["test"] and (name is None or name in naive["test"][frame_id])
    assert store.delete_embedding(dataset, "test", frame_id, name) is there
    if there:
        if name is not None:
            del naive["test"][frame_id][name]
        if name is None or not naive["test"][frame_id]:
            del naive["test"][frame_id]
    else:
        naive["test"] = {key: value for key, value in naive["test"].items() if value or key != frame_id or name is None}
    assert store.embeddings(dataset, "test", 0, 99, vectors=True) == held("test")
    store.delete_embeddings(dataset, "training")
    assert store.embeddings(dataset, "training", 0, 99, vectors=True) == []
    assert store.embedding(other, "training", "a", "0") == b"other"
    store.close()


def test_an_upload_that_breaks_leaves_nothing(store: Store) -> None:
    def frames() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
        yield "a", [("0", b"1234")]
        raise OSError("gone")

    dataset = made(store)
    with pytest.raises(OSError, match="gone"):
        store.add_embeddings(dataset, "test", frames())
    assert store.embeddings(dataset, "test", 0, 9, vectors=True) == []


def test_a_task_goes_through_its_states(store: Store) -> None:
    first = store.add_task("me", None, start=1.0, stages="[1]")
    second = store.add_task("me", "d", start=2.0, stages="[2]", task_id="second")
    done = store.add_task("me", "d", start=3.0, result=["f"])
    assert (first.state, second.id, done.state, done.result) == ("queued", "second", "done", ["f"])
    assert (store.count_waiting("me"), store.count_waiting("you"), store.count_waiting(None)) == (2, 0, 2)
    assert [store.claim_task() for _ in range(3)] == [first.id, "second", None], "the longest waiting first"
    running = store.task(first.id)
    assert running is not None
    assert (running.state, running.attempts, running.stages) == ("running", 1, "[1]")
    assert store.count_waiting("me") == 2
    store.requeue()
    store.release_task("second")
    assert store.claim_task() == first.id
    store.finish_task(first.id, result=["b", "a"])
    store.finish_task("second", problem="too much")
    ended, failed = store.task(first.id, "me"), store.task("second")
    assert ended is not None
    assert failed is not None
    assert (ended.state, ended.result, ended.attempts) == ("done", ["b", "a"], 2)
    assert (failed.state, failed.problem, failed.result) == ("failed", "too much", None)
    assert ended.payload()["result"] == ["b", "a"]
    assert ended.payload()["time_end"] >= 1.0
    assert store.task(first.id, "you") is None
    assert [task.id for task in store.tasks("me", None, 2)] == [done.id, "second"]
    assert [task.id for task in store.tasks("me", "d", 9)] == [done.id, "second"]


def test_two_stores_on_one_file_and_one_salt(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a.sqlite3"), Store(tmp_path / "a.sqlite3")
    task = first.add_task("me", None, start=1.0, stages="[]")
    assert second.claim_task() == task.id
    assert first.claim_task() is None
    assert first.salt() == second.salt()
    assert len(first.salt()) == 32
    first.close()
    second.close()
    other = Store(tmp_path / "b.sqlite3")
    third = Store(tmp_path / "a.sqlite3")
    assert other.salt() != third.salt()
    assert third.task(task.id) is not None, "it is on the disk"
    other.close()
    third.close()


def test_ids_are_not_guessed() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 36 for each in ids)
