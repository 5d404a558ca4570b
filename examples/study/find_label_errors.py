"""Which labels look wrong? Spoil one label in twenty, and see how many of the frames that are flagged are spoilt ones.

    python examples/study/find_label_errors.py     # two minutes

Frames are real digits on real photos. Of all annotated boxes, 5 % are spoilt: a third is removed, a third is moved by
half of its size, a third gets another class. Two small detectors are trained, each on one half of the frames with the
spoilt labels, and each predicts the other half. `label_issues` sees these predictions and the spoilt labels. Printed is
which share of its first k frames is spoilt, beside frames in random order; `issues.csv` has every issue, and
`issues.png` shows the worst frames, with the suggested boxes solid and the annotated ones dashed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.ops import box_iou

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import LabelIssues, Pool, extract, label_issues
from cval_torch.report import contact_sheet
from digits_on_photos import FRAME_SIZE, DigitFrames, Item, PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped, train

KINDS = ("overlooked", "badly_located", "swapped")


@dataclass(frozen=True, eq=False)
class Fault:
    """One spoilt label: what kind it is, in which frame, and the box and the class that are right."""

    kind: str
    row: int
    box: Tensor
    label: int


@dataclass(frozen=True)
class Found:
    """What came out.

    Attributes:
        frames: by k, which share of the first k frames for review is spoilt.
        random: which share of all frames is spoilt: what a random order has, whatever k.
        kinds: by kind, the number of spoilt labels that were told, kind and class and place; and of issues listed.
        spoilt: by kind, the number of spoilt labels.
    """

    frames: dict[int, float]
    random: float
    kinds: dict[str, tuple[int, int]]
    spoilt: dict[str, int]


class Spoilt(Dataset[Item]):
    """The same frames, some of their labels spoilt."""

    def __init__(self, frames: DigitFrames, *, share: float, seed: int) -> None:
        self.frames = frames
        self.boxes, self.labels = [boxes.clone() for boxes in frames.boxes], [each.clone() for each in frames.labels]
        self.faults: list[Fault] = []
        rng = torch.Generator().manual_seed(seed)
        places = [(row, number) for row, labels in enumerate(self.labels) for number in range(len(labels))]
        chosen = torch.randperm(len(places), generator=rng)[: round(share * len(places))].tolist()
        kept = [torch.ones(len(labels), dtype=torch.bool) for labels in self.labels]
        for count, (row, number) in enumerate(places[place] for place in chosen):
            box, label = self.boxes[row][number].clone(), int(self.labels[row][number])
            self.faults.append(Fault(KINDS[count % 3], row, box, label))
            if count % 3 == 0:
                kept[row][number] = False
            elif count % 3 == 1:
                towards_middle = ((box[:2] + box[2:]) / 2 < FRAME_SIZE / 2).float() * 2 - 1
                self.boxes[row][number] += ((box[2:] - box[:2]) / 2 * towards_middle).repeat(2)
            else:
                self.labels[row][number] = (label + int(torch.randint(1, 10, (1,), generator=rng))) % 10
        for row, keep in enumerate(kept):
            self.boxes[row], self.labels[row] = self.boxes[row][keep], self.labels[row][keep]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Item:
        image, target = self.frames[index]
        return image, target | {"boxes": self.boxes[index], "labels": self.labels[index]}


@dataclass(frozen=True, eq=False)
class ForReview:
    """Frames as `contact_sheet` draws them, with the suggestions as predictions."""

    frame_ids: Sequence[str]
    scores: Tensor
    predictions: Pool
    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def main(arguments: list[str] | None = None) -> Found:
    """Run it; returns what it prints."""
    options = parse(arguments)
    began = time.perf_counter()
    alone = PoolSettings(frames=options.pool, long_tail=False, empties=False, duplicates=False)
    clean = pool_frames(alone, seed=options.seed)
    spoilt = Spoilt(clean, share=options.share, seed=options.seed)
    issues = label_issues(
        predicted_by_halves(spoilt, steps=options.steps, seed=options.seed),
        {clean.frame_ids[row]: spoilt[row][1] for row in range(len(spoilt))},
    )
    found = measured(issues, spoilt)
    print(
        f"\n{len(spoilt.faults)} of {sum(map(len, clean.labels))} labels are spoilt, in {found.random:.1%} of frames."
    )
    print(f"{issues}\n\n| first k frames | spoilt | random order |\n|---|---|---|")
    for k, precision in found.frames.items():
        print(f"| {k} | {precision:.0%} | {found.random:.0%} |")
    print("\n| kind | spoilt labels | told, with box and class | issues listed |\n|---|---|---|---|")
    for kind, (told, listed) in found.kinds.items():
        print(f"| {kind} | {found.spoilt[kind]} | {told} | {listed} |")
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    issues.to_csv(out / "issues.csv")
    if names := issues.for_review(12):
        row_of = {frame_id: row for row, frame_id in enumerate(clean.frame_ids)}
        items = [spoilt[row_of[name]] for name in names]
        sheet = ForReview(names, issues.checked_scores[: len(names)], issues.review_pools(12)[1], items)
        contact_sheet(sheet, out / "issues.png", title="Labels that look wrong", min_score=0.0, show_truth=True)
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Every issue is in {out / 'issues.csv'}")
    return found


def predicted_by_halves(frames: Spoilt, *, steps: int, seed: int) -> Pool:
    """What two detectors say of the frames, each of the half that it was not trained on."""
    letters = letters_as_shipped()
    halves = [Subset(frames, range(first, len(frames), 2)) for first in (0, 1)]
    pools = []
    for number, half in enumerate(halves):
        detector = detector_of_digits(letters, seed=seed)
        train(detector, half, steps=steps, seed=seed, progress=f"detector {number + 1} of 2")
        pools.append(extract(detector, DataLoader(halves[1 - number], batch_size=100, collate_fn=collate)))
    return Pool.cat(pools)


def measured(issues: LabelIssues, spoilt: Spoilt) -> Found:
    """How many of the spoilt frames and labels were found."""
    ids = spoilt.frames.frame_ids
    faulty = {ids[fault.row] for fault in spoilt.faults}
    names = issues.for_review()
    steps = [k for k in (10, 25, 50, 75, 100, 150, 200) if k < len(names)] + ([len(names)] if names else [])
    told = dict.fromkeys(KINDS, 0)
    for fault in spoilt.faults:
        for place, frame_id in enumerate(issues.frame_ids):
            if frame_id == ids[fault.row] and issues.kinds[place] == fault.kind:
                near = float(box_iou(issues.suggested_boxes[place][None], fault.box[None].double())) >= 0.5
                told[fault.kind] += int(near and int(issues.suggested_labels[place]) == fault.label)
    return Found(
        frames={k: sum(name in faulty for name in names[:k]) / k for k in steps},
        random=len(faulty) / len(ids),
        kinds={kind: (told[kind], issues.kinds.count(kind)) for kind in KINDS},
        spoilt={kind: sum(fault.kind == kind for fault in spoilt.faults) for kind in KINDS},
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pool", type=int, default=1200, help="frames (%(default)s)")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are spoilt (%(default)s)")
    parser.add_argument("--steps", type=int, default=350, help="training steps of each detector (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/find_label_errors"), help="folder (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
