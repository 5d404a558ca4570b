"""Rows in a folder that grows shard by shard, whatever stops it and whatever is done to its files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool import shards
from cval_torch.pool.layout import Gathered, Layout
from cval_torch.pool.pool import Pool
from cval_torch.pool.shards import JOURNAL, Part, Slices, sync_folder

Batches = list[list[int]]


def pool_of(counts: list[int], start: int) -> Pool:
    """Frames from `start` on; every number is drawn anew."""
    boxes, generator = sum(counts), torch.Generator().manual_seed(start)
    return Pool(
        [f"{start + row}\n\u2028é" for row in range(len(counts))],
        torch.tensor([0, *counts]).cumsum(0),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(-9, 9, (boxes,), generator=generator),
        probabilities=torch.rand(boxes, 3, generator=generator),
        activation="sigmoid",
        box_embeddings=torch.randn(boxes, 4, generator=generator).half(),
        frame_embeddings=torch.randn(len(counts), 2, generator=generator).bfloat16(),
        indices=torch.arange(start, start + len(counts)),
    )


def gathered(pool: Pool) -> Gathered:
    rows = Gathered()
    rows.add(pool)
    return rows


def written(folder: Path, batches: Batches) -> Pool:
    """One shard a batch, numbered from 10 on; all of it as one pool."""
    part, pools, start = Part(folder), [], 0
    for number, counts in enumerate(batches, 10):
        pools.append(pool_of(counts, start))
        part.append(gathered(pools[-1]), [(number, len(counts))])
        start += len(counts)
    return Pool.cat(pools)


def assert_same(got: Pool, expected: Pool) -> None:
    assert got.frame_ids == expected.frame_ids
    assert got.activation == expected.activation
    for (name, column), (other_name, other) in zip(got.columns(), expected.columns(), strict=True):
        assert name == other_name
        assert column.dtype == other.dtype
        assert torch.equal(column, other), name


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


THREE: Batches = [[2, 0, 1], [3], [0, 1]]


@given(batches=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25)
def test_shards_are_the_pool(tmp_path_factory: pytest.TempPathFactory, batches: Batches) -> None:
    folder = tmp_path_factory.mktemp("part") / "part"
    whole = written(folder, batches)
    for verify in (True, False):
        part = Part(folder, verify=verify)
        assert part.batches == [(number, len(counts)) for number, counts in enumerate(batches, 10)]
        assert part.num_frames == len(whole)
        assert part.layout == Layout.of(whole)
        assert part.frame_ids() == list(whole.frame_ids)
        assert torch.equal(part.counts(), whole.counts)
        assert_same(part.pool(), whole)


def test_nothing_is_a_part_too(tmp_path: Path) -> None:
    part = Part(tmp_path / "part")
    assert (part.batches, part.num_frames, part.layout, part.frame_ids(), part.columns()) == ([], 0, None, [], {})
    assert len(part.pool()) == 0
    part.append(Gathered(), [])
    part.cut_off()
    assert list(tmp_path.iterdir()) == []
    assert Slices(part).give(3, Gathered()) == 0


@given(batches=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=4), data=st.data())
@settings(deadline=None, max_examples=25)
def test_slices_give_single_batches(
    tmp_path_factory: pytest.TempPathFactory, batches: Batches, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("part") / "part"
    whole = written(folder, batches)
    slices = Slices(Part(folder))
    order = data.draw(st.permutations(range(10, 10 + len(batches))))
    rows = Gathered()
    assert slices.give(9, rows) == 0
    assert [slices.give(number, rows) for number in order] == [len(batches[number - 10]) for number in order]
    starts = [sum(map(len, batches[:number])) for number in range(len(batches) + 1)]
    expected = [row for number in order for row in range(starts[number - 10], starts[number - 9])]
    assert_same(rows.pool(), whole.take(expected))


def test_of_a_batch_that_is_there_twice_the_first_is_given(tmp_path: Path) -> None:
    part = Part(tmp_path / "part")
    first, second = pool_of([1], 0), pool_of([2], 5)
    for pool in (first, second):
        part.append(gathered(pool), [(3, 1)])
    rows = Gathered()
    Slices(part).give(3, rows)
    assert_same(rows.pool(), first)


def test_slices_of_another_layout_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "part", [[1]])
    rows = gathered(pool_of([1], 9).replace(scores=None))
    with pytest.raises(InvalidInputError, match=r"the columns were .*; now they are .*scores"):
        Slices(Part(tmp_path / "part")).give(10, rows)


@pytest.mark.parametrize("name", ["scores", "labels", "frame_ids", "counts", "frame_embeddings", JOURNAL])
@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_damaged_byte_ends_the_part_at_its_shard(tmp_path: Path, name: str, shard: int) -> None:
    """By what lies in the files before and after each shard, its bytes are known; any of them is turned."""
    folder = tmp_path / "part"
    pools = [pool_of(counts, 10 * number) for number, counts in enumerate(THREE)]
    part, sizes = Part(folder), [0]
    for number, pool in enumerate(pools):
        part.append(gathered(pool), [(number, len(pool))])
        sizes.append((folder / name).stat().st_size)
    whole = bytearray((folder / name).read_bytes())
    assert sizes[shard] < sizes[shard + 1], "each shard has bytes in each of these files"
    whole[(sizes[shard] + sizes[shard + 1]) // 2] ^= 0x01
    (folder / name).write_bytes(whole)
    damaged = Part(folder)
    assert damaged.batches == part.batches[:shard]
    if name != JOURNAL:
        assert Part(folder, verify=False).batches == part.batches, "sizes alone are as they were"
    damaged.cut_off()
    if shard or name == JOURNAL:  # without a shard nothing says which files there are
        assert (folder / name).stat().st_size == sizes[shard]
    for pool, batch in zip(pools[shard:], part.batches[shard:], strict=True):
        damaged.append(gathered(pool), [batch])
    assert_same(Part(folder).pool(), Pool.cat(pools))


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_cut_anywhere_it_is_some_of_its_shards(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("part") / "part"
    whole = written(folder, THREE)
    files = files_of(folder)
    name = data.draw(st.sampled_from(sorted(files)))
    (folder / name).write_bytes(files[name][: data.draw(st.integers(0, len(files[name]) - 1))])
    for verify in (True, False):
        part = Part(folder, verify=verify)
        assert part.batches == [(10, 3), (11, 1), (12, 2)][: len(part.batches)]
        assert len(part.batches) < 3
        if part.batches:
            assert_same(part.pool(), whole.take(range(part.num_frames)))


def test_a_missing_file_ends_the_part(tmp_path: Path) -> None:
    written(tmp_path / "part", THREE)
    (tmp_path / "part" / "labels").unlink()
    assert Part(tmp_path / "part", verify=False).batches == []


def test_what_is_behind_the_last_shard_does_not_count_and_is_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "part"
    whole = written(folder, THREE)
    before = files_of(folder)
    for name in before:
        with (folder / name).open("ab") as file:
            file.write(b"half a shard")
    part = Part(folder)
    assert_same(part.pool(), whole)
    assert files_of(folder) != before, "opening writes nothing"
    part.cut_off()
    assert files_of(folder) == before


def test_a_shard_of_another_layout_ends_the_part(tmp_path: Path) -> None:
    """As a process would leave it that had begun the part anew with other columns."""
    part = Part(tmp_path / "part")
    part.append(gathered(pool_of([1], 0)), [(0, 1)])
    part.append(gathered(pool_of([1], 1).replace(scores=None)), [(1, 1)])
    assert Part(tmp_path / "part").batches == [(0, 1)]


@pytest.mark.parametrize("fail_at", range(8))
def test_a_full_disk_leaves_the_shards_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int) -> None:
    """Whichever write of a shard fails, and a second try succeeds."""
    folder = tmp_path / "part"
    whole = written(folder, THREE[:2])
    before = files_of(folder)
    part, fsync, calls = Part(folder), os.fsync, 0

    def failing(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == fail_at + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="No space left"):
        part.append(gathered(pool_of([2], 40)), [(12, 1)])
    assert files_of(folder) == before
    assert part.batches == [(10, 3), (11, 1)]
    monkeypatch.setattr(os, "fsync", fsync)
    part.append(gathered(pool_of([2], 40)), [(12, 1)])
    assert_same(Part(folder).pool(), Pool.cat([whole, pool_of([2], 40)]))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_the_line_of_a_shard_is_written_after_its_columns_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[str] = []
    fsync = os.fsync

    def watching(handle: int) -> None:
        forced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watching)
    part = Part(tmp_path / "part")
    part.append(gathered(pool_of([1, 2], 0)), [(0, 2)])
    columns = {name for name, _, _ in Layout.of(pool_of([1], 0)).columns}
    assert set(forced[:8]) == columns | {"frame_ids", "counts"}
    assert forced[8:] == [JOURNAL, "part", tmp_path.name], "then the journal, and the names of all of them"
    forced.clear()
    part.append(gathered(pool_of([1], 5)), [(1, 1)])
    assert forced[-1] == JOURNAL
    assert len(forced) == 9


def test_checksums_are_of_long_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in chunks, and from the place where the shard begins."""
    monkeypatch.setattr(shards, "_CHUNK", 7)
    whole = written(tmp_path / "part", THREE)
    assert_same(Part(tmp_path / "part").pool(), whole)


def test_columns_stay_on_the_disk(tmp_path: Path) -> None:
    """A column is a map of its file: what is written there shows."""
    folder = tmp_path / "part"
    written(folder, [[2]])
    columns = Part(folder).columns()
    with (folder / "frame_embeddings").open("r+b") as file:
        file.write(torch.full((2,), 3.0).bfloat16().view(torch.uint8).numpy().tobytes())
    assert columns["frame_embeddings"].tolist() == [[3.0, 3.0]]


def test_folders_are_forced_to_the_disk(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path)


def test_journals_that_are_none(tmp_path: Path) -> None:
    contents: list[Any] = [b"", b"\n", b"00000000 {}\n", b"zz\n", b"\xff" * 40]
    for content in contents:
        (tmp_path / JOURNAL).write_bytes(content)
        assert Part(tmp_path).batches == []
