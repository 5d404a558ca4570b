"""The main job in three minutes on a CPU: which frames of an unlabeled pool should be annotated next?

    python examples/quickstart.py

A small detector is trained on 80 annotated frames of real digits on real photos. It looks once at the other 1,920, and
`select` chooses 80 of them by entropy, then clustering. The chosen frames are listed and drawn, "annotated" (the pool
knows its labels), and the detector trained on them is measured beside detectors that got as many random frames.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.models.detection import FCOS

from cval_torch import DetectionSampling, SelectedFrames, select
from cval_torch.report.gallery import contact_sheet
from digits_on_photos import Item, PoolSettings, pool_frames, unseen_frames
from small_detector import collate, detector_of_digits, evaluate_map50, pretrained_on_letters, train


@dataclass(frozen=True)
class Result:
    """One way to spend the budget: what it cost and what it gave."""

    name: str
    boxes: int
    sequences: int
    map50: float


def main(arguments: list[str] | None = None) -> list[Result]:
    """Run it; returns the rows of the table that it prints."""
    options = parse(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    pool = pool_frames(PoolSettings(frames=options.pool), seed=options.seed)
    test = unseen_frames(options.test_frames, seed=options.seed)
    shuffled = torch.randperm(len(pool), generator=torch.Generator().manual_seed(options.seed)).tolist()
    labeled, unlabeled = shuffled[: options.start], sorted(shuffled[options.start :])

    cache = out / f"letters-seed{options.seed}-{options.pretrain_steps}steps.pt"
    letters = pretrained_on_letters(cache, steps=options.pretrain_steps, seed=options.seed, progress=True)

    def trained_on(rows: list[int], what: str) -> FCOS:
        detector = detector_of_digits(letters, seed=options.seed)
        train(detector, Subset(pool, rows), steps=options.steps, seed=options.seed, progress=what)
        return detector

    detector = trained_on(labeled, f"{len(labeled)} random frames to start from")
    start = evaluate_map50(detector, test)

    chosen = choose(detector, Subset(pool, unlabeled), options.frames)
    report_choice(chosen, out, pool.classes)

    def spend(name: str, rows: list[int]) -> Result:
        map50 = evaluate_map50(trained_on(labeled + rows, f"with {name}"), test)
        boxes = sum(len(pool.labels[row]) for row in rows)
        return Result(name, boxes, len(set(pool.sequences[rows].tolist())), map50)

    results = [spend("chosen", [unlabeled[index] for index in chosen.indices])]
    for draw in range(options.random_draws):
        drawn = torch.randperm(len(unlabeled), generator=torch.Generator().manual_seed(1_000 + draw)).tolist()
        results.append(spend(f"random {draw + 1}", [unlabeled[index] for index in drawn[: len(chosen)]]))
    report_comparison(results, start, started_from=len(labeled), added=len(chosen))
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Files are in {out}/")
    return results


def choose(detector: FCOS, unlabeled: Subset[Item], frames: int) -> SelectedFrames:
    """The selection itself: all that a script of yours needs."""
    loader = DataLoader(unlabeled, batch_size=64, collate_fn=collate)
    stages = [
        # 1. Four times the budget by doubt: a frame is as doubtful as its most doubtful box ("max").
        # A frame without any detection has no box to ask. The protocol counts it as one box of score 0.5, as doubtful
        # as can be: that finds missed objects, but two fifths of this pool are truly empty, and under "max" all of
        # those would come first. "last" takes such frames only when no others are left. ("sum" would add up the doubt
        # of all boxes, and favour crowded frames, which cost more to annotate.)
        DetectionSampling(
            selection_strategy="entropy",
            bbox_selection_policy="max",
            null_policy="last",
            num_of_samples=4 * frames,
        ),
        # 2. Of these the budget by diversity: a video's neighbouring frames are equally doubtful, and one is enough.
        DetectionSampling(selection_strategy="clustering", num_of_samples=frames),
    ]
    return select(detector, loader, stages=stages)


def report_choice(chosen: SelectedFrames, out: Path, classes: tuple[str, ...]) -> None:
    """List the chosen frames, write the list to a file, and draw the first of them."""
    ranked = list(zip(range(1, len(chosen) + 1), chosen.frame_ids, chosen.scores.tolist(), strict=True))
    print(f"\nWorth annotating next: {len(chosen)} frames, with the entropy of their most doubtful box")
    print("(in the order of the last stage: a frame that stands for many others comes first)")
    for begin in range(0, len(ranked), 3):
        print("".join(f"{rank:5d}. {frame_id}  {score:.3f}" for rank, frame_id, score in ranked[begin : begin + 3]))
    with (out / "selected.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("rank", "frame_id", "score"), *ranked])
    sheet = contact_sheet(
        chosen,
        out / "selected.png",
        title="Quickstart: frames worth annotating, by entropy, then clustering",
        classes=classes,
        max_frames=24,
        min_score=0.2,
        show_truth=True,
    )
    print(f"The list is in {out / 'selected.csv'}, and the first {min(24, len(chosen))} frames are drawn in {sheet}\n")


def report_comparison(results: list[Result], start: float, *, started_from: int, added: int) -> None:
    """Print the table, and what it does and does not show."""
    print(f"\nmAP@50 on unseen frames: {start:.3f} with {started_from} frames; after adding {added} more:")
    print("  frames added    boxes to draw    sequences seen    mAP@50")
    for result in results:
        print(f"  {result.name:<14}  {result.boxes:>13}    {result.sequences:>14}    {result.map50:>6.3f}")
    draws = [result.map50 for result in results[1:]]
    if draws:
        mean = sum(draws) / len(draws)
        print(f"  The choice is {results[0].map50 - mean:+.3f} beside the mean of {len(draws)} random draw(s).")
    print("  One pool, one start, few draws: below about 0.03 a difference is noise, and another --seed may turn it.")
    print("  Chosen frames often hold more boxes, which cost more to draw: on data of your own, compare by boxes too.")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--frames", type=int, default=80, help="frames to choose (default: %(default)s)")
    parser.add_argument("--start", type=int, default=80, help="frames annotated to begin with (%(default)s)")
    parser.add_argument("--pool", type=int, default=2000, help="frames in the pool (%(default)s)")
    parser.add_argument("--test-frames", type=int, default=300, help="frames to measure on (%(default)s)")
    parser.add_argument("--steps", type=int, default=250, help="training steps of each detector (%(default)s)")
    parser.add_argument("--pretrain-steps", type=int, default=800, help="steps on letters, once (%(default)s)")
    parser.add_argument("--random-draws", type=int, default=2, help="random choices to compare with (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder for files (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
