"""The folder of a pass: who may write to it, and what may lie in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import in_child
from processes import BOTH, Outcomes, values
from watched_passes import run

from cval_torch.errors import ExtractionError, InvalidInputError
from cval_torch.extraction.pass_folder import FORMAT, PassCache
from cval_torch.pool.pool import Pool
from cval_torch.pool.shards import Part


def test_a_shard_has_a_frame_or_more(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="`frames_per_shard` must be at least 1; got 0"):
        run(tmp_path, frames_per_shard=0)


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Another process that holds the lock of `tmp_path`, until called."""
    code = f"""
import fcntl, sys
file = open({str(tmp_path / "lock")!r}, "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield lambda: process.communicate() and None
    process.communicate()


def test_two_processes_do_not_share_a_folder(tmp_path: Path, holding: Callable[[], None]) -> None:
    with pytest.raises(InvalidInputError, match=r"is in use by another process: wait for it, or use another folder"):
        run(tmp_path)
    holding()
    assert len(run(tmp_path)) == 12


def test_who_holds_a_folder_is_said(tmp_path: Path, holding: Callable[[], None]) -> None:
    (tmp_path / "lock").write_text('{"process": 4321, "machine": "elsewhere"}')
    with pytest.raises(InvalidInputError, match="is in use by process 4321 on elsewhere"):
        run(tmp_path)
    holding()


def test_a_finished_pass_is_read_whoever_holds_it(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "lock").unlink()
    assert len(run(tmp_path)) == 12
    assert not (tmp_path / "lock").exists()


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "another/1"}')
    with pytest.raises(InvalidInputError, match=r"must be the manifest of a pass of 'cval_torch.pass/2'; got 'another"):
        run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "cval_torch.pass/1"}')
    with pytest.raises(
        InvalidInputError, match=r"another version of cval_torch made: its format is .*/1'.*delete this"
    ):
        run(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InvalidInputError, match="is not the manifest of a pass"):
        run(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExtractionError, match=r"`cache_dir` '.*file/below' could not be read or written") as caught:
        run(tmp_path / "file" / "below")
    assert isinstance(caught.value.__cause__, OSError)


def test_several_processes_share_a_folder(two: Outcomes) -> None:
    for pools, names, read in values(two, "a_folder_is_shared"):
        assert pools == [True, True]
        assert names == ["lock", "manifest.json", "part"]
        assert read == []


@BOTH
def test_a_pass_goes_on_with_as_many_processes(ranks: Outcomes) -> None:
    """Of 18 frames row 13 broke, of batch 6: at least what came after the break is read again, and nothing twice."""
    outcomes = values(ranks, "a_pass_goes_on_with_as_many")
    assert all(equal for equal, _ in outcomes)
    read = [row for _, rows in outcomes for row in rows]
    assert len(read) == len(set(read)) < 18
    assert {12, 13} <= set(read)


@BOTH
def test_a_pass_of_one_goes_on_with_several(ranks: Outcomes) -> None:
    outcomes = values(ranks, "a_pass_of_one_goes_on_together")
    assert all(equal for equal, _ in outcomes)
    assert sorted(row for _, rows in outcomes for row in rows) == list(range(6, 18))
    assert all(rows for _, rows in outcomes)


def test_a_pass_of_several_goes_on_with_one(two: Outcomes) -> None:
    (equal, read), nobody = values(two, "a_pass_goes_on_alone")
    assert equal
    assert nobody is None
    assert {12, 13} <= set(read)
    assert len(read) == len(set(read)) < 18


def test_a_folder_in_use_is_refused_by_name(two: Outcomes) -> None:
    assert two[0]["a_folder_in_use_is_refused"] == {"value": None}
    kind, message = two[1]["a_folder_in_use_is_refused"]["error"]
    assert kind == "InvalidInputError"
    assert "is in use by process " in message


BATCHES = [[3, 1], [0], [2, 4]]


def rows_of(number: int, *, batches: list[list[int]] = BATCHES) -> Pool:
    """A batch of frames, one box each, whose numbers are its rows."""
    rows = batches[number]
    numbers = torch.tensor(rows, dtype=torch.float32)
    return Pool([f"{row}" for row in rows], torch.arange(len(rows) + 1), scores=numbers / 10,
                indices=torch.tensor(rows), box_embeddings=numbers[:, None])  # fmt: skip


def begun(folder: Path, *, frames_per_shard: int = 2) -> PassCache:
    cache = PassCache(folder, frames_per_shard=frames_per_shard)
    folder.mkdir(exist_ok=True)
    if cache.read() is None:
        cache.begin({"a": 1}, {"torch": "2"}, BATCHES)
    return cache


def write(folder: Path, rank: int, numbers: list[int]) -> None:
    cache = begun(folder)
    cache.write_as(rank)
    for number in numbers:
        cache.add(number, rows_of(number))
    cache.flush()


def test_a_manifest_says_what_the_pass_is(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, frames_per_shard=2)
    assert cache.read() is None
    cache.begin({"a": 1}, {"torch": "2"}, BATCHES)
    other = PassCache(tmp_path, frames_per_shard=2)
    manifest = other.read()
    assert manifest is not None
    assert (manifest["of"], manifest["made_with"], manifest["format"]) == ({"a": 1}, {"torch": "2"}, FORMAT)
    assert other.batches == cache.batches == BATCHES
    assert other.token == cache.token != ""
    begun(tmp_path / "another")
    assert begun(tmp_path / "another").token != cache.token
    said = str(cache.refusal(["x was 1", "y was 2"]))
    assert said.startswith(f"`cache_dir` {str(tmp_path)!r} holds another pass: x was 1; y was 2. To begin anew")


@pytest.mark.parametrize("by_rank", [[[0, 1, 2]], [[2, 0], [1]], [[1], [0, 2]], [[0], [], [2, 1]]])
def test_parts_of_several_become_one_in_the_order_of_the_whole(tmp_path: Path, by_rank: list[list[int]]) -> None:
    for rank, numbers in enumerate(by_rank):
        write(tmp_path, rank, numbers)
    cache = begun(tmp_path)
    assert cache.missing(cache.parts(verify=True)) == []
    in_one = by_rank == [[0, 1, 2]]
    assert list(cache.finish()) == ([] if in_one else [2, 3]), "a shard has two frames or more"
    assert cache.pool().frame_ids == ("3", "1", "0", "2", "4")
    assert cache.pool().indices.tolist() == [3, 1, 0, 2, 4]  # type: ignore[union-attr]
    assert len(list(tmp_path.glob("part-*"))) == 1, "what was joined is gone"
    assert list(cache.finish()) == [], "and there is nothing left to do"


def test_a_batch_that_two_have_comes_once(tmp_path: Path) -> None:
    write(tmp_path, 0, [0, 1])
    write(tmp_path, 1, [1, 2])
    cache = begun(tmp_path)
    list(cache.finish())
    assert cache.pool().frame_ids == ("3", "1", "0", "2", "4")


def test_what_is_missing_is_said_and_nothing_is_joined(tmp_path: Path) -> None:
    write(tmp_path, 0, [2, 0])
    cache = begun(tmp_path)
    assert cache.missing(cache.parts(verify=False)) == [1]
    with pytest.raises(ExtractionError, match="batch 1 is missing from `cache_dir`") as caught:
        list(cache.finish())
    assert (caught.value.batch, caught.value.frames_done) == (1, 4)
    with pytest.raises(InvalidInputError, match="must hold a finished pass; it does not"):
        cache.pool()
    part = next(tmp_path.glob("part-*"))
    cache.batches[0] = [3]
    assert cache.missing([Part(part)]) == [0, 1], "a batch of another size does not count"


def test_half_joined_parts_of_an_earlier_run_are_taken_away(tmp_path: Path) -> None:
    write(tmp_path, 0, [2, 0])
    write(tmp_path, 1, [1])
    stale = tmp_path / "joining-0123"
    stale.mkdir()
    (stale / "journal").write_bytes(b"half")
    cache = begun(tmp_path)
    list(cache.finish())
    assert not stale.exists()
    assert list(tmp_path.glob("joining-*")) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_names_are_forced_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the manifest before a batch is inferred, and that of the joined part before the others are deleted."""
    steps: list[str] = []
    fsync, rmtree = os.fsync, shutil.rmtree

    def forced(handle: int) -> None:
        steps.append(f"forced {Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    def removed(path: Any, **options: Any) -> None:
        steps.append(f"removed {Path(path).name}")
        rmtree(path, **options)

    folder = tmp_path / "pass"
    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(shutil, "rmtree", removed)
    begun(folder)
    assert steps[-1] == "forced pass"
    write(folder, 0, [2, 0])
    write(folder, 1, [1])
    list(begun(folder).finish())
    assert steps[-3] == "forced pass"
    assert [step[:13] + step[-2:] for step in steps[-2:]] == ["removed part--0", "removed part--1"]


@pytest.mark.parametrize(("frames_per_shard", "shards"), [(1, [1, 1, 1]), (2, [1, 2]), (3, [2, 1]), (9, [3])])
def test_a_shard_is_written_once_enough_frames_wait(tmp_path: Path, frames_per_shard: int, shards: list[int]) -> None:
    cache = begun(tmp_path, frames_per_shard=frames_per_shard)
    cache.write_as(0)
    written = []
    for number in range(3):
        cache.add(number, rows_of(number))
        written.append(sum(len(Part(path).batches) for path in tmp_path.glob("part-*-0")))
    cache.flush()
    written.append(len(Part(next(tmp_path.glob("part-*-0"))).batches))
    steps = [sum(shards[:count]) for count in range(len(shards) + 1)]
    assert set(written) <= set(steps)
    assert (next(tmp_path.glob("part-*-0")) / "journal").read_bytes().count(b"\n") == len(shards)
    assert written[-1] == 3


def test_a_shard_is_written_when_it_waited_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.extraction.pass_folder._SECONDS", -1.0)
    cache = begun(tmp_path, frames_per_shard=99)
    cache.write_as(0)
    cache.add(0, rows_of(0))
    assert Part(next(tmp_path.glob("part-*-0"))).batches == [(0, 2)]


def test_other_columns_than_those_on_the_disk_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 0, [0])
    cache = begun(tmp_path)
    cache.write_as(0)
    with pytest.raises(InvalidInputError, match=r"the columns were .*; now they are"):
        cache.add(1, rows_of(1).replace(scores=None))


def test_what_is_damaged_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path, 0, [0, 1, 2])
    path = next(tmp_path.glob("part-*-0")) / "box_embeddings"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    cache = begun(tmp_path)
    assert cache.missing(cache.parts(verify=False)) == []
    assert cache.missing(cache.mend()) == [0, 1, 2]
    assert (next(tmp_path.glob("part-*-0")) / "journal").read_bytes() == b""


def test_the_lock_is_let_go_at_the_end(tmp_path: Path) -> None:
    def locked() -> None:
        with PassCache(tmp_path, frames_per_shard=1) as other:
            other.lock(alone=True)

    with begun(tmp_path) as cache:
        cache.lock(alone=True)
        assert in_child(locked)[0] == "InvalidInputError"
        cache.lock(alone=False)
    assert in_child(locked) is None
