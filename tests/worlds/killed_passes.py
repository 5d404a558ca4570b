"""Passes that are killed, each in a process of its own; run as a script, which prints what came of them as JSON.

The script imports torch once and forks: a killed process is a real one, and a new one costs nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tiny_rcnn import Frames, make_faster_rcnn, pairs
from torch.utils.data import DataLoader

from cval_torch import Pool, extract

FRAMES, SHARD = 24, 5


def one_pass(folder: Path | None, *, shuffle: bool = False) -> Pool:
    torch.manual_seed(0 if folder is None else time.monotonic_ns() % 1000)  # a resumed run shuffles in its own way
    loader = DataLoader(Frames(FRAMES), batch_size=2, collate_fn=pairs, shuffle=shuffle)
    return extract(make_faster_rcnn(), loader, cache_dir=folder, frames_per_shard=SHARD, progress=False)


def in_a_process(work: Callable[[], Any]) -> tuple[int, Callable[[], int]]:
    """Its id, and what waits for it: 0 for success, minus the signal that killed it."""
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return process, lambda: os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def calls_in(work: Callable[[], Any], *, dies_at: int | None = None) -> int:
    """How many calls `work` makes, of Python functions and of those in C; or it dies at one of them."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            if calls == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def killed_after(calls: int, folder: Path, *, shuffle: bool) -> int:
    """A pass that dies at its `calls`-th call: anywhere, and at the same place on any machine."""
    return in_a_process(lambda: calls_in(lambda: one_pass(folder, shuffle=shuffle), dies_at=calls))[1]()


def killed_at_sync(count: int, folder: Path) -> int:
    """The process dies when it forces its `count`-th file to the disk: before that is done, or just after."""

    def work() -> None:
        sync, calls = os.fsync, 0

        def dying(handle: int) -> None:
            nonlocal calls
            calls += 1
            if calls == count and count % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(handle)
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = dying
        one_pass(folder)

    return in_a_process(work)[1]()


def at_random(folder: Path, *, shuffle: bool, generator: random.Random, most: int) -> int:
    """Kill passes in `folder` at random calls, up to `most`, until one gets through; how many were killed."""
    killed = 0
    while (code := killed_after(generator.randint(1, most), folder, shuffle=shuffle)) != 0:
        if code != -signal.SIGKILL:
            raise SystemExit(f"a pass ended with {code}")
        killed += 1
    return killed


def out_of_room(folder: Path) -> int:
    """A limit on the size of files stands for a full disk."""

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, resource.RLIM_INFINITY))
        one_pass(folder)

    return in_a_process(work)[1]()


def main(root: Path, seed: int) -> None:
    torch.set_num_threads(1)
    generator = random.Random(seed)
    reference = one_pass(None)
    reference.save(root / "reference")
    most = calls_in(lambda: one_pass(root / "counted"))
    outcome: dict[str, Any] = {"random": {}, "syncs": 0}
    for shuffle in (False, True):
        for turn in range(2):
            folder = root / f"random-{shuffle}-{turn}"
            outcome["random"][folder.name] = at_random(folder, shuffle=shuffle, generator=generator, most=most)
    count = 1
    while killed_at_sync(count, folder := root / f"sync-{count}") == -signal.SIGKILL:
        one_pass(folder)
        count += 4
    outcome["syncs"] = count
    outcome["full"] = out_of_room(root / "full")
    outcome["left after full"] = sum(path.stat().st_size for path in (root / "full").rglob("*"))
    one_pass(root / "full")
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
