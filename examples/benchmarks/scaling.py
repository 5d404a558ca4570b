"""One process against two, each pinned to a core of its own, and what more of them would do.

    python examples/benchmarks/scaling.py                                    # some ten minutes
    python examples/benchmarks/scaling.py --frames 20000 --repeats 1 --tasks k_center

Every process has a share of the frames, as after a pass. The frames have a box and an embedding of 256 numbers each, in
scenes. A task is timed from when all processes are ready to when rank 0 has the choice, by the wall clock, with one
thread a process; the table has the median of the repeats. `pass` is `extract` with a Faster R-CNN of random weights.

Columns of the table:

- `speed-up`: the seconds of one process over those of two.
- `alone`: the seconds in which rank 1 waits for rank 0 to decide: what no number of processes makes shorter.
- `orders`: how often the processes hear of each other; `MB`: what rank 0 sends and gets.
- `model`: the seconds that the model says for two processes, `alone + (T - alone) / P + orders * latency * log2(P) +
  bytes / bandwidth`, where T is what one process takes. Latency and bandwidth are measured first, between the two.
- `8` and `64`: the speed-up that it says for so many, on several machines, with the latency and the bandwidth that
  `--latency` and `--bandwidth` give.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from cval_torch import DetectionSampling, LocalBackend, Pool, extract
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.together import choose_together

WIDTH, CLASSES, DIRECTIONS = 256, 20, 24
TASKS = ("pass", "entropy", "k_center", "clustering", "kmeans_plus_plus", "auto")


class Frames(Dataset[Any]):
    """Noise, the same for the same row."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        return torch.rand(3, 320, 320, generator=torch.Generator().manual_seed(row))


class Counted:
    """How often the processes hear of each other, how many bytes travel, and how long this one waits for orders."""

    def __init__(self) -> None:
        self.orders, self.bytes, self.waited = 0, 0, 0.0

    def watch(self) -> None:
        """Put this around everything that the processes do together."""
        gather, send, tell = Ranks._all_gather, Ranks.send, Ranks.tell

        def counted_gather(ranks: Ranks, value: Any) -> Any:
            self.orders += 1
            answers = gather(ranks, value)
            self.bytes += sum(len(content) for _, content in answers)
            return answers

        def counted_send(ranks: Ranks, tensor: torch.Tensor, **options: Any) -> torch.Tensor:
            self.bytes += tensor.nbytes
            return send(ranks, tensor, **options)

        def timed_tell(ranks: Ranks, value: Any) -> Any:
            self.orders += 1
            began = time.perf_counter()
            told = tell(ranks, value)
            self.waited += time.perf_counter() - began
            return told

        replaced = (("_all_gather", counted_gather), ("send", counted_send), ("tell", timed_tell))
        for name, work in replaced:
            setattr(Ranks, name, work)


def make_share(frames: int, rank: int, size: int) -> tuple[Pool, list[int]]:
    """Every `size`-th frame, as batches of one are dealt."""
    generator = torch.Generator().manual_seed(0)
    scenes = torch.randn(max(frames // 200, 2), DIRECTIONS, generator=generator)
    basis = torch.randn(DIRECTIONS, WIDTH, generator=generator) / DIRECTIONS**0.5
    scene = torch.randint(0, len(scenes), (frames,), generator=generator)
    place = scenes[scene] + 0.5 * torch.randn(frames, DIRECTIONS, generator=generator)
    probabilities = (2 * torch.randn(frames, CLASSES, generator=generator)).softmax(1)
    rows = torch.arange(rank, frames, size)
    scores, labels = probabilities[rows].max(1)
    pool = Pool(
        [f"{row:08d}" for row in rows.tolist()],
        torch.arange(len(rows) + 1),
        scores=scores,
        labels=labels,
        probabilities=probabilities[rows],
        activation="softmax",
        box_embeddings=place[rows] @ basis,
        indices=rows,
    )
    return pool, rows.tolist()


def work_of(task: str, options: argparse.Namespace, ranks: Ranks) -> Callable[[], Sequence[str]]:
    """What a task does; it returns the ids of what was chosen."""
    if task == "pass":
        torch.manual_seed(0)
        model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).eval()
        loader: DataLoader[Any] = DataLoader(Frames(options.images), batch_size=2, collate_fn=list)
        distributed = None if ranks.size > 1 else False
        return lambda: extract(model, loader, progress=False, distributed=distributed).frame_ids
    share, places = make_share(options.frames, ranks.rank, ranks.size)
    wanted = options.frames // (100 if task in ("k_center", "clustering", "kmeans_plus_plus") else 200)
    stage = DetectionSampling.model_validate({"selection_strategy": task, "num_of_samples": max(wanted, 1)})
    return lambda: choose_together(share, places, [stage], LocalBackend(), ranks)[0].frame_ids


def measured_link(ranks: Ranks) -> tuple[float, float]:
    """Seconds of one small exchange, and bytes a second from one process to another."""
    if ranks.size == 1:
        return 0.0, math.inf
    small, large = [], []
    numbers = torch.zeros(2**24, dtype=torch.uint8)
    for _ in range(20):
        began = time.perf_counter()
        ranks.exchange(lambda: None)
        small.append(time.perf_counter() - began)
        ranks.send(numbers, source=1, to=0)
        ranks.exchange(lambda: None)
        large.append(time.perf_counter() - began - 2 * small[-1])
    return statistics.median(small), numbers.numel() / statistics.median(large)


def be_a_process(options: argparse.Namespace) -> None:
    """One of the processes: writes what it measured, if it is rank 0."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo")
    ranks = Ranks()
    latency, bandwidth = measured_link(ranks)
    work = work_of(options.tasks[0], options, ranks)
    counted, seconds, waited = Counted(), [], []
    counted.watch()
    for _ in range(options.repeats):
        ranks.exchange(lambda: None)
        counted.orders, counted.bytes, counted.waited = 0, 0, 0.0
        began = time.perf_counter()
        chosen = work()
        seconds.append(time.perf_counter() - began)
        waited.append(ranks.exchange(lambda: counted.waited)[-1])
    found = {
        "seconds": statistics.median(seconds),
        "alone": statistics.median(waited),
        "orders": counted.orders,
        "bytes": counted.bytes,
        "latency": latency,
        "bandwidth": bandwidth,
        "chosen": list(chosen),
    }
    if rank == 0:
        Path(options.process).write_text(json.dumps(found))
    if size > 1:
        dist.destroy_process_group()


def run(task: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """What rank 0 of so many processes measured."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", __file__),
            *("--process", str(found), "--tasks", task, "--frames", str(options.frames)),
            *("--images", str(options.images), "--repeats", str(options.repeats)),
        ]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603
        content: dict[str, Any] = json.loads(found.read_text())
        return content


def model_of(one: dict[str, Any], two: dict[str, Any], size: int, latency: float, bandwidth: float) -> float:
    """Seconds that the model says for `size` processes.

    Bytes that rank 0 sends or gets do not depend on their number, if shares are what travels.
    """
    alone = min(two["alone"], one["seconds"])
    shared = (one["seconds"] - alone) / size
    return float(alone + shared + two["orders"] * latency * math.log2(size) + two["bytes"] / bandwidth)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=96, help="of the pass")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--latency", type=float, default=1e-4, help="seconds of a message between machines")
    parser.add_argument("--bandwidth", type=float, default=1.25e9, help="bytes a second between machines")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        be_a_process(options)
        return
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two processes need two cores")
    print("| task | 1 process, s | 2 processes, s | speed-up | alone, s | orders | MB | model, s | 8 | 64 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for task in options.tasks:
        one, two = run(task, 1, options), run(task, 2, options)
        if one["chosen"] != two["chosen"]:
            sys.exit(f"{task}: two processes chose other frames than one")
        said = model_of(one, two, 2, two["latency"], two["bandwidth"])
        more = [one["seconds"] / model_of(one, two, size, options.latency, options.bandwidth) for size in (8, 64)]
        print(
            f"| {task} | {one['seconds']:.2f} | {two['seconds']:.2f} | {one['seconds'] / two['seconds']:.2f} "
            f"| {two['alone']:.2f} | {two['orders']} | {two['bytes'] / 1e6:.1f} | {said:.2f} "
            f"| {more[0]:.1f} | {more[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
