"""Pools that have embeddings of some boxes only, wherever their columns go: a third space of rows."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from best_boxes import best_rows, embedding_best, of_best
from hypothesis import given, settings
from hypothesis import strategies as st
from threads_as_ranks import as_ranks
from tied_frames import make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.pool import offsets
from cval_torch.pool.gathering import empty_pool, gather_pools
from cval_torch.pool.layout import Gathered, Layout
from cval_torch.pool.pool import Pool
from cval_torch.pool.shards import Part, Slices

counts_lists = st.lists(st.integers(0, 5), min_size=1, max_size=9)


def as_frames(pool: Pool) -> list[dict[str, Any]]:
    """One dict a frame, with one entry a box, in which a box without an embedding has None; by a loop over boxes."""
    frames, embedding_row = [], 0
    for row, frame_id in enumerate(pool.frame_ids):
        boxes = []
        for box in range(int(pool.offsets[row]), int(pool.offsets[row + 1])):
            found: dict[str, Any] = {"embedding": None}
            for name in ("boxes", "labels", "scores", "probabilities"):
                column = getattr(pool, name)
                found[name] = None if column is None else column[box].tolist()
            if pool.box_embeddings is not None and (pool.embedded is None or bool(pool.embedded[box])):
                found["embedding"] = pool.box_embeddings[embedding_row].tolist()
                embedding_row += 1
            boxes.append(found)
        whole = None if pool.frame_embeddings is None else pool.frame_embeddings[row].tolist()
        frames.append({"id": frame_id, "boxes": boxes, "whole": whole})
    assert pool.box_embeddings is None or embedding_row == len(pool.box_embeddings)
    return frames


def assert_same(got: Pool, expected: Pool) -> None:
    assert got.frame_ids == expected.frame_ids
    assert got.activation == expected.activation
    for (name, column), (other_name, other) in zip(got.columns(), expected.columns(), strict=True):
        assert name == other_name
        assert column.dtype == other.dtype
        assert torch.equal(column, other), name


@given(counts=counts_lists, k=st.integers(1, 6), seed=st.integers(0, 99), data=st.data())
@settings(deadline=None, max_examples=60)
def test_frames_keep_the_embeddings_of_their_own_boxes(
    counts: list[int], k: int, seed: int, data: st.DataObject
) -> None:
    full = make_tied_pool(counts, seed=seed)
    pool = embedding_best(full, k)
    frames = as_frames(pool)
    best = set(best_rows(full, k))
    rows_of_full = itertools.chain.from_iterable(frame["boxes"] for frame in as_frames(full))
    for row, (mine, whole) in enumerate(
        zip(itertools.chain.from_iterable(frame["boxes"] for frame in frames), rows_of_full, strict=True)
    ):
        assert mine == ({**whole, "embedding": None} if row not in best else whole)
    rows = data.draw(st.lists(st.sampled_from(range(len(counts))), unique=True))
    assert as_frames(pool.take(rows)) == [frames[row] for row in rows]
    begin = data.draw(st.integers(0, len(counts)))
    end = data.draw(st.integers(begin, len(counts)))
    part = pool.take(list(range(len(counts)))).part(begin, end)  # a part of what was taken, which counts anew
    assert as_frames(part) == frames[begin:end]
    assert as_frames(part.take(range(end - begin))) == frames[begin:end]
    parts = pool.parts(frames=2)
    assert [frame for part in parts for frame in as_frames(part)] == frames
    assert_same(Pool.cat(parts), pool)
    assert_same(pickle.loads(pickle.dumps(pool)), pool)
    assert_same(pool.to("cpu"), pool)
    assert_same(pool.embedded_boxes(), of_best(full, k))
    gathered = Gathered()
    for part in parts:
        gathered.add(part)
    assert_same(gathered.pool(), pool.replace(ids_from=None))


def test_a_pool_that_embeds_all_boxes_is_its_own_pool_of_embedded_boxes() -> None:
    full = make_tied_pool([2, 0, 1])
    assert full.embedded_boxes() is full
    assert torch.equal(full.embedded_offsets, full.offsets)
    assert embedding_best(full, 1).embedded_offsets.tolist() == [0, 1, 1, 2]


def test_marks_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = embedding_best(make_tied_pool([3, 0, 5, 1, 4]), 2)
    monkeypatch.setattr(offsets, "_CHUNK_BOXES", 2)
    assert pool.embedded is not None
    assert offsets.offsets_among(pool.offsets, pool.embedded).tolist() == [0, 2, 2, 4, 5, 7]


def test_marks_come_and_go_with_embeddings() -> None:
    pool = embedding_best(make_tied_pool([3, 0, 2]), 1)
    assert "embedded (5,)" in repr(pool)
    assert pool.only(["scores"]).embedded is None
    assert torch.equal(pool.only(["box_embeddings"]).embedded, pool.embedded)
    assert pool.replace(box_embeddings=None).embedded is None
    assert pool.with_skipped([]).embedded is pool.embedded
    everything = torch.zeros(5, 3)
    assert pool.replace(box_embeddings=everything, embedded=None).embedded is None


MASK = torch.tensor([True, False, True, False, True])
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"embedded": MASK[:3]}, r"`embedded` must be \(B,\) with B=5 boxes from `offsets`; got \(3,\)"),
    ({"embedded": MASK.long()}, r"`embedded` must be bool; got torch.int64"),
    ({"embedded": [True] * 5}, r"`embedded` must be a tensor; got list"),
    (
        {"box_embeddings": torch.zeros(5, 2)},
        r"`box_embeddings` must be \(K, E\) with K=3 boxes `embedded`; got \(5, 2\)",
    ),
    (
        {"embedded": torch.tensor([True, True, False, False, False]), "box_embeddings": torch.zeros(2, 2)},
        "`embedded` must be True for a box of every frame with boxes; frame 'c' has none",
    ),
    (
        {"box_embeddings": torch.tensor([[0.0, 0], [0, 0], [0, torch.nan]])},
        "`box_embeddings` must be finite; got nan in row 2, of frame 'c'",
    ),
]


@pytest.mark.parametrize(("columns", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_what_is_wrong_is_named(columns: dict[str, Any], message: str) -> None:
    right = Pool(["a", "b", "c"], torch.tensor([0, 3, 3, 5]), box_embeddings=torch.zeros(3, 2), embedded=MASK)
    with pytest.raises(InvalidInputError, match=message):
        right.replace(**columns)


def test_marks_alone_mean_nothing() -> None:
    with pytest.raises(InvalidInputError, match="`embedded` must be given with `box_embeddings`, and only then"):
        Pool(["a"], torch.tensor([0, 1]), embedded=torch.tensor([True]))


def test_pools_with_and_without_marks_do_not_join() -> None:
    full = make_tied_pool([2, 1])
    some = embedding_best(make_tied_pool([2, 1], seed=3), 1).replace(frame_ids=["x", "y"])
    with pytest.raises(InvalidInputError, match="pools must have the same columns"):
        Pool.cat([full, some])
    gathered = Gathered()
    gathered.add(full)
    with pytest.raises(InvalidInputError, match=r"now they are .*embedded"):
        gathered.add(some)


def test_a_file_keeps_them_and_an_older_file_has_none(tmp_path: Path) -> None:
    full = make_tied_pool([3, 0, 2, 4])
    pool = embedding_best(full, 2)
    pool.save(tmp_path / "some.pool")
    full.save(tmp_path / "all.pool")
    for mmap in (True, False):
        assert_same(Pool.load(tmp_path / "some.pool", mmap=mmap), pool)
        assert Pool.load(tmp_path / "all.pool", mmap=mmap).embedded is None
    assert "embedded" not in torch.load(tmp_path / "all.pool", weights_only=True)["columns"]


def test_a_layout_says_whether_there_are_marks() -> None:
    layout = Layout.of(embedding_best(make_tied_pool([2, 1]), 1))
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert Layout.of(empty_pool(layout)) == layout
    assert layout != Layout.of(make_tied_pool([2, 1]))


@given(
    counts=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=4), k=st.integers(1, 5)
)
@settings(deadline=None, max_examples=25)
def test_shards_are_the_pool(tmp_path_factory: pytest.TempPathFactory, counts: list[list[int]], k: int) -> None:
    folder = tmp_path_factory.mktemp("part") / "part"
    pool = embedding_best(make_tied_pool([count for batch in counts for count in batch]), k)
    begin = 0
    for number, batch in enumerate(counts):
        gathered = Gathered()
        gathered.add(pool.part(begin, begin + len(batch)))
        Part(folder).append(gathered, [(number, len(batch))])
        begin += len(batch)
    part = Part(folder)
    assert_same(part.pool(), pool)
    rows, expected = Gathered(), []
    for number in reversed(range(len(counts))):
        first = sum(map(len, counts[:number]))
        expected += range(first, first + len(counts[number]))
        assert Slices(part).give(number, rows) == len(counts[number])
    assert_same(rows.pool(), pool.take(expected))


@given(data=st.data(), counts=counts_lists, size=st.integers(1, 3), to=st.sampled_from([None, 0]))
@settings(deadline=None, max_examples=30)
def test_shares_of_several_processes_are_the_whole(
    data: st.DataObject, counts: list[int], size: int, to: int | None
) -> None:
    whole = embedding_best(make_tied_pool(counts), 2)
    order = data.draw(st.permutations(range(len(counts))))
    shares = [list(order[rank::size]) for rank in range(size)]
    outcomes = as_ranks(
        size, lambda ranks: gather_pools(whole.take(shares[ranks.rank]), shares[ranks.rank], ranks, to=to)
    )
    for rank, got in enumerate(outcomes):
        assert_same(got, whole if to in (None, rank) or size == 1 else whole.take(shares[rank]))
