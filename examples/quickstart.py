"""The main job on a CPU: which frames of an unlabeled pool should be annotated next?

    python examples/quickstart.py

A small detector is trained on 80 annotated frames of real digits on real photos. It looks once at the other 1,920
frames, and 80 of them are chosen. The list, the picture and the report are ready within half a minute on two cores.

Then the chosen frames are "annotated": the pool knows its labels. The detector is trained on them, and compared with
detectors that were trained on as many random frames. That takes another minute.

The detector starts from weights that were learned on letters and ship with the examples. `--from-scratch` learns them
first, which takes about two minutes more.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.models.detection import FCOS

sys.path.append(str(Path(__file__).resolve().parent / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, LocalBackend, Pool, SelectedFrames, extract
from cval_torch.report import contact_sheet, report
from digits_on_photos import Item, PoolSettings, pool_frames, unseen_frames
from small_detector import collate, detector_of_digits, evaluate_map50, letters_as_shipped, pretrained_on_letters, train

MIN_SCORE = 0.2  # of the boxes that are listed and drawn; selection reads them all
DRAWN = 12  # frames in the picture


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

    if options.from_scratch:
        letters = pretrained_on_letters(steps=options.pretrain_steps, seed=options.seed, progress=True)
    else:
        letters = letters_as_shipped()

    def trained_on(rows: list[int], what: str) -> FCOS:
        detector = detector_of_digits(letters, seed=options.seed)
        train(detector, Subset(pool, rows), steps=options.steps, seed=options.seed, progress=what)
        return detector

    detector = trained_on(labeled, f"{len(labeled)} random frames to start from")
    chosen, seen, annotated = choose(detector, Subset(pool, labeled), Subset(pool, unlabeled), options.frames)
    report_choice(chosen, out, pool.classes)
    page = report(
        chosen, out / "report.html", pool=seen, labeled=annotated, class_names=pool.classes, min_score=MIN_SCORE
    )
    print(f"Why they were chosen, and what was not, is on a page: open {page}")
    print(f"That took {time.perf_counter() - began:.0f} s. Now the comparison with random choice.\n")

    start = evaluate_map50(detector, test)

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


def choose(
    detector: FCOS, labeled: Subset[Item], unlabeled: Subset[Item], frames: int
) -> tuple[SelectedFrames, Pool, Pool]:
    """The selection itself: all that a script of yours needs. The pools are for the report.

    `select(detector, loader, num_of_samples=frames, backend=...)` makes the same choice in one call, and keeps no pool.
    """
    annotated = extract(detector, DataLoader(labeled, batch_size=64, collate_fn=collate))
    pool = extract(detector, DataLoader(unlabeled, batch_size=64, collate_fn=collate))
    backend = LocalBackend(labeled=annotated)  # what is annotated already is neither scarce nor new
    selection = backend.select(pool, DetectionSampling(selection_strategy="auto", num_of_samples=frames))
    return SelectedFrames(unlabeled, selection, pool), pool, annotated


def report_choice(chosen: SelectedFrames, out: Path, classes: tuple[str, ...]) -> None:
    """List the chosen frames, write the list to a file, and draw the first of them."""
    seen = chosen.predictions
    assert seen.labels is not None
    assert seen.scores is not None
    ranked = []
    for rank, frame_id in enumerate(chosen.frame_ids):
        boxes = slice(int(seen.offsets[rank]), int(seen.offsets[rank + 1]))
        likely = seen.labels[boxes][seen.scores[boxes] >= MIN_SCORE].tolist()
        ranked.append((rank + 1, frame_id, " ".join(classes[label] for label in sorted(set(likely)))))
    print(
        f"\nWorth annotating next: {len(chosen)} frames, the first choice first, and the digits that are seen in them"
    )
    for begin in range(0, len(ranked), 3):
        print("".join(f"{rank:5d}. {frame_id}  {digits:<14}" for rank, frame_id, digits in ranked[begin : begin + 3]))
    with (out / "selected.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("rank", "frame_id", "predicted"), *ranked])
    sheet = contact_sheet(
        chosen,
        out / "selected.png",
        title="Quickstart: frames worth annotating",
        classes=classes,
        tile_size=176,
        max_frames=DRAWN,
        min_score=MIN_SCORE,
        show_truth=True,
    )
    print(f"The list is in {out / 'selected.csv'}, and the first {min(DRAWN, len(chosen))} frames are drawn in {sheet}")


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
    parser.add_argument("--steps", type=int, default=120, help="training steps of each detector (%(default)s)")
    parser.add_argument("--from-scratch", action="store_true", help="learn the letters too, not read shipped weights")
    parser.add_argument("--pretrain-steps", type=int, default=800, help="its steps on letters (%(default)s)")
    parser.add_argument("--random-draws", type=int, default=2, help="random choices to compare with (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder for files (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
