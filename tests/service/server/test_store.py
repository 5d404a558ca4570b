"""What the server keeps on the disk."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_server import KEY, serving_here
from server_calls import OTHER, SAMPLING, Api, sampling, vector

from cval_torch.service.protocol import Dataset, DatasetRequest
from cval_torch.service.server.database import Database
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.store import Store


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
    database = Database(tmp_path / "a.sqlite3")
    yield Store(database)
    database.close()


def held_in(store: Store, dataset_id: str, part: str, start: int = 0, stop: int = 99) -> list[tuple[str, Any]]:
    """Frames of a part, each with its (embedding id, vector) pairs."""
    found = store.frames(dataset_id, part, start, stop)
    return [(frame_id, [row[1:] for row in store.vectors(key, 0, 99)]) for key, frame_id in found]


def made(store: Store, owner: str = "me", **fields: Any) -> str:
    return store.create_dataset(owner, DatasetRequest(**fields))


def test_datasets_belong_to_their_owners(store: Store) -> None:
    first, second, theirs = made(store, dataset_name="a"), made(store), made(store, "you", dataset_name="a")
    assert [dataset.dataset_id for dataset in store.datasets("me")] == [first, second]
    with pytest.raises(RefusedError, match="a key has at most 2 datasets") as caught:
        store.create_dataset("me", DatasetRequest(), most=2)
    assert caught.value.status == 409
    assert store.dataset("you", first) is None
    store.update_dataset(first, DatasetRequest(dataset_description="d"))
    assert store.dataset("me", first) == Dataset(dataset_id=first, dataset_name="a", dataset_description="d")
    store.add_embeddings(first, "test", [("f", [("0", b"1234")])])
    store.delete_dataset(first)
    assert store.dataset("me", first) is None
    assert store.embedding(first, "test", "f", "0") is None
    assert store.dataset("you", theirs) is not None


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One for all examples, each of which has datasets of its own."""
    database = Database(tmp_path_factory.mktemp("examples") / "a.sqlite3")
    database._connection.execute("PRAGMA synchronous = OFF")
    yield database
    database.close()


names = st.sampled_from(["a", "b", "é", ""])
uploads = st.lists(
    st.tuples(names, st.lists(st.tuples(names, st.binary(min_size=1, max_size=4)), max_size=3)), max_size=5
)


@given(
    portion=st.sampled_from([1, 2, 1000]),
    steps=st.lists(st.tuples(st.sampled_from(["training", "test"]), uploads), max_size=4),
    start=st.integers(0, 3),
    stop=st.integers(0, 9),
    gone=st.tuples(names, st.none() | names),
)
@settings(deadline=None, max_examples=40)
def test_embeddings_against_dicts(
    database: Database, portion: int, steps: list[Any], start: int, stop: int, gone: tuple[str, str | None]
) -> None:
    """Frames and vectors stay in the order in which they first came; what comes again takes the old one's place."""
    store = Store(database)
    dataset, other = made(store), made(store)
    naive: dict[str, dict[str, dict[str, bytes]]] = {"training": {}, "test": {}}
    store.add_embeddings(other, "training", [("a", [("0", b"other")])])
    for part, frames in steps:
        with mock.patch("cval_torch.service.server.store.PORTION_FRAMES", portion):
            store.add_embeddings(dataset, part, frames)
        for frame_id, vectors in frames:
            naive[part].setdefault(frame_id, {}).update(vectors)

    def held(part: str) -> list[tuple[str, list[tuple[str, bytes]]]]:
        return [(frame_id, list(vectors.items())) for frame_id, vectors in naive[part].items()]

    for part in naive:
        assert held_in(store, dataset, part, start, stop) == held(part)[start:stop]
        keys = [key for key, _ in store.frames(dataset, part, 0, 99)]
        assert [store.names(key) for key in keys] == [[name for name, _ in vectors] for _, vectors in held(part)]
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
    assert held_in(store, dataset, "test") == held("test")
    store.delete_embeddings(dataset, "training")
    assert held_in(store, dataset, "training") == []
    assert store.embedding(other, "training", "a", "0") == b"other"
    size = sum(len(vector) for vectors in naive["test"].values() for vector in vectors.values())
    sizes = database.read("SELECT id, bytes FROM datasets WHERE id IN (?, ?)", dataset, other)
    assert dict(sizes) == {dataset: size, other: 5}


def test_an_upload_that_breaks_leaves_nothing(store: Store) -> None:
    def frames() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
        yield "a", [("0", b"1234")]
        raise OSError("gone")

    dataset = made(store)
    with pytest.raises(OSError, match="gone"):
        store.add_embeddings(dataset, "test", frames())
    assert held_in(store, dataset, "test") == []


def whenever_it_pauses(monkeypatch: pytest.MonkeyPatch, act: Any) -> list[Any]:
    """Do something between two portions; what came of it."""
    seen: list[Any] = []
    monkeypatch.setattr("cval_torch.service.server.store.PORTION_FRAMES", 30)
    monkeypatch.setattr("cval_torch.service.server.store.pause", lambda: seen.append(act()))
    return seen


def test_a_large_upload_and_a_large_deletion_leave_others_their_turns(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees half of an upload. Those that are replaced keep their places."""
    path = f"/dataset/{api.dataset()}/training/embeddings"

    def look() -> tuple[int, int]:
        return api("POST", "/dataset", {}).status_code, len(api("GET", path).json())

    for value in (0.0, 1.0):
        seen = whenever_it_pauses(monkeypatch, look)
        sent = [vector(value, float(row), frame_id=f"f{row}") for row in range(50)]
        before = len(api("GET", path).json())
        assert api("POST", path, sent).status_code == 200
        assert seen == [(200, before)] * 2
        assert api("GET", path).json() == sent
    api("POST", path, [vector(2.0, frame_id=f"g{row}") for row in range(50)])
    seen = whenever_it_pauses(monkeypatch, look)
    assert api("DELETE", path).status_code == 200
    assert seen == [(200, 36)], "64 frames at first"
    assert api("GET", path).json() == []


def test_an_upload_whose_dataset_is_deleted_meanwhile_is_told_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset_id = api.dataset()
    whenever_it_pauses(monkeypatch, lambda: api("DELETE", f"/dataset/{dataset_id}"))
    sent = [vector(1.0, frame_id=f"f{row}") for row in range(50)]
    answer = api("POST", f"/dataset/{dataset_id}/test/embeddings", sent)
    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        f"dataset {dataset_id!r} was deleted during the upload",
    )


def test_a_deleted_dataset_leaves_nothing(api: Api, data: Path) -> None:
    dataset_id = api.dataset()
    api("POST", f"/dataset/{dataset_id}/test/embeddings", [vector(1.0, frame_id=f"gone{row}") for row in range(3)])
    with contextlib.closing(sqlite3.connect(data / "cval.sqlite3")) as connection:
        rows = "SELECT count(*) FROM embeddings WHERE frame NOT IN (SELECT key FROM frames)"
        before = connection.execute("SELECT count(*) FROM embeddings").fetchone()[0]
        assert api("DELETE", f"/dataset/{dataset_id}").status_code == 200
        assert connection.execute("SELECT count(*) FROM embeddings").fetchone()[0] == before - 3
        assert connection.execute(rows).fetchone() == (0,)


def test_what_a_killed_server_left_half_done_is_removed(store: Store) -> None:
    kept, gone = made(store), made(store)
    store.add_embeddings(kept, "test", [("a", [("0", b"1234")])])
    store.add_embeddings(kept, "test 1234", [("b", [("0", b"1234")])])  # an upload that was not moved yet
    store.add_embeddings(gone, "test", [("c", [("0", b"1234")])])
    store._database._connection.execute("UPDATE datasets SET owner = '' WHERE id = ?", (gone,))
    assert store.dataset("me", gone) is None
    store.sweep()
    assert store._database.read("SELECT id, bytes FROM datasets") == [(kept, 4)]
    assert store._database.read("SELECT frame_id FROM frames") == [("a",)]


def test_a_key_stores_so_many_bytes(tmp_path: Path) -> None:
    with serving_here(tmp_path, Limits(stored_bytes=40), keys=[(None, KEY), ("second", OTHER)]) as url:
        api, other = Api(url), Api(url, OTHER)
        path = f"/dataset/{api.dataset()}/training/embeddings"
        assert api("POST", path, [vector(*[1.0] * 8)]).status_code == 200
        assert api("POST", path, [vector(*[2.0] * 8)]).status_code == 200, "it takes the place of the other"
        full = api("POST", f"/dataset/{api.dataset()}/test/embeddings", [vector(*[1.0] * 3)])
        assert full.status_code == 507
        assert full.json() == {"detail": "the embeddings of a key have at most 40 bytes: delete some of them"}
        there = f"/dataset/{other.dataset()}/test/embeddings"
        assert other("POST", there, [vector(*[1.0] * 3)]).status_code == 200
        assert api("DELETE", path.replace("embeddings", "embedding") + "/a/0").status_code == 200
        assert api("POST", path, [vector(*[1.0] * 10)]).status_code == 200
        api.session.close()
        other.session.close()
