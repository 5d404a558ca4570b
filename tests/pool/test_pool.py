"""`Pool` against naive per-frame Python, and every guard of its constructor."""

from __future__ import annotations

import copy
import os
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool


def make_pool(counts: list[int], *, seed: int = 0, start: int = 0, dtype: torch.dtype = torch.float32) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    boxes = sum(counts)
    offsets = torch.tensor([0, *torch.tensor(counts, dtype=torch.int64).cumsum(0).tolist()])
    return Pool(
        [f"frame-{start + row}" for row in range(len(counts))],
        offsets,
        scores=torch.rand(boxes, generator=generator),
        indices=torch.arange(start, start + len(counts)),
        boxes=torch.rand(boxes, 4, generator=generator) * 100,
        labels=torch.randint(0, 5, (boxes,), generator=generator),
        probabilities=torch.rand(boxes, 5, generator=generator).softmax(1),
        activation="softmax",
        box_embeddings=torch.randn(boxes, 3, generator=generator).to(dtype),
        frame_embeddings=torch.randn(len(counts), 2, generator=generator).to(dtype),
    )


def as_frames(pool: Pool) -> list[dict[str, object]]:
    """The naive view: one dict a frame, one list a column."""
    frames = []
    for row, frame_id in enumerate(pool.frame_ids):
        start, stop = int(pool.offsets[row]), int(pool.offsets[row + 1])
        frame: dict[str, object] = {"id": frame_id}
        for name, column in pool.columns():
            if name in ("indices", "frame_embeddings"):
                frame[name] = column[row].tolist()
            elif name != "offsets":
                frame[name] = column[start:stop].tolist()
        frames.append(frame)
    return frames


counts_lists = st.lists(st.integers(0, 4), min_size=0, max_size=8)


@given(counts=counts_lists, data=st.data())
@settings(deadline=None)
def test_take_picks_the_same_frames_as_a_list_would(counts: list[int], data: st.DataObject) -> None:
    pool = make_pool(counts)
    rows = data.draw(st.permutations(range(len(counts))))[: data.draw(st.integers(0, len(counts)))]
    frames = as_frames(pool)
    assert as_frames(pool.take(rows)) == [frames[row] for row in rows]
    assert as_frames(pool.take(torch.tensor(rows, dtype=torch.int64))) == [frames[row] for row in rows]


@given(parts=st.lists(counts_lists, min_size=1, max_size=4))
@settings(deadline=None)
def test_cat_joins_as_lists_would(parts: list[list[int]]) -> None:
    pools, start = [], 0
    for number, counts in enumerate(parts):
        pools.append(make_pool(counts, seed=number, start=start))
        start += len(counts)
    assert as_frames(Pool.cat(pools)) == [frame for pool in pools for frame in as_frames(pool)]


@given(counts=counts_lists)
@settings(deadline=None)
def test_frame_rows_and_counts_name_the_frame_of_each_box(counts: list[int]) -> None:
    pool = make_pool(counts)
    assert pool.counts.tolist() == counts
    assert pool.frame_rows.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    assert pool.num_boxes == sum(counts)
    assert len(pool) == len(counts)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_save_and_load_give_the_same_bits(tmp_path: Path, mmap: bool, dtype: torch.dtype) -> None:
    pool = make_pool([2, 0, 3], dtype=dtype)
    pool.save(tmp_path / "a.pool")
    loaded = Pool.load(tmp_path / "a.pool", mmap=mmap)
    assert loaded.frame_ids == pool.frame_ids
    assert loaded.activation == "softmax"
    for (name, column), (other_name, other) in zip(pool.columns(), loaded.columns(), strict=True):
        assert name == other_name
        assert column.dtype == other.dtype
        assert torch.equal(column, other)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pool"]


def test_optional_columns_may_be_absent_everywhere(tmp_path: Path) -> None:
    pool = Pool(["a", "b"], torch.tensor([0, 1, 1]), scores=torch.tensor([0.5]))
    assert [name for name, _ in pool.columns()] == ["offsets", "scores"]
    pool.save(tmp_path / "p")
    loaded = Pool.load(tmp_path / "p")
    assert loaded.boxes is None
    assert Pool.cat([pool.take([1]), pool.take([0])]).frame_ids == ("b", "a")


def test_a_loaded_pool_is_not_read_into_memory(tmp_path: Path) -> None:
    """A fresh process maps a 200 MB pool and touches one frame of it: its memory grows by far less."""
    frames, width = 50_000, 1024
    pool = Pool(
        [str(row) for row in range(frames)],
        torch.zeros(frames + 1, dtype=torch.int64),
        frame_embeddings=torch.zeros(frames, width),
    )
    small = pool.replace(frame_embeddings=torch.zeros(frames, 1))
    peaks = []
    for name, each in (("big", pool), ("small", small)):
        each.save(tmp_path / name)
        code = (
            "import resource, sys; from cval_torch.pool.pool import Pool; import torch\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "payload = torch.load(sys.argv[1], weights_only=True, mmap=True)\n"
            "assert payload['columns']['frame_embeddings'][123].sum() == 0\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[0] - peaks[1] < 50_000  # KiB; the column is 200,000


@pytest.mark.parametrize("path_is", ["missing", "text", "other_object", "truncated"])
def test_load_refuses_what_is_no_pool(tmp_path: Path, path_is: str) -> None:
    path = tmp_path / "pool"
    if path_is == "missing":
        with pytest.raises(FileNotFoundError):
            Pool.load(path)
        return
    if path_is == "text":
        path.write_text("not a pool")
    elif path_is == "other_object":
        torch.save({"format": "something else"}, path)
    else:
        make_pool([1, 2]).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidInputError, match="is not a saved Pool"):
        Pool.load(path)


def test_a_damaged_file_never_loads_as_another_pool(tmp_path: Path) -> None:
    pool = make_pool([2, 0, 1]).replace(ids_from="row")
    pool.save(tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    refused = 0
    generator = random.Random(0)
    for turn in range(600):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        if turn % 3 == 0:
            del damaged[generator.randrange(len(whole)) :]
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            loaded = Pool.load(tmp_path / "damaged.pt", mmap=turn % 2 == 0)
        except InvalidInputError:
            refused += 1
            continue
        assert loaded.frame_ids == pool.frame_ids
        assert (loaded.activation, loaded.ids_from) == (pool.activation, pool.ids_from)
        for name, column in pool.columns():
            assert torch.equal(getattr(loaded, name), column)
    assert refused > 300


def test_save_leaves_the_old_file_intact_when_the_disk_is_full(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails half way."""
    path = tmp_path / "pool"
    make_pool([1]).save(path)
    before = path.read_bytes()
    code = (
        "import resource, signal, sys, torch; from cval_torch.pool.pool import Pool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "pool = Pool(['a'], torch.tensor([0, 0]), frame_embeddings=torch.zeros(1, 1_000_000))\n"
        "try:\n    pool.save(sys.argv[1])\n"
        "except (OSError, RuntimeError) as error:\n    print('refused', type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "refused OSError\n", done.stderr
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["pool"]


def test_to_moves_every_column() -> None:
    pool = make_pool([2, 1])
    moved = pool.to("cpu")
    assert as_frames(moved) == as_frames(pool)
    columns = dict(pool.columns())
    assert set(columns) == set(dict(moved.columns()))


BAD_COLUMNS = [
    ({"frame_ids": ["a", "a"]}, r"`frame_ids` must be distinct; got 'a' again in row 1"),
    ({"frame_ids": ["a", ""]}, r"1 to 128 characters; got '' in row 1"),
    ({"frame_ids": ["a", "b" * 129]}, r"1 to 128 characters; got 'bbb.*in row 1"),
    ({"frame_ids": ["a", 3]}, r"must be strings of 1 to 128 characters; got 3 in row 1"),
    ({"frame_ids": ["a"]}, r"`offsets` must be \(F\+1,\) with F=1 frame ids; got \(3,\)"),
    ({"offsets": torch.tensor([0.0, 1.0, 3.0])}, r"`offsets` must be an int64 tensor; got torch.float32"),
    ({"offsets": [0, 1, 3]}, r"`offsets` must be an int64 tensor; got list"),
    ({"offsets": torch.tensor([1, 1, 3])}, r"must start at 0 and never fall"),
    ({"offsets": torch.tensor([0, 4, 3])}, r"must start at 0 and never fall"),
    ({"scores": torch.rand(4)}, r"`scores` must be \(B,\) with B=3 boxes from `offsets`; got \(4,\)"),
    ({"scores": torch.tensor([0.5, float("nan"), 0.5])}, r"`scores` must be finite.*got nan in row 1, of frame 'b'"),
    ({"scores": torch.tensor([0.5, 0.5, float("inf")])}, r"got inf in row 2, of frame 'b'"),
    ({"scores": torch.tensor([1.5, 0.5, 0.5])}, r"finite numbers in \[0, 1\]; got 1.5 in row 0, of frame 'a'"),
    ({"scores": torch.tensor([-0.5, 0.5, 0.5])}, r"got -0.5 in row 0, of frame 'a'"),
    ({"scores": torch.tensor([0, 1, 1])}, r"`scores` must be floating point; got torch.int64"),
    ({"labels": torch.zeros(3)}, r"`labels` must be int64; got torch.float32"),
    ({"boxes": torch.zeros(3, 5)}, r"`boxes` must be \(B, 4\) with B=3 boxes from `offsets`; got \(3, 5\)"),
    ({"boxes": torch.full((3, 4), float("inf"))}, r"`boxes` must be finite"),
    ({"probabilities": torch.rand(10, 80)}, r"`probabilities` must be \(B, C\) with B=3 .* got \(10, 80\)"),
    ({"probabilities": torch.full((3, 2), 2.0)}, r"`probabilities` must be finite numbers in \[0, 1\]; got 2.0"),
    ({"activation": None}, r"`activation` must be given with `probabilities`, and only then"),
    ({"probabilities": None}, r"`activation` must be given with `probabilities`, and only then"),
    ({"activation": "relu"}, r"`activation` must be 'softmax' or 'sigmoid'; got 'relu'"),
    ({"box_embeddings": torch.rand(2, 3)}, r"`box_embeddings` must be \(B, E\) with B=3 .* got \(2, 3\)"),
    ({"frame_embeddings": torch.rand(3, 3)}, r"`frame_embeddings` must be \(F, D\) with F=2 .* got \(3, 3\)"),
    (
        {"frame_embeddings": torch.tensor([[0.0], [60000.0]]).half() * 2},
        r"`frame_embeddings` must be finite; got inf in row 1, of frame 'b'",
    ),
    ({"indices": torch.tensor([1, 2, 3])}, r"`indices` must be \(F,\) with F=2 frame ids; got \(3,\)"),
    ({"boxes": [[0, 0, 1, 1]] * 3}, r"`boxes` must be a tensor; got list"),
    ({"labels": torch.zeros(3, dtype=torch.int64, device="meta")}, r"`labels` must be on cpu, .* got meta"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS)
def test_what_does_not_fit_is_refused_by_name(columns: dict[str, object], message: str) -> None:
    good = make_pool([1, 2]).replace(frame_ids=["a", "b"])
    with pytest.raises(InvalidInputError, match=message):
        good.replace(**columns)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 2], r"`rows` must be in \[0, 2\); got 0 to 2"),
        ([-1], r"`rows` must be in \[0, 2\); got -1 to -1"),
        ([1, 1], r"must not hold a row twice"),
        ([0.5], r"must be a vector of integers"),
        (torch.tensor([True, False]), r"must be a vector of integers"),
    ],
)
def test_take_refuses_rows_that_are_none(rows: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_pool([1, 2]).take(rows)  # type: ignore[arg-type]


def test_cat_refuses_pools_that_differ() -> None:
    pool = make_pool([1, 2])
    other = make_pool([1], start=5)
    with pytest.raises(InvalidInputError, match="at least one Pool"):
        Pool.cat([])
    with pytest.raises(InvalidInputError, match="must be distinct"):
        Pool.cat([pool, pool])
    with pytest.raises(InvalidInputError, match="pools must have the same columns"):
        Pool.cat([pool, other.replace(boxes=None)])
    with pytest.raises(InvalidInputError, match="pools must have the same columns"):
        Pool.cat([pool, other.replace(activation="sigmoid")])
    with pytest.raises(InvalidInputError, match=r"`box_embeddings` must have one width.* pool 1 has \(1, 7\)"):
        Pool.cat([pool, other.replace(box_embeddings=torch.zeros(1, 7))])


def test_a_pool_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        make_pool([1]).scores = None  # type: ignore[misc]


def test_repr_counts_and_names_no_values() -> None:
    text = repr(make_pool([1, 2]))
    assert text.startswith("Pool(2 frames, 3 boxes; indices (2,), frame_embeddings (2, 2), boxes (3, 4)")
    assert len(text) < 250


def test_a_million_frames_of_twenty_boxes_are_columns_not_objects() -> None:
    """20,000,000 boxes: the columns take 80 MB of scores, and a Python object a box would take over 1 GB."""
    frames = 1_000_000
    pool = Pool(
        [str(row) for row in range(frames)],
        torch.arange(0, 20 * frames + 1, 20),
        scores=torch.full((20 * frames,), 0.5),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    half = pool.take(torch.arange(0, frames, 1000))
    assert half.num_boxes == 20_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("mmap", [True, False])
def test_load_runs_no_code_of_a_file(tmp_path: Path, mmap: bool) -> None:
    pool = make_pool([1, 2])
    pool.save(tmp_path / "a.pool")
    payload = torch.load(tmp_path / "a.pool", weights_only=True)
    for name in ("activation", "extra"):
        torch.save({**payload, name: Evil(tmp_path / "made")}, tmp_path / "evil.pool")
        with pytest.raises(InvalidInputError, match="is not a saved Pool"):
            Pool.load(tmp_path / "evil.pool", mmap=mmap)
        assert not (tmp_path / "made").exists()


def test_load_maps_the_file_unless_told_not_to(tmp_path: Path) -> None:
    """A mapped column shows what is written to its file; one that was read does not."""
    pool = Pool(["a"], torch.tensor([0, 1]), frame_embeddings=torch.full((1, 4096), 0.25))
    wanted = torch.full((4096,), 0.75)
    for mmap in (True, False):
        path = tmp_path / f"{mmap}.pool"
        pool.save(path)
        loaded = Pool.load(path, mmap=mmap)
        content = path.read_bytes()
        begin = content.index(pool.frame_embeddings.numpy().tobytes())  # type: ignore[union-attr]
        with path.open("r+b") as file:
            file.seek(begin)
            file.write(wanted.numpy().tobytes())
        assert loaded.frame_embeddings is not None
        assert torch.equal(loaded.frame_embeddings[0], wanted) is mmap


def test_save_forces_the_file_to_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def forced(handle: int) -> None:
        steps.append("forced" if os.fstat(handle).st_size > 100 else "forced while empty")
        fsync(handle)

    def moved(self: Path, target: Path) -> Path:
        steps.append("moved")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(Path, "replace", moved)
    make_pool([1]).save(tmp_path / "a.pool")
    assert steps == ["forced", "moved"]


def test_cat_refuses_pools_on_two_devices() -> None:
    pool, other = make_pool([1]), make_pool([2], start=5)
    with pytest.raises(InvalidInputError, match=r"`indices` must have one width and device; .* pool 1 has .* on meta"):
        Pool.cat([pool, on_meta(other)])


def on_meta(pool: Pool) -> Pool:
    """The pool as if it were on another device, which no test machine has; its numbers cannot be checked there."""
    other = copy.copy(pool)
    for name, column in pool.columns():
        object.__setattr__(other, name, column.to("meta"))
    return other
