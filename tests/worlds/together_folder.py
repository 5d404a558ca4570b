"""Scenarios for `together.py`: several processes with one `cache_dir`."""

from __future__ import annotations

import contextlib
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
