"""What is a chosen frame worth on real images? The learning curves of `label_efficiency.py` on a folder of your own.

    python examples/benchmarks/real_pool.py --data DIR --tile 128 --half report
    python examples/benchmarks/real_pool.py --data DIR --resize 160 --start 60 --added 40 40 40 40
    python examples/benchmarks/real_pool.py --data DIR --tile 128 --device cuda --processes 8   # minutes

`DIR` has two COCO instances files, `pool.json` and `test.json`, and their images. Frames are whole images, or tiles of
them at full resolution. From each initial set of random frames every arm runs the same rounds: train, measure mAP@50 on
the test frames, choose more with the detector just trained, annotate, start again from the weights learnt on letters.
All arms share the first detector, the order of the batches and the test frames, so they are compared in pairs, within a
start. Steps of training grow as the square root of the labelled set. `random` is drawn several times; `every n-th` and
an `oracle` that reads the labels are there for measure, and `most boxes`, which is what people do by hand.

Settings, each of which makes the pool harder: `unseen_group`, the largest group of images (the beginning of their file
names, up to the first `_`) is missing from the initial set; `rare_class`, of the frames with the first class nine of
ten are gone from the pool; `wrong_labels`, 5 % of the annotated boxes have another class, for detector and counts.

`--half tune` takes every second group of the pool and of the test, the largest first, and `--half report` the others:
what is tuned on one half is reported on the other.

Every round is written down when it is done; the same command goes on from there. Written to `--out`: `rounds.csv`,
`summary.md` and a picture of each setting.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import Pool
from fcos_in_batches import FramesWithTargets, average_precision, said_in_batches, train_in_batches
from label_efficiency_arms import REFERENCES, STRATEGIES, all_arms
from label_efficiency_report import Round, write_report
from learning_rounds import Bench, Job, Plan, run_jobs
from real_frames import RealFrames, read_frames
from small_detector import LETTERS, detector_from, letters_as_shipped

SETTINGS = ("plain", "unseen_group", "rare_class", "wrong_labels")
_RARE_KEPT = 10  # one of so many
_WRONG_SHARE = 0.05


class RealBench(Bench):
    """Real frames, and detectors that start from letters and train in batches.

    Args:
        job: what is to be done.
        pool, test: the frames.
        device: where detectors train.
    """

    def __init__(self, job: Job, *, pool: Path, device: str) -> None:
        frames, self.test = torch.load(pool, weights_only=False)
        chance = torch.Generator().manual_seed(7_000 + job.start_seed)
        candidates = list(range(len(frames)))
        self._about = [False] * len(frames)
        if job.setting == "unseen_group":
            self._about = (frames.groups == torch.bincount(frames.groups).argmax()).tolist()
        if job.setting == "rare_class":
            self._about = [bool((labels == 0).any()) for labels in frames.labels]
            having = [row for row in candidates if self._about[row]]
            shuffled = torch.randperm(len(having), generator=chance).tolist()
            gone = {having[place] for place in shuffled[len(having) // _RARE_KEPT :]}
            candidates = [row for row in candidates if row not in gone]
        if job.setting == "wrong_labels":
            frames = _with_wrong_labels(frames, chance)
        super().__init__(job, frames, candidates)
        self.frames: RealFrames = frames
        torch.backends.cudnn.deterministic = True  # the same first detector in every process
        self._targets = FramesWithTargets(self._new_detector(), frames.images, frames.boxes, frames.labels, device)

    def _new_detector(self) -> Any:
        size = self.frames.images.shape[-1]
        classes = len(self.frames.classes)
        return detector_from(letters_as_shipped(LETTERS), classes, seed=self.job.start_seed, frame_size=size)

    def start(self) -> list[int]:
        """At random; of a setting with an unseen group, from the other groups."""
        if self.job.setting != "unseen_group":
            return super().start()
        return self.drawn([row for row in self.candidates if not self._about[row]])

    def marked(self, labelled: list[int]) -> int:
        """How many are of the group, or have the class, that the setting is about."""
        return sum(self._about[row] for row in labelled)

    def train(self, labelled: list[int]) -> tuple[Any, float]:
        """In batches; `fcos_in_batches` is torchvision's own loss."""
        plan, detector = self.job.plan, self._new_detector()
        train_in_batches(
            detector,
            self._targets,
            labelled,
            steps=plan.steps_for(len(labelled)),
            batch_size=plan.batch_size,
            seed=self.job.start_seed,
        )
        said = said_in_batches(detector, self.test.images, self.test.frame_ids, embeddings=False)
        return detector, average_precision(said, self.test.boxes, self.test.labels)

    def ask(self, detector: Any) -> Pool:
        """As `extract` does, in larger batches."""
        return said_in_batches(detector, self.frames.images, self.frames.frame_ids)


def _with_wrong_labels(frames: RealFrames, chance: torch.Generator) -> RealFrames:
    labels = []
    for each in frames.labels:
        wrong = torch.rand(len(each), generator=chance) < _WRONG_SHARE
        others = torch.randint(1, len(frames.classes), (len(each),), generator=chance)
        labels.append(torch.where(wrong, (each + others) % len(frames.classes), each))
    return replace(frames, labels=labels)


def half_of(frames: RealFrames, half: str) -> RealFrames:
    """The frames of every second group, the largest first (`tune`), or of the others (`report`), or all."""
    if half == "all":
        return frames
    sizes = torch.bincount(frames.groups, minlength=len(frames.group_names)).tolist()
    order = sorted(range(len(sizes)), key=lambda group: (-sizes[group], frames.group_names[group]))
    groups = order[0::2] if half == "tune" else order[1::2]
    return frames.take(torch.isin(frames.groups, torch.tensor(groups)).nonzero().squeeze(1).tolist())


def read_pool(options: argparse.Namespace) -> Path:
    """Read the images once, for all processes; the file they are kept in."""
    options.out.mkdir(parents=True, exist_ok=True)
    kept: Path = options.out / f"frames-{options.half}-{options.tile}-{options.resize}-{options.test_frames}.pt"
    if not kept.exists():
        sizes = {"tile": options.tile, "resize": options.resize}
        pool = half_of(read_frames(options.data, options.pool, **sizes), options.half)
        test = half_of(read_frames(options.data, options.test, **sizes), options.half)
        drawn = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: options.test_frames]
        torch.save((pool, test.take(drawn.tolist())), kept)
    return kept


def main(arguments: list[str] | None = None) -> list[Round]:
    """Run what is not stored yet, and write the report of everything asked for."""
    options = parse(arguments)
    kept = read_pool(options)
    pool, test = torch.load(kept, weights_only=False)
    print(f"{len(pool)} frames of {len(pool.group_names)} groups, {sum(map(len, pool.labels))} boxes", flush=True)
    plan = Plan(
        frames=len(pool),
        test_frames=len(test),
        start=options.start,
        added=tuple(options.added),
        steps=options.steps,
        batch_size=16,
        letters_steps=0,  # as shipped
    )
    cases = [(setting, start) for setting in options.settings for start in range(options.starts)]
    parts = -(-options.processes // len(cases))  # with processes to spare, each takes some of the arms
    dealt = [tuple(options.arms[part::parts]) for part in range(parts)]
    jobs = [
        Job(plan, setting, start, start, arms, options.random_draws, options.out)
        for setting, start in cases
        for arms in dealt
        if arms
    ]
    make = partial(RealBench, pool=kept, device=options.device)
    rounds = run_jobs(jobs, make, processes=options.processes)
    print(write_report(rounds, options.out, unit="starts"))
    return rounds


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the two files and the images")
    parser.add_argument("--pool", default="pool.json", help="COCO file of the frames to choose from (%(default)s)")
    parser.add_argument("--test", default="test.json", help="COCO file of the frames to measure on (%(default)s)")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--tile", type=int, help="cut images into squares of so many pixels")
    size.add_argument("--resize", type=int, help="or stretch them to so many")
    parser.add_argument("--half", choices=["all", "tune", "report"], default="all", help="which groups (%(default)s)")
    parser.add_argument("--test-frames", type=int, default=1200, help="at the most, drawn at random (%(default)s)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["plain"], help="(plain)")
    parser.add_argument("--arms", nargs="+", choices=[*all_arms(), "all"], help="beside the references")
    parser.add_argument("--starts", type=int, default=5, help="initial sets (%(default)s)")
    parser.add_argument("--random-draws", type=int, default=3, help="random choices of each start (%(default)s)")
    parser.add_argument("--start", type=int, default=300, help="frames labelled to begin with (%(default)s)")
    parser.add_argument("--added", type=int, nargs="+", default=[150, 150, 300], help="frames a round (150 150 300)")
    parser.add_argument("--steps", type=int, default=400, help="of 16 frames, of the first training (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where detectors train: cpu, cuda (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at a time, each on one core (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/real_pool"), help="folder (%(default)s)")
    options = parser.parse_args(arguments)
    arms = options.arms or [*STRATEGIES, "most boxes"]
    options.arms = list(all_arms()) if "all" in arms else list(dict.fromkeys([*REFERENCES, *arms]))
    return options


if __name__ == "__main__":
    main()
