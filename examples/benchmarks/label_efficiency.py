"""What is a chosen frame worth? Learning curves of selection strategies beside random choice, on composed frames.

    python examples/benchmarks/label_efficiency.py            # the realistic pool: 40 minutes on two idle cores
    python examples/benchmarks/label_efficiency.py --settings clean no_duplicates no_tail no_empties
    python examples/benchmarks/label_efficiency.py --quick    # minutes; shows that it runs, and nothing else

For each pool and each initial set of random frames, every arm runs the same rounds: train, measure mAP@50 on unseen
frames, choose more frames with the detector just trained, annotate them (the pool knows its labels), start again from
the weights learnt on letters. All arms share the first detector, the order of the batches and the test frames, so they
are compared in pairs, within a pool and a start. Steps of training grow as the square root of the labelled set.

Every round is written down when it is done; the same command goes on from there. Written to `--out`: `rounds.csv` (a
line a round), `summary.md` (the tables) and a picture of learning curves for each setting. Three arms are there for
measure: `random`, `every n-th` frame in the order of the videos, and an `oracle` that cheats: it reads the labels.

What it cannot show: frames are composed, pools engineered, the detector small. No parameter was tuned on these pools.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import Pool, extract
from digits_on_photos import DigitFrames, PoolSettings, pool_frames, unseen_frames
from label_efficiency_arms import REFERENCES, STRATEGIES, Choice, all_arms
from label_efficiency_report import Round, write_report
from small_detector import collate, detector_of_digits, evaluate_map50, pretrained_on_letters, train

SETTINGS: dict[str, dict[str, bool]] = {
    "realistic": {},
    "no_duplicates": {"duplicates": False},
    "no_tail": {"long_tail": False},
    "no_empties": {"empties": False},
    "clean": {"duplicates": False, "long_tail": False, "empties": False},
}
POOL_SEEDS_FROM = 100  # far from the seeds that examples use, on which choices of defaults were looked at


@dataclass(frozen=True)
class Plan:
    """How large the experiment is: what a stored round depends on.

    `added` frames are chosen after each training but the last; `steps` of `batch_size` frames train on `start` frames.
    """

    frames: int = 2000
    test_frames: int = 400
    start: int = 80
    added: tuple[int, ...] = (40, 40, 80, 80)
    steps: int = 200
    batch_size: int = 8
    letters_steps: int = 1500

    def steps_for(self, labelled: int) -> int:
        """Training steps for so many labelled frames."""
        return int(self.steps * math.sqrt(labelled / self.start))


@dataclass(frozen=True)
class Job:
    """One pool and one initial set, with all arms: what one process does at a time."""

    plan: Plan
    setting: str
    pool_seed: int
    start_seed: int
    arms: tuple[str, ...]
    random_draws: int
    folder: Path

    def runs(self) -> Iterator[tuple[str, int]]:
        """Arm and draw; only `random` is drawn more than once."""
        for arm in self.arms:
            for draw in range(self.random_draws if arm == "random" else 1):
                yield arm, draw


@dataclass
class _Bench:
    """A job's frames, and its detectors, trained when they are asked for."""

    job: Job
    pool: DigitFrames = field(init=False)
    test: DigitFrames = field(init=False)

    def __post_init__(self) -> None:
        settings = PoolSettings(frames=self.job.plan.frames, **SETTINGS[self.job.setting])
        self.pool = pool_frames(settings, seed=self.job.pool_seed)
        self.test = unseen_frames(self.job.plan.test_frames, seed=self.job.pool_seed)
        # of all arms the first detector is the same: it is trained once, and asked once
        self._first: tuple[Any, float] | None = None
        self._first_said: Pool | None = None

    def detector(self, labelled: list[int]) -> tuple[Any, float]:
        """The detector trained on these rows, and its mAP@50."""
        plan = self.job.plan
        if len(labelled) == plan.start and self._first is not None:
            return self._first
        letters = pretrained_on_letters(letters_file(self.job.folder, plan), steps=plan.letters_steps)
        detector = detector_of_digits(letters, seed=self.job.start_seed)
        train(
            detector,
            Subset(self.pool, labelled),
            steps=plan.steps_for(len(labelled)),
            batch_size=plan.batch_size,
            seed=self.job.start_seed,
        )
        trained = detector, evaluate_map50(detector, self.test)
        if len(labelled) == plan.start:
            self._first = trained
        return trained

    def said(self, detector: Any) -> Pool:
        """What the detector says of all frames."""
        first = self._first is not None and detector is self._first[0]
        if first and self._first_said is not None:
            return self._first_said
        said = extract(detector, DataLoader(self.pool, batch_size=100, collate_fn=collate), progress=False)
        if first:
            self._first_said = said
        return said

    def names(self) -> Pool:
        """All frames, and nothing said of them: what a reference needs."""
        none = torch.zeros(len(self.pool) + 1, dtype=torch.int64)
        return Pool(self.pool.frame_ids, none, indices=torch.arange(len(self.pool)))

    def choose(self, arm: str, draw: int, number: int, labelled: list[int], detector: Any) -> list[int]:
        """The rows of the frames that the arm adds."""
        everything = self.names() if arm in REFERENCES else self.said(detector)
        rest = sorted(set(range(len(self.pool))) - set(labelled))
        seed = 1_000 * self.job.start_seed + 10 * draw + number
        parts = everything.take(rest), everything.take(labelled)
        picked = all_arms()[arm](Choice(*parts, self.pool, self.job.plan.added[number], seed))
        return [rest[row] for row in picked]

    def round(self, run: tuple[str, int], number: int, labelled: list[int], *, map50: float, seconds: float) -> Round:
        """What is written down of a round; `run` is arm and draw."""
        labels = [self.pool.labels[row] for row in labelled]
        return Round(
            setting=self.job.setting,
            pool=self.job.pool_seed,
            start=self.job.start_seed,
            arm=run[0],
            draw=run[1],
            round=number,
            frames=len(labelled),
            boxes=sum(map(len, labels)),
            empty_frames=sum(len(each) == 0 for each in labels),
            sequences=len(set(self.pool.sequences[labelled].tolist())),
            classes=len({label for each in labels for label in each.tolist()}),
            map50=map50,
            seconds=round(seconds, 1),
        )


def letters_file(folder: Path, plan: Plan) -> Path:
    """Where the weights learnt on letters are kept: the same for all jobs."""
    return folder / f"letters-{plan.letters_steps}steps.pt"


def run_job(job: Job) -> list[Round]:
    """All arms of a job; rounds that are stored already are not run again."""
    torch.set_num_threads(1)
    bench: _Bench | None = None
    rounds: list[Round] = []
    plan = json.loads(json.dumps(asdict(job.plan)))  # as a file has it
    for arm, draw in job.runs():
        name = f"{job.setting}-pool{job.pool_seed}-start{job.start_seed}-{arm}-{draw}".replace(" ", "_")
        file = job.folder / "rounds" / f"{name}.json"
        stored: dict[str, Any] = {"plan": plan, "rounds": [], "next": []}
        if file.exists():
            stored = json.loads(file.read_text())
        if stored["plan"] != plan:
            raise SystemExit(f"{file} is of another plan: {stored['plan']}; give another --out")
        while len(stored["rounds"]) <= len(job.plan.added):
            bench = bench or _Bench(job)
            _next_round(bench, arm, draw, stored)
            _write(file, json.dumps(stored))
        rounds.extend(Round(**each) for each in stored["rounds"])
    return rounds


def _next_round(bench: _Bench, arm: str, draw: int, stored: dict[str, Any]) -> None:
    """Train, measure and choose once more, and add that to `stored`."""
    plan, began, number = bench.job.plan, time.perf_counter(), len(stored["rounds"])
    shuffle = torch.Generator().manual_seed(bench.job.start_seed)
    labelled = stored["next"] or torch.randperm(plan.frames, generator=shuffle)[: plan.start].tolist()
    detector, map50 = bench.detector(labelled)
    more = bench.choose(arm, draw, number, labelled, detector) if number < len(plan.added) else []
    done = bench.round((arm, draw), number, labelled, map50=map50, seconds=time.perf_counter() - began)
    stored["rounds"].append(asdict(done))
    stored["next"] = labelled + more


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(file)


def main(arguments: list[str] | None = None) -> list[Round]:
    """Run what is not stored yet, and write the report of everything asked for."""
    options = parse(arguments)
    plan = Plan()
    if options.quick:
        plan = Plan(frames=600, test_frames=120, start=40, added=(40, 40), steps=100, letters_steps=500)
    if options.tiny:
        plan = Plan(frames=60, test_frames=10, start=10, added=(5,), steps=2, letters_steps=2)
    pretrained_on_letters(letters_file(options.out, plan), steps=plan.letters_steps, progress=True)
    jobs = [
        Job(plan, setting, POOL_SEEDS_FROM + pool, start, tuple(options.arms), options.random_draws, options.out)
        for setting in options.settings
        for pool in range(options.pools)
        for start in range(options.starts)
    ]
    began, rounds = time.perf_counter(), []
    for number, done in enumerate(_results(jobs, options.processes), start=1):
        rounds.extend(done)
        print(f"{number} of {len(jobs)} pools and starts after {time.perf_counter() - began:.0f} s", flush=True)
    print(write_report(rounds, options.out))
    return rounds


def _results(jobs: list[Job], processes: int) -> Iterator[list[Round]]:
    if processes == 1:
        yield from map(run_job, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_job, jobs)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; `--quick` and `--tiny` also lower what is not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["realistic"], help="kinds of pool")
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=[*all_arms(), "all"],
        help="beside the references, which are always run (default: the main ones)",
    )
    parser.add_argument("--pools", type=int, help="pools of each setting (5)")
    parser.add_argument("--starts", type=int, help="initial sets of each pool (2)")
    parser.add_argument("--random-draws", type=int, help="random choices of each start (3)")
    parser.add_argument("--processes", type=int, default=2, help="at a time, each on one core (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two small pools, few steps: minutes")
    parser.add_argument("--tiny", action="store_true", help="one pool of 60 frames, untrained: seconds")
    parser.add_argument("--out", type=Path, default=Path("runs/label_efficiency"), help="folder (%(default)s)")
    options = parser.parse_args(arguments)
    usual = (1, 1, 1) if options.tiny else (2, 1, 2) if options.quick else (5, 2, 3)
    for name, value in zip(("pools", "starts", "random_draws"), usual, strict=True):
        setattr(options, name, getattr(options, name) or value)
    arms = options.arms or list(STRATEGIES)
    # the references always: a strategy without random, every n-th and the oracle beside it says nothing
    options.arms = list(all_arms()) if "all" in arms else list(dict.fromkeys([*REFERENCES, *arms]))
    if options.quick or options.tiny:
        options.out = options.out / ("tiny" if options.tiny else "quick")
    return options


if __name__ == "__main__":
    main()
