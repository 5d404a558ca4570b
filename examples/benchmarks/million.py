"""A million frames through the real stages, out of core and under a memory limit.

    python examples/benchmarks/million.py                                  # needs 15 GB of disk; hours on one core
    python examples/benchmarks/million.py --frames 100000 --center 1000 --auto 500
    python examples/benchmarks/million.py --tasks entropy k_center         # only these

First shards are written, as a detector might have given them: frames of 20 boxes with 20 classes and embeddings of 256
numbers in half precision, in scenes, a file (`Pool.save`) for every 10,000 frames. Then every task runs in a process of
its own, whose address space is limited (`--limit`, in GiB). It goes through the shards by `choose_from_parts`.

Columns of the table:

- `seconds`: by the wall clock, or what the work took of a core (`--clock cpu`), where others use the machine, too;
- `floor`: the least that the task could take on this machine: bytes over the memory bandwidth, and operations over the
  rate of float32 matrix products, both measured at the start with as many threads. What is counted for each task stands
  in `floor_of`;
- `times`: the one over the other;
- `peak`: the most anonymous memory of the process; a frame's share stands beside it.

`read` maps the shards and goes through them without a stage, and `vectors` makes the vectors that the stages below it
begin with.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from cval_torch import DetectionSampling, Pool, choose_from_parts
from cval_torch.strategies import kmeans
from cval_torch.strategies.descriptor import Descriptors
from memory import anonymous, most_held

ROOT = Path(__file__).resolve().parents[2]
BOXES, CLASSES, WIDTH, SHARD = 20, 20, 256, 10_000
DIRECTIONS = 24
TAKEN = ("frames", "center", "clusters", "facilities", "auto")


class Shards:
    """The files of a folder, one after another, each mapped while it is looked at."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.pool"))

    def __iter__(self) -> Iterator[Pool]:
        for path in self.paths:
            yield from Pool.load(path, verify=False).parts()


def write_shards(folder: Path, frames: int) -> None:
    """Frames of scenes: 200 on the mean, which share what they show but for noise."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(DIRECTIONS, WIDTH, generator=generator) / DIRECTIONS**0.5
    scenes = max(frames // 200, 2)
    looks = torch.randn(scenes, DIRECTIONS, generator=generator)
    common = torch.rand(CLASSES, generator=generator).pow(3)
    for begin in range(0, frames, SHARD):
        path = folder / f"{begin:09d}.pool"
        count = min(SHARD, frames - begin)
        if path.exists():
            continue
        boxes = count * BOXES
        scene = torch.randint(0, scenes, (count,), generator=generator).repeat_interleave(BOXES)
        place = looks[scene] + 0.5 * torch.randn(boxes, DIRECTIONS, generator=generator)
        logits = 3 * torch.randn(boxes, CLASSES, generator=generator) + 4 * common
        probabilities = logits.softmax(1)
        scores, labels = probabilities.max(1)
        Pool(
            [f"{row:09d}" for row in range(begin, begin + count)],
            torch.arange(0, boxes + 1, BOXES),
            scores=scores,
            labels=labels,
            probabilities=probabilities,
            activation="softmax",
            box_embeddings=(place @ basis).half(),
            indices=torch.arange(begin, begin + count),
        ).save(path)


def stages_of(options: argparse.Namespace) -> dict[str, list[DetectionSampling]]:
    """The tasks."""

    def stage(strategy: str, n: int, **more: Any) -> DetectionSampling:
        return DetectionSampling.model_validate({"selection_strategy": strategy, "num_of_samples": n, **more})

    return {
        "entropy": [stage("entropy", 10_000)],
        "entropy, mean": [stage("entropy", 10_000, bbox_selection_policy="mean")],
        "entropy, budget and quotas": [stage("entropy", 10_000, num_of_boxes=50_000.0, class_quotas={0: 500, 7: 500})],
        "entropy to 20,000, k_center": [stage("entropy", 20_000), stage("k_center", 2000)],
        "k_center": [stage("k_center", options.center)],
        "clustering": [stage("clustering", options.clusters)],
        "weighted_kmeans": [stage("weighted_kmeans", options.clusters)],
        "facility_location": [stage("facility_location", options.facilities)],
        "auto": [stage("auto", options.auto)],
    }


def machine() -> dict[str, float]:
    """Bytes a second that are read from memory, and float32 operations a second of matrix products."""
    numbers = torch.rand(2**27)
    left, right = torch.rand(4096, 256), torch.rand(256, 4096)

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    return {"bandwidth": numbers.nbytes / best(numbers.sum), "rate": 2 * 4096 * 4096 * 256 / best(lambda: left @ right)}


def floor_of(task: str, options: argparse.Namespace, speeds: dict[str, float], assignments: int = 1) -> float:
    """Seconds: what is counted is what no way of doing the task can do without.

    - All: one read of the columns of the stage.
    - k_center, auto: beside that, one look at every vector for every 1,024 choices, that is as often as they fill a
      block, in float32.
    - k-means: as many assignments of every vector to the nearest of all centres as there were, each a matrix product.
    - facility_location: one look at every vector for each sample that is drawn.
    """
    frames = options.frames
    column = frames * BOXES * CLASSES * 4
    embeddings = frames * BOXES * WIDTH * 2
    vectors = frames * (WIDTH + CLASSES + 1) * 4
    if task.startswith("entropy"):
        return float(column / speeds["bandwidth"])
    if task in ("read", "vectors"):
        return float(embeddings / speeds["bandwidth"]) if task == "vectors" else 0.0
    if task in ("clustering", "weighted_kmeans"):
        operations = 2 * frames * (WIDTH + CLASSES + 1) * options.clusters * assignments
        return float(embeddings / speeds["bandwidth"] + operations / speeds["rate"])
    if task == "facility_location":
        samples = 1 + max(math.ceil(math.log2(max(options.facilities, 1) / 128)), 0)
        return float((embeddings + vectors * samples) / speeds["bandwidth"])
    chosen = options.center if task == "k_center" else options.auto
    read = embeddings + (column if task == "auto" else 0) + vectors * -(-chosen // 1024)
    return float(read / speeds["bandwidth"])


def work(order: dict[str, Any]) -> None:
    """In a process of its own: one task under the limit."""
    torch.set_num_threads(order["threads"])
    options = argparse.Namespace(**order["options"])
    shards = Shards(Path(order["folder"]))
    before = anonymous()
    limit = int(order["limit"] * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    clock = time.perf_counter
    if order["clock"] == "cpu":  # of the working thread, where there is one, since another one watches the memory
        clock = time.thread_time if order["threads"] == 1 else time.process_time
    seconds, assign, assigned = [0.0], kmeans._Share.assign, [0]

    def counted(share: Any, centres: torch.Tensor) -> torch.Tensor:
        assigned[0] += 1
        return assign(share, centres)

    setattr(kmeans._Share, "assign", counted)  # noqa: B010

    def run() -> None:
        began = clock()
        if order["task"] == "read":
            for part in shards:
                for _, column in part.columns():
                    column[:1].sum()
        elif order["task"] == "vectors":
            for part in shards:
                Descriptors.of(part, part=True)
        else:
            choose_from_parts(shards, stages_of(options)[order["task"]])
        seconds[0] = clock() - began

    most = most_held(run)
    print(json.dumps({"seconds": seconds[0], "peak": most - before, "assignments": assigned[0]}))


def run_task(task: str, options: argparse.Namespace) -> dict[str, float]:
    """What a process of its own says."""
    plain = {name: getattr(options, name) for name in TAKEN}
    order = {
        "task": task,
        "folder": str(options.folder),
        "threads": options.threads,
        "limit": options.limit,
        "clock": options.clock,
        "options": plain,
    }
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options.threads), "MALLOC_ARENA_MAX": "1"}
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", __file__, "--work", json.dumps(order)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, write the shards, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--center", type=int, default=10_000, help="frames that k_center chooses")
    parser.add_argument("--clusters", type=int, default=1000, help="frames that k-means chooses, one a cluster")
    parser.add_argument("--facilities", type=int, default=1000, help="frames that facility_location chooses")
    parser.add_argument("--auto", type=int, default=2000, help="frames that auto chooses")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=6.0, help="GiB of address space")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: time of the process only")
    parser.add_argument("--folder", type=Path, default=Path("million"), help="where the shards are, or will be")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        work(options.work)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    write_shards(options.folder, options.frames)
    torch.set_num_threads(options.threads)
    speeds = machine()
    print(
        f"{options.frames:,} frames x {BOXES} boxes x {CLASSES} classes, embeddings of {WIDTH}; {options.threads} "
        f"thread(s), {options.limit:g} GiB of address space, {options.clock} clock; "
        f"{speeds['bandwidth'] / 1e9:.1f} GB/s, {speeds['rate'] / 1e9:.0f} GFLOP/s\n\n"
        "| task | chosen | seconds | floor | times | peak GiB | KB a frame |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    tasks = stages_of(options)
    for task in options.tasks or ["read", "vectors", *tasks]:
        found = run_task(task, options)
        chosen = tasks[task][-1].num_of_samples if task in tasks else ""
        rounds = int(found["assignments"])
        least = floor_of(task, options, speeds, rounds)
        name = task + (f", {rounds} assignments" if rounds else "")
        times = f"{found['seconds'] / least:.1f}" if least else ""
        print(
            f"| {name} | {chosen} | {found['seconds']:.1f} | {least:.1f} | {times} | {found['peak'] / 2**30:.2f} | "
            f"{found['peak'] / options.frames / 1024:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
