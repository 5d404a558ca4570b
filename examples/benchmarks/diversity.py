"""What the diversity strategies cost, beside other ways to do the same: time, memory, and the objective reached.

    python examples/benchmarks/diversity.py                              # 100,000 x 256, 1,000 chosen; an hour
    python examples/benchmarks/diversity.py --rows 10000 --n 200 --strategies k_center weighted_kmeans
    python examples/benchmarks/diversity.py --clock wall                 # on a quiet machine

The peers are optional, and what is not there is said to be "not installed":
`pip install "cval_torch[benchmarks]"`, or `pip install faiss-cpu apricot-select scikit-activeml scikit-learn scipy`.

Every run is a process of its own, which has the embeddings in memory, warms up on a few of them, and then chooses once.
Runs of ours and of the peers are in turns, all on the same number of threads. A line of the table has

- `seconds`: the median;
- `beside ours`: the median of the ratios of a peer to ours of the same round, and the least and the greatest;
- `memory`: the most that the process held from the embeddings on, as a multiple of their bytes (they are 1);
- the objective, smaller is better, as `Problem.objective` of `diversity_peers.py` has it, and its ratio to ours;
- `same`: whether the peer chose the same rows in the same order.

A peer that cannot do the size (it needs all pairs, or hours) is compared at the size that the line names.

The embeddings are unit vectors of `scenes`, as videos give them: 200 frames a scene on the mean, few scenes of many
frames, 24 directions in which they differ, and noise. `--data noise` is normal noise, in which nothing is near to
anything: the worst case.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from diversity_peers import STRATEGIES, Contender, Problem

ROOT = Path(__file__).resolve().parents[2]
DIRECTIONS = 24


@dataclass(frozen=True)
class Run:
    """What one process said."""

    seconds: float
    memory: float | None
    objective: float
    rows: list[int] | None


def make_points(rows: int, width: int, kind: str, *, seed: int = 0) -> torch.Tensor:
    """(rows, width) float32."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.empty(rows, width)
    scenes = max(rows // 200, 2)
    basis = torch.randn(DIRECTIONS, width, generator=generator) / DIRECTIONS**0.5
    centres = torch.randn(scenes, DIRECTIONS, generator=generator)
    share = torch.rand(scenes, generator=generator).pow(-0.5)
    for block in torch.split(points, 4096):
        noise = torch.randn(block.shape, generator=generator)
        if kind == "noise":
            block.copy_(noise)
            continue
        scene = torch.multinomial(share, len(block), replacement=True, generator=generator)
        place = centres[scene] + 0.35 * torch.randn(len(block), DIRECTIONS, generator=generator)
        block.copy_(torch.nn.functional.normalize(place @ basis + 0.05 * noise))
    return points


def memory(what: str) -> int | None:
    """Bytes of this process: `VmRSS`, now, or `VmHWM`, the most; None where there is no /proc."""
    status = Path("/proc/self/status")
    found = re.search(rf"^{what}:\s+(\d+)", status.read_text(), flags=re.MULTILINE) if status.exists() else None
    return 1024 * int(found.group(1)) if found else None


def forget_peak() -> None:
    """`VmHWM` begins at what is held now."""
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        peak.write_text("5")


def work(order: dict[str, str | int]) -> None:
    """In a process of its own: choose once, and print what it took."""
    torch.set_num_threads(int(order["threads"]))
    contender = find(str(order["strategy"]), str(order["contender"]))
    rows, n = int(order["rows"]), int(order["n"])
    if contender.needs == "faiss":
        importlib.import_module("faiss").omp_set_num_threads(int(order["threads"]))
    few = make_points(300, int(order["width"]), "scenes")
    contender.choose(Problem(few, torch.ones(300), 5))
    forget_peak()
    before = memory("VmRSS")
    count = rows * int(order["width"])
    points = torch.from_numpy(np.fromfile(str(order["file"]), dtype=np.float32, count=count)).view(rows, -1)
    weights = torch.rand(rows, generator=torch.Generator().manual_seed(1)) + 0.01
    problem = Problem(points, weights, n)
    clock = time.process_time if order["clock"] == "cpu" else time.perf_counter
    began = clock()
    answer = contender.choose(problem)
    seconds = clock() - began
    most = memory("VmHWM")
    judged = answer if contender.judged is None else contender.judged(problem)
    run = Run(
        seconds,
        None if most is None or before is None else (most - before) / points.nbytes,
        problem.objective(STRATEGIES[str(order["strategy"])].objective, judged),
        answer.tolist() if answer.dtype == torch.int64 else None,
    )
    print(json.dumps(run.__dict__))


def find(strategy: str, contender: str) -> Contender:
    """By name."""
    found = STRATEGIES[strategy]
    return next(each for each in (found.ours, *found.peers) if each.name == contender)


def run_once(order: dict[str, str | int]) -> Run:
    """In a process of its own."""
    threads = {f"{name}_NUM_THREADS": str(order["threads"]) for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    said = subprocess.run(  # noqa: S603
        [sys.executable, __file__, "--work", json.dumps(order)],
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Run(**json.loads(said.stdout.splitlines()[-1]))


def compare(strategy: str, order: dict[str, str | int], runs: int) -> list[str]:
    """Lines of the table: ours and the peers, at every size that one of them needs."""
    found, lines = STRATEGIES[strategy], []
    n = min(int(order["n"]), found.most or int(order["n"]))
    most = int(order["rows"])
    missing = [peer for peer in found.peers if importlib.util.find_spec(peer.needs) is None]
    sizes: dict[int, list[Contender]] = {most: []}
    for peer in found.peers:
        sizes.setdefault(min(most, peer.most or most), []).append(peer)
    for rows, peers in sizes.items():
        present = [peer for peer in peers if peer not in missing]
        size = order | {"strategy": strategy, "rows": rows, "n": min(n, max(rows // 10, 1))}
        names = [found.ours.name, *(peer.name for peer in present)] if present or rows == most else []
        taken: dict[str, list[Run]] = {name: [] for name in names}
        for turn in range(runs):
            for name in names if turn % 2 == 0 else names[::-1]:
                taken[name].append(run_once(size | {"contender": name}))
        for name, theirs in taken.items():
            first = f"| {strategy} | {name} | {rows:,} x {size['width']}, {size['n']:,} |"
            lines.append(f"{first} {figures(theirs, taken[found.ours.name], found.objective)} |")
        lines += [f"| {strategy} | {peer.name} | | not installed | | | | | |" for peer in peers if peer in missing]
    return lines


def figures(theirs: list[Run], ours: list[Run], objective: str) -> str:
    """The rest of a line."""
    ratios = [run.seconds / own.seconds for run, own in zip(theirs, ours, strict=True)]
    reached, own_reached = theirs[0].objective, ours[0].objective
    held = [run.memory for run in theirs if run.memory is not None]
    seconds = f"{statistics.median(run.seconds for run in theirs):.2f}"
    multiple = f"{max(held):.2f}" if held else ""
    if theirs is ours:
        return f"{seconds} | 1 | {multiple} | {objective} {reached:.5g} | 1 | "
    ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    same = "" if theirs[0].rows is None else "yes" if theirs[0].rows == ours[0].rows else "no"
    beside = f"{reached / own_reached:.4f}" if own_reached else ""
    return f"{seconds} | {ratio} | {multiple} | {objective} {reached:.5g} | {beside} | {same}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--n", type=int, default=1000, help="rows to choose; a tenth of all at most")
    parser.add_argument("--data", choices=["scenes", "noise"], default="scenes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="cpu", help="cpu: time of the process only")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        work(options.work)
        return
    print(
        f"{options.data}, {options.threads} thread(s), {options.runs} runs each, {options.clock} clock\n\n"
        "| strategy | by | size, chosen | seconds | beside ours | memory | objective | beside ours | same |\n"
        "|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "points"
        make_points(options.rows, options.width, options.data).numpy().tofile(file)
        order: dict[str, str | int] = {
            name: getattr(options, name) for name in ("rows", "width", "n", "threads", "clock")
        }
        for strategy in options.strategies:
            print("\n".join(compare(strategy, order | {"file": str(file)}, options.runs)), flush=True)


if __name__ == "__main__":
    main()
