"""Rounds of training and choosing, whatever the frames: what `label_efficiency.py` and `real_pool.py` share.

A `Job` is one pool and one initial set with all arms; `run_job` goes through its rounds, and writes each down when it
is done, so that a run that was broken off goes on from there.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cval_torch import Pool
from label_efficiency_arms import REFERENCES, Choice, Truth, all_arms
from label_efficiency_report import Round


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


class Bench(ABC):
    """A job's frames, and the detectors that are trained on them.

    Attributes:
        job: what is to be done.
        truth: all frames with their labels.
        candidates: the rows that may be labelled.
    """

    def __init__(self, job: Job, truth: Truth, candidates: Sequence[int]) -> None:
        self.job, self.truth, self.candidates = job, truth, candidates
        # of all arms the first detector is the same: it is trained once, and asked once
        self._first: tuple[Any, float] | None = None
        self._first_said: Pool | None = None

    @abstractmethod
    def train(self, labelled: list[int]) -> tuple[Any, float]:
        """A detector trained on these rows, and its mAP@50."""

    @abstractmethod
    def ask(self, detector: Any) -> Pool:
        """What the detector says of all frames."""

    def start(self) -> list[int]:
        """The rows that are labelled to begin with: drawn at random."""
        return self.drawn(self.candidates)

    def drawn(self, rows: Sequence[int]) -> list[int]:
        """As many of the rows as are labelled to begin with, at random."""
        shuffle = torch.Generator().manual_seed(self.job.start_seed)
        order = torch.randperm(len(rows), generator=shuffle)[: self.job.plan.start].tolist()
        return [rows[place] for place in order]

    def marked(self, labelled: list[int]) -> int:
        """How many of the labelled frames are what the setting is about; 0 where it is about none."""
        del labelled
        return 0

    def detector(self, labelled: list[int]) -> tuple[Any, float]:
        """The detector trained on these rows, and its mAP@50."""
        if len(labelled) > self.job.plan.start:
            return self.train(labelled)
        self._first = self._first or self.train(labelled)
        return self._first

    def said(self, detector: Any) -> Pool:
        """What the detector says of all frames."""
        if self._first is None or detector is not self._first[0]:
            return self.ask(detector)
        if self._first_said is None:
            self._first_said = self.ask(detector)
        return self._first_said

    def choose(self, arm: str, draw: int, number: int, labelled: list[int], detector: Any) -> list[int]:
        """The rows of the frames that the arm adds."""
        everything = self._names() if arm in REFERENCES else self.said(detector)
        known = set(labelled)
        rest = [row for row in self.candidates if row not in known]
        seed = 1_000 * self.job.start_seed + 10 * draw + number
        parts = everything.take(rest), everything.take(labelled)
        picked = all_arms()[arm](Choice(*parts, self.truth, self.job.plan.added[number], seed))
        return [rest[row] for row in picked]

    def _names(self) -> Pool:
        """All frames, and nothing said of them: what a reference needs."""
        none = torch.zeros(len(self.truth.frame_ids) + 1, dtype=torch.int64)
        return Pool(self.truth.frame_ids, none, indices=torch.arange(len(none) - 1))

    def round(self, run: tuple[str, int], number: int, labelled: list[int], *, map50: float, seconds: float) -> Round:
        """What is written down of a round; `run` is arm and draw."""
        labels: list[Tensor] = [self.truth.labels[row] for row in labelled]
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
            sequences=len(set(self.truth.sequences[labelled].tolist())),
            classes=len({label for each in labels for label in each.tolist()}),
            map50=map50,
            seconds=round(seconds, 1),
            marked=self.marked(labelled),
        )


def run_job(job: Job, make_bench: Callable[[Job], Bench]) -> list[Round]:
    """All arms of a job; rounds that are stored already are not run again."""
    torch.set_num_threads(1)
    bench: Bench | None = None
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
            bench = bench or make_bench(job)
            _next_round(bench, arm, draw, stored)
            _write(file, json.dumps(stored))
        rounds.extend(Round(**each) for each in stored["rounds"])
    return rounds


def run_jobs(jobs: Sequence[Job], make_bench: Callable[[Job], Bench], *, processes: int) -> list[Round]:
    """All rounds of all jobs, some jobs at a time, each on one core; tells how far it is."""
    began, rounds = time.perf_counter(), []
    for number, done in enumerate(_results(jobs, make_bench, processes), start=1):
        rounds.extend(done)
        print(f"{number} of {len(jobs)} pools and starts after {time.perf_counter() - began:.0f} s", flush=True)
    return rounds


def _results(jobs: Sequence[Job], make_bench: Callable[[Job], Bench], processes: int) -> Iterator[list[Round]]:
    everyone = [make_bench] * len(jobs)
    if processes == 1:
        yield from map(run_job, jobs, everyone)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_job, jobs, everyone)


def _next_round(bench: Bench, arm: str, draw: int, stored: dict[str, Any]) -> None:
    """Train, measure and choose once more, and add that to `stored`."""
    plan, began, number = bench.job.plan, time.perf_counter(), len(stored["rounds"])
    labelled = stored["next"] or bench.start()
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
