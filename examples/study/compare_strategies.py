"""Is a strategy worth it on data of your own? Replay it on frames that are labelled already, beside random choice.

    python examples/study/compare_strategies.py                         # about a minute: one look, no training
    python examples/study/compare_strategies.py --rounds 2              # some minutes: trains on each choice
    python examples/study/compare_strategies.py --what null_policies    # frames without detections

A small detector is trained on 60 frames of real digits on real photos. The other frames have labels too, but the
strategies do not see them: each chooses 60 frames, and `compare` counts what is in them. Printed are the table, and
which differences lie outside of a hundred random draws; `comparison.png` shows the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.models.detection import FCOS

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import Comparison, DetectionSampling, compare
from digits_on_photos import PoolSettings, pool_frames, unseen_frames
from small_detector import collate, detector_of_digits, evaluate_map50, letters_as_shipped, train


def main(arguments: list[str] | None = None) -> Comparison:
    """Run it; returns the comparison that it prints."""
    options = parse(arguments)
    out: Path = options.out
    began = time.perf_counter()
    frames = pool_frames(PoolSettings(frames=options.pool), seed=options.seed)
    unseen = unseen_frames(options.test_frames, seed=options.seed)
    shuffled = torch.randperm(len(frames), generator=torch.Generator().manual_seed(options.seed)).tolist()
    start = shuffled[: options.start]
    letters = letters_as_shipped()

    def trained_on(labelled: Dataset[Any]) -> FCOS:
        detector = detector_of_digits(letters, seed=options.seed)
        train(detector, labelled, steps=options.steps, seed=options.seed)
        return detector

    training: dict[str, Any] = {}
    if options.rounds:
        training = {"train": trained_on, "evaluate": lambda detector: evaluate_map50(detector, unseen)}
        training |= {"rounds": options.rounds, "trained_draws": options.random_draws}
    comparison = compare(
        trained_on(Subset(frames, start)),
        DataLoader(frames, batch_size=100, collate_fn=collate),
        {"strategies": strategies, "null_policies": null_policies}[options.what](options.frames),
        num_of_samples=options.frames,
        labeled=[frames.frame_ids[row] for row in start],
        seed=options.seed,
        **training,
    )
    print(f"\n{comparison}")
    picture = comparison.plot(out / "comparison.png", title="Digits on photos: what each strategy would have chosen")
    values = comparison.to_csv(out / "comparison.csv")
    print(f"Done in {time.perf_counter() - began:.0f} s. The picture is {picture}, every value is in {values}")
    return comparison


def strategies(frames: int) -> dict[str, Any]:
    """What is compared. A strategy with defaults needs its name only."""
    doubt: dict[str, Any] = {"selection_strategy": "entropy", "null_policy": "last"}
    return {
        "auto": "auto",
        "entropy, max": DetectionSampling(num_of_samples=frames, **doubt),
        "entropy, sum": DetectionSampling(num_of_samples=frames, bbox_selection_policy="sum", **doubt),
        "k_center": "k_center",
        "entropy sum, weighted_kmeans": [
            DetectionSampling(num_of_samples=4 * frames, bbox_selection_policy="sum", **doubt),
            DetectionSampling(num_of_samples=frames, selection_strategy="weighted_kmeans"),
        ],
    }


def null_policies(frames: int) -> dict[str, Any]:
    """The same uncertainty under each policy for frames without detections."""
    return {
        f"{policy}, {box_policy}": DetectionSampling(
            num_of_samples=frames, selection_strategy="entropy", null_policy=policy, bbox_selection_policy=box_policy
        )
        for box_policy in ("max", "sum")
        for policy in ("protocol", "skip", "last", "sample")
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--what", choices=["strategies", "null_policies"], default="strategies", help="(%(default)s)")
    parser.add_argument("--frames", type=int, default=60, help="frames that each strategy chooses (%(default)s)")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of choosing and training (%(default)s)")
    parser.add_argument("--random-draws", type=int, default=3, help="random choices that are trained (%(default)s)")
    parser.add_argument("--start", type=int, default=60, help="frames labelled to begin with (%(default)s)")
    parser.add_argument("--pool", type=int, default=1200, help="frames, those included (%(default)s)")
    parser.add_argument("--test-frames", type=int, default=200, help="frames to measure on (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="training steps of each detector (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare_strategies"), help="folder (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
