"""`extract(..., cache_dir=...)`: a killed pass goes on, and is the same bit for bit; another pass is refused."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import beside
from killed_passes import FRAMES, one_pass
from one_box import OneBox
from threads_as_ranks import as_ranks
from tiny_rcnn import Frames, loader_of, make_faster_rcnn, pairs
from torch import nn
from torch.utils.data import DataLoader
from watched_passes import Watched, run, same

from cval_torch import Pool, extract, select
from cval_torch.errors import ExtractionError, InvalidInputError, LoaderOrderError
from cval_torch.extraction.identity import SETTINGS
from cval_torch.extraction.loading import LoadingPlan
from cval_torch.extraction.pass_folder import PassCache
from cval_torch.extraction.resuming import resume
from cval_torch.pool.locks import FolderLock
from cval_torch.pool.ranks import Ranks

WORLDS = Path(__file__).parents[1] / "worlds"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, str(WORLDS / "killed_passes.py"), str(root), "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return root, {**json.loads(done.stdout), "stderr": done.stderr}


def test_a_pass_killed_at_random_moments_is_the_pass(killed: tuple[Path, dict[str, Any]]) -> None:
    root, outcome = killed
    reference = Pool.load(root / "reference")
    assert sum(outcome["random"].values()) > 6
    for name in outcome["random"]:
        pool = one_pass(root / name, shuffle="True" in name)  # finished: read back
        if "True" in name:  # shuffled: the uninterrupted pass in the order in which this one was begun
            assert pool.indices is not None
            assert pool.indices.tolist() != list(range(FRAMES))
            rows = pool.indices.reshape(-1, 2).tolist()
            loader = DataLoader(Frames(FRAMES), batch_sampler=rows, collate_fn=pairs)
            assert same(pool, extract(make_faster_rcnn(), loader, progress=False))
        else:
            assert same(pool, reference)


def test_a_pass_killed_at_any_write_is_the_pass(killed: tuple[Path, dict[str, Any]]) -> None:
    root, outcome = killed
    reference = Pool.load(root / "reference")
    folders = sorted(root.glob("sync-*"))
    assert len(folders) > 8
    assert outcome["syncs"] > 30  # five shards of nine files and a journal
    assert all(same(one_pass(folder), reference) for folder in folders)


def test_a_full_disk_is_an_error_and_the_shards_before_it_stay(killed: tuple[Path, dict[str, Any]]) -> None:
    root, outcome = killed
    assert outcome["full"] == 1
    assert "ExtractionError: batch" in outcome["stderr"]
    assert "File too large" in outcome["stderr"]
    assert outcome["left after full"] > 25_000
    assert same(one_pass(root / "full"), Pool.load(root / "reference"))


def test_what_is_done_is_not_loaded_again_and_a_finished_pass_asks_no_model(tmp_path: Path) -> None:
    broken = Watched(breaks=9)
    with pytest.raises(ExtractionError, match=r"batch 4, after 8 frames: frame '9' .*: OSError: unreadable"):
        run(tmp_path, broken)
    assert broken.rows == [*range(9), 8], "the rows of the batch that failed are loaded once more, each alone"
    repaired = Watched()
    pool = run(tmp_path, repaired)
    assert repaired.rows == [8, 9, 10, 11]
    assert same(pool, run(None))
    untouched = Watched(breaks=0)
    assert same(run(tmp_path, untouched), pool)
    assert untouched.rows == []
    chosen = select(make_faster_rcnn(), loader_of(untouched), num_of_samples=3, cache_dir=tmp_path, progress=False)
    plain = select(make_faster_rcnn(), loader_of(Watched()), num_of_samples=3, progress=False)
    assert chosen.frame_ids == plain.frame_ids
    assert same(chosen.predictions, plain.predictions)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("unreadable")])
def test_whole_batches_that_wait_are_written_when_a_pass_is_stopped(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises((KeyboardInterrupt, ExtractionError)):
        run(tmp_path, Watched(breaks=5, error=error), frames_per_shard=1000)
    repaired = Watched()
    run(tmp_path, repaired, frames_per_shard=1000)
    assert repaired.rows == [4, 5, 6, 7, 8, 9, 10, 11]


def test_the_bar_starts_at_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExtractionError):
        run(tmp_path, Watched(breaks=9))
    run(tmp_path, progress=True)
    bar = capsys.readouterr().err
    assert "8/12" in bar.split("\r")[1]
    assert "12/12" in bar


def test_a_shuffling_loader_goes_on_in_the_order_it_was_begun(tmp_path: Path) -> None:
    torch.manual_seed(1)
    with pytest.raises(ExtractionError):
        run(tmp_path, begun := Watched(40, most=20), shuffle=True)
    again = Watched(40)
    torch.manual_seed(2)
    pool = run(tmp_path, again, shuffle=True)
    assert pool.indices is not None
    assert pool.indices.tolist() == begun.rows + again.rows
    assert sorted(pool.frame_ids, key=int) == [str(row) for row in range(40)]


def test_columns_come_from_the_disk_and_other_kinds_of_them_survive(tmp_path: Path) -> None:
    adapter = OneBox(
        scores=lambda output: torch.full((len(output),), 0.25),
        probabilities=lambda output: torch.full((len(output), 3), 0.25),
        frame_embeddings=lambda output: output.repeat(1, 3),
        counts=lambda output: torch.ones(len(output), dtype=torch.int64),
    )
    adapter.read = lambda *args, read=adapter.read: _sigmoid(read(*args))  # type: ignore[method-assign]
    named = {"frame_id": lambda row, _: f"ü\u2028\n{row}", "embedding_dtype": torch.bfloat16, "adapter": adapter}
    model = nn.Linear(1, 1)
    pools = [run(folder, model=model, **named) for folder in (None, tmp_path, tmp_path)]
    assert same(pools[1], pools[0])
    assert same(pools[2], pools[0])
    assert pools[2].frame_embeddings is not None
    assert pools[2].frame_embeddings.dtype == torch.bfloat16
    assert same(pools[2].take([3, 1]), pools[0].take([3, 1]))
    nothing = OneBox(**{name: lambda output: torch.zeros(0) for name in ("scores",)})
    nothing.columns |= {"boxes": lambda output: torch.zeros(0, 4), "labels": lambda output: torch.zeros(0).long()}
    nothing.columns |= {"counts": lambda output: torch.zeros(len(output), dtype=torch.int64)}
    empty = run(tmp_path / "empty", model=model, adapter=nothing)
    assert (len(empty), empty.num_boxes) == (12, 0)


def _sigmoid(frames: Any) -> Any:
    frames.activation = "sigmoid"
    return frames


def test_memory_holds_a_shard_not_the_pool(tmp_path: Path) -> None:
    """A fresh process extracts 100 MB of embeddings; what it holds beside files never grows by a third of that."""
    code = f"""
import re, threading, torch
from pathlib import Path
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from one_box import OneBox
from cval_torch import extract
loader = DataLoader(TensorDataset(torch.zeros(5000, 1, 1, 1)), batch_size=100)
held = lambda: int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def go(width, folder):
    adapter = OneBox(box_embeddings=lambda output: torch.ones(len(output), width))
    return extract(nn.Linear(1, 1), loader, adapter=adapter, progress=False, cache_dir=folder)
go(1, {str(tmp_path / "thin")!r})
start, peak, stop = held(), 0, threading.Event()
def watch():
    global peak
    while not stop.wait(0.02):
        peak = max(peak, held())
watcher = threading.Thread(target=watch)
watcher.start()
pool = go(5120, {str(tmp_path / "wide")!r})
stop.set(); watcher.join()
assert pool.box_embeddings.shape == (5000, 5120) and bool((pool.box_embeddings[::500] == 1).all())
print(peak - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 33_000  # KiB


def damage(path: Path, generator: random.Random) -> None:
    """A byte that flips, or an end that is lost."""
    content = bytearray(path.read_bytes())
    place = generator.randrange(len(content))
    if generator.random() < 0.5:
        content[place] ^= 1 << generator.randrange(8)
    else:
        del content[place:]
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_shard_is_found_and_made_again(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1)
    adapter = OneBox(box_embeddings=lambda output: output)
    reference = run(tmp_path, model=model, adapter=adapter)
    reference = reference.replace(**{name: column.clone() for name, column in reference.columns()})
    files = sorted(path for path in tmp_path.glob("part-*/*") if path.stat().st_size)
    damage(files[generator.randrange(len(files))], generator)
    watched = Watched()
    pool = run(tmp_path, watched, model=model, adapter=adapter)
    assert same(pool, reference)
    assert watched.rows in (list(range(12)), list(range(4, 12)), list(range(8, 12)))
    intact = Watched()
    run(tmp_path, intact, model=model, adapter=adapter)
    assert intact.rows == []


def test_what_a_killed_process_left_half_written_is_cut_off(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError):
        run(tmp_path, Watched(breaks=9))
    for path in tmp_path.glob("part-*/*"):
        with path.open("ab") as file:
            file.write(b"half a shard")
    assert same(run(tmp_path), run(None))


def test_a_journal_that_reads_well_but_was_altered_is_not_believed(tmp_path: Path) -> None:
    reference = run(tmp_path)
    journal = next(tmp_path.glob("part-*-0")) / "journal"
    content = journal.read_bytes()
    assert content.count(b"[[2,2],[3,2]]") == 1
    journal.write_bytes(content.replace(b"[[2,2],[3,2]]", b"[[3,2],[2,2]]"))
    watched = Watched()
    assert same(run(tmp_path, watched), reference)
    assert watched.rows == list(range(4, 12))


def test_damage_in_what_another_process_wrote_does_not_come_back(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError):
        run(tmp_path, Watched(breaks=9))
    part = next(tmp_path.glob("part-*-0"))
    other = part.rename(f"{part}-other")
    boxes = bytearray((other / "boxes").read_bytes())
    boxes[-1] ^= 1
    (other / "boxes").write_bytes(boxes)
    watched = Watched()
    assert same(run(tmp_path, watched), run(None))
    assert watched.rows == list(range(4, 12))


@contextmanager
def without_rights(*folders: Path) -> Iterator[None]:
    """Nothing below `folders` can be written; not by root either, who is somebody else meanwhile."""
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="rights are another thing there")
def test_a_read_only_folder_is_an_error_but_a_finished_pass_is_read() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        root = Path(folder)
        root.chmod(0o755)
        with pytest.raises(ExtractionError):
            run(root / "begun", Watched(breaks=9))
        finished = run(root / "finished")
        with without_rights(root / "begun", root / "finished"):
            with pytest.raises(ExtractionError, match=r"could not be read or written.*denied"):
                run(root / "begun")
            assert same(run(root / "finished"), finished)
        for path in root.iterdir():
            path.chmod(0o755)
        for path in root.glob("*/part-*"):
            path.chmod(0o755)
        (root / "begun" / "lock").chmod(0o644)
        for path in root.glob("begun/part-*/*"):
            path.chmod(0o644)
        assert same(run(root / "begun"), finished)


def test_a_broken_pass_is_resumed_by_one_at_a_time(tmp_path: Path) -> None:
    """Two that found the same break would write over each other: the second is refused, and changes nothing."""
    with pytest.raises(ExtractionError):
        run(tmp_path, Watched(breaks=9))

    def holding() -> FolderLock:
        lock = FolderLock(tmp_path / "lock")
        lock.alone()
        return lock

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    with beside(holding):
        watched = Watched()
        with pytest.raises(InvalidInputError, match="is in use by process"):
            run(tmp_path, watched)
        assert watched.rows == []
    assert {path: path.read_bytes() for path in before} == before
    assert len(run(tmp_path)) == 12


class TestResume:
    """`resume` itself, with nothing to infer."""

    ROWS = ((3, 1), (0,), (2, 4))

    def plan(self, batches: Any = ROWS, dataset: Any = None) -> LoadingPlan:
        return LoadingPlan(dataset, None if batches is None else [list(batch) for batch in batches], [])

    def resumed(self, folder: Path, size: int = 1, **options: Any) -> list[Any]:
        given = {"plan": self.plan(), "identity": {"a": 1}, "machine": {"torch": "2"}, **options}
        shares = [[number for number in range(3) if number % size == rank] for rank in range(size)]

        def work(ranks: Ranks) -> Any:
            with PassCache(folder, frames_per_shard=1) as cache:
                plan, found = resume(
                    cache,
                    given["plan"],
                    shares,
                    ranks,
                    loader=[],
                    identity={**given["identity"], SETTINGS: {"rank": ranks.rank}},
                    machine=given["machine"],
                )
                for number in found[ranks.rank] if given.get("write", True) else ():
                    rows = plan.batches[number]  # type: ignore[index]
                    cache.add(number, Pool([str(row) for row in rows], torch.arange(len(rows) + 1)))
                ranks.exchange(lambda: None)
                return plan.batches, found

        return as_ranks(size, work)

    @pytest.mark.parametrize("size", [1, 2])
    def test_a_fresh_folder_has_everything_to_do_and_a_whole_one_nothing(self, tmp_path: Path, size: int) -> None:
        fresh, again = self.resumed(tmp_path, size), self.resumed(tmp_path, size)
        for rank in range(size):
            assert fresh[rank] == ([[3, 1], [0], [2, 4]], [[0, 1, 2]] if size == 1 else [[0, 2], [1]])
            assert again[rank] == ([[3, 1], [0], [2, 4]], [[]] * size)

    def test_what_is_missing_is_dealt_anew(self, tmp_path: Path) -> None:
        with PassCache(tmp_path, frames_per_shard=1) as cache:
            cache.begin({"a": 1, SETTINGS: {"rank": 0}}, {"torch": "2"}, [list(batch) for batch in self.ROWS])
            cache.write_as(0)
            cache.add(1, Pool(["0"], torch.arange(2)))
        assert [found for _, found in self.resumed(tmp_path, 2)] == [[[0], [2]]] * 2

    def test_another_pass_is_refused(self, tmp_path: Path) -> None:
        self.resumed(tmp_path)
        changes: list[tuple[dict[str, Any], str]] = [
            ({"identity": {"a": 2}}, "a was 1 and is 2 now"),
            ({"plan": self.plan([(3, 1), (0,), (2, 5)])}, r"frames were 5 and are 5 now \(row 4 is gone\)"),
            ({"plan": self.plan([(3, 1, 0), (2, 4)])}, "the loader's batch size was 2 and is 3 now"),
            ({"plan": self.plan([(1, 3), (0,), (2, 4)])}, r"batch 0 was of rows \[3, 1\] and is of \[1, 3\] now"),
        ]
        for options, message in changes:
            (error,) = self.resumed(tmp_path, **options)
            assert isinstance(error, InvalidInputError)
            assert re.search(f"holds another pass: .*{message}", str(error)), error
        (error,) = self.resumed(tmp_path, plan=self.plan(None))
        assert isinstance(error, LoaderOrderError)

    def test_another_machine_reads_a_finished_pass_and_does_not_go_on_with_one(self, tmp_path: Path) -> None:
        self.resumed(tmp_path / "whole")
        assert self.resumed(tmp_path / "whole", machine={"torch": "3"})[0][1] == [[]]
        self.resumed(tmp_path / "begun", write=False)
        (error,) = self.resumed(tmp_path / "begun", machine={"torch": "3"})
        assert "torch was 2 and is 3 now" in str(error)
