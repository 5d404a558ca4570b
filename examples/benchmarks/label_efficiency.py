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
import sys
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Subset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import Pool, extract
from digits_on_photos import DigitFrames, PoolSettings, pool_frames, unseen_frames
from label_efficiency_arms import REFERENCES, STRATEGIES, all_arms
from label_efficiency_report import Round, write_report
from learning_rounds import Bench, Job, Plan, run_jobs
from small_detector import collate, detector_from, evaluate_map50, pretrained_on_letters, train

SETTINGS: dict[str, dict[str, bool]] = {
    "realistic": {},
    "no_duplicates": {"duplicates": False},
    "no_tail": {"long_tail": False},
    "no_empties": {"empties": False},
    "clean": {"duplicates": False, "long_tail": False, "empties": False},
    "one_class": {"one_class": True},
}
POOL_SEEDS_FROM = 100  # far from the seeds that examples use, on which choices of defaults were looked at


class DigitBench(Bench):
    """Composed frames, and detectors that start from letters."""

    def __init__(self, job: Job) -> None:
        settings = PoolSettings(frames=job.plan.frames, **SETTINGS[job.setting])
        self.pool: DigitFrames = pool_frames(settings, seed=job.pool_seed)
        self.test: DigitFrames = unseen_frames(job.plan.test_frames, seed=job.pool_seed, one_class=settings.one_class)
        super().__init__(job, self.pool, range(len(self.pool)))

    def train(self, labelled: list[int]) -> tuple[Any, float]:
        """With torchvision's own loss, frame by frame."""
        plan = self.job.plan
        letters = pretrained_on_letters(letters_file(self.job.folder, plan), steps=plan.letters_steps)
        detector = detector_from(letters, len(self.pool.classes), seed=self.job.start_seed)
        train(
            detector,
            Subset(self.pool, labelled),
            steps=plan.steps_for(len(labelled)),
            batch_size=plan.batch_size,
            seed=self.job.start_seed,
        )
        return detector, evaluate_map50(detector, self.test)

    def ask(self, detector: Any) -> Pool:
        """By `extract`."""
        return extract(detector, DataLoader(self.pool, batch_size=100, collate_fn=collate), progress=False)


def letters_file(folder: Path, plan: Plan) -> Path:
    """Where the weights learnt on letters are kept: the same for all jobs."""
    return folder / f"letters-{plan.letters_steps}steps.pt"


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
    rounds = run_jobs(jobs, DigitBench, processes=options.processes)
    print(write_report(rounds, options.out))
    return rounds


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
