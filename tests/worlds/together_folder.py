"""Scenarios for `together.py`: several processes with one `cache_dir`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny_rcnn import Frames, loader_of, make_faster_rcnn
from together import rank, run, scenario
from watched_passes import Watched, same

from cval_torch import select
from cval_torch.pool.locks import FolderLock


@scenario
def a_folder_is_shared(root: Path) -> Any:
    reference = run(Frames(15), distributed=False)
    pools = [run(Frames(15), cache_dir=root / "shared", frames_per_shard=3) for _ in range(2)]
    names = sorted(path.name.split("-")[0] for path in (root / "shared").iterdir())
    read = Watched(15, breaks=0)
    chosen = select(
        make_faster_rcnn(), loader_of(Frames(15)), num_of_samples=2, cache_dir=root / "shared", progress=False
    )
    plain = select(make_faster_rcnn(), loader_of(Frames(15)), num_of_samples=2, distributed=False, progress=False)
    assert same(chosen.predictions, plain.predictions)
    assert chosen.frame_ids == plain.frame_ids
    assert chosen.indices == plain.indices
    return [same(pool, reference) for pool in pools], names, read.rows


@scenario
def a_pass_goes_on_with_as_many(root: Path) -> Any:
    with contextlib.suppress(Exception):
        run(Watched(18, breaks=13), cache_dir=root / "again", frames_per_shard=2)
    read = Watched(18)
    pool = run(read, cache_dir=root / "again", frames_per_shard=2)
    return same(pool, run(Watched(18), distributed=False)), read.rows


@scenario
def a_pass_goes_on_alone(root: Path) -> Any:
    with contextlib.suppress(Exception):
        run(Watched(18, breaks=13), cache_dir=root / "alone", frames_per_shard=2)
    dist.barrier()
    if rank() != 0:
        return None
    read = Watched(18)
    pool = run(read, cache_dir=root / "alone", distributed=False)
    return same(pool, run(Watched(18), distributed=False)), read.rows


@scenario
def a_pass_of_one_goes_on_together(root: Path) -> Any:
    if rank() == 0:
        with contextlib.suppress(Exception):
            run(Watched(18, breaks=7), cache_dir=root / "joined", frames_per_shard=2, distributed=False)
    dist.barrier()
    read = Watched(18)
    pool = run(read, cache_dir=root / "joined", frames_per_shard=2)
    return same(pool, run(Watched(18), distributed=False)), read.rows


@scenario
def another_pass_in_the_folder_is_refused_everywhere(root: Path) -> Any:
    run(Frames(15), cache_dir=root / "shared", embedding_dtype=torch.float16)


@scenario
def calls_that_differ_are_refused(root: Path) -> Any:
    run(Frames(4), cache_dir=root / "differing", embedding_dtype=torch.float16 if rank() else None)


@scenario
def embeddings_of_the_best_boxes_are_those_of_one_process(root: Path) -> Any:
    """Extracted in memory, to a folder, from it again, and chosen from by stages that compare vectors and boxes."""
    options: dict[str, Any] = {"top_boxes": 2, "frames_per_shard": 3}
    expected = run(Frames(15), distributed=False, **options)
    pools = [run(Frames(15), **options)]
    pools += [run(Frames(15), cache_dir=root / "best", **options) for _ in range(2)]
    equal = [same(pool, expected) for pool in pools]
    for strategy in ("k_center", "auto", "ppal"):
        for folder in (None, root / "best"):
            chosen, alone = (
                select(
                    make_faster_rcnn(),
                    loader_of(Frames(15)),
                    num_of_samples=4,
                    selection_strategy=strategy,
                    cache_dir=folder if together else None,
                    distributed=None if together else False,
                    progress=False,
                    **options,
                )
                for together in (True, False)
            )
            equal.append(chosen.frame_ids == alone.frame_ids and same(chosen.predictions, alone.predictions))
    return equal


@scenario
def a_folder_that_not_all_see_is_refused(root: Path) -> Any:
    run(Frames(4), cache_dir=root / f"own-{rank()}")


@scenario
def a_folder_in_use_is_refused(root: Path) -> Any:
    if rank() == 0:
        lock = FolderLock(root / "held" / "lock")
        lock.alone()
    dist.barrier()
    try:
        if rank() == 1:
            run(Frames(4), cache_dir=root / "held", distributed=False)
    finally:
        dist.barrier()
        if rank() == 0:
            lock.release()


class Named(Frames):
    """Frames from a list of files, of which some cannot be read; the image is a function of the file."""

    def __init__(self, files: list[int], broken: Sequence[int] = ()) -> None:
        super().__init__(max(files) + 1, size=48)
        self.numbers, self.broken, self.read = files, set(broken), list[int]()
        self.paths = [f"{number:02d}.jpg" for number in files]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        number = self.numbers[row]
        if number in self.broken:
            raise OSError("unreadable")
        self.read.append(number)
        return super().__getitem__(number)


@scenario
def what_cannot_be_read_is_left_out(root: Path) -> Any:
    """Of 16 frames one process cannot read a whole batch; alone, together, chosen from, and with a folder."""
    warnings.simplefilter("ignore")
    broken, files = (2, 3, 7, 12), list(range(16))
    expected = run(Named(files, broken), on_error="skip", distributed=False)
    pools = [
        run(Named(files, broken), on_error="skip"),
        run(Named(files, broken), on_error="skip", cache_dir=root / "skipped", frames_per_shard=3),
        run(Named(files, broken), on_error="skip", cache_dir=root / "skipped", frames_per_shard=3),
    ]
    equal = [same(pool, expected) and pool.skipped == expected.skipped for pool in pools]
    for strategy in ("entropy", "k_center"):  # scored in shares, and gathered
        options: dict[str, Any] = {"num_of_samples": 5, "selection_strategy": strategy, "progress": False}
        loader = loader_of(Named(files, broken))
        chosen = select(make_faster_rcnn(), loader, on_error="skip", **options)
        alone = select(make_faster_rcnn(), loader, on_error="skip", distributed=False, **options)
        equal.append(chosen.frame_ids == alone.frame_ids and chosen.indices == alone.indices)
        equal.append(chosen.predictions.skipped == alone.predictions.skipped)
    return equal, [frame.index for frame in pools[0].skipped]


@scenario
def a_pass_goes_on_over_other_files(root: Path) -> Any:
    """Files are removed and added between two runs, and one that is added cannot be read at first."""
    run(Named(list(range(12))), cache_dir=root / "moved", frames_per_shard=3)
    files = [0, 1, 20, 3, 4, 5, 6, 8, 9, 10, 11, 21, 22, 23]
    with contextlib.suppress(Exception):
        run(Named(files, [23]), cache_dir=root / "moved", frames_per_shard=3)
    dist.barrier()
    dataset = Named(files)
    pool = run(dataset, cache_dir=root / "moved", frames_per_shard=3)
    fresh = run(Named(files), distributed=False)
    return pool.frame_ids == fresh.frame_ids, torch.allclose(pool.boxes, fresh.boxes, atol=1e-3), dataset.read
