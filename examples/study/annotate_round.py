"""A whole round: choose frames, hand them to annotators, take their answers back, train on them, and measure.

    python examples/study/annotate_round.py             # two minutes on two cores
    python examples/study/annotate_round.py --quick     # some seconds, too small to mean anything

A small detector is trained on 80 annotated frames of real digits on real photos. It looks at other frames, which are
image files in a folder, and 80 of them are chosen. Half of these become tasks for Label Studio, half become a task for
CVAT; the detector's boxes go along as pre-labels. A script answers in place of people, in the format that each tool
exports. `annotate_from` reads both answers, and a detector is trained on `training_set`. Its mAP stands beside that of
detectors that were trained on as many random frames.

Some answers are what people give, too: frames with nothing in them, a task that somebody skipped, one that nobody
opened, and one that two people annotated.

In `--out` are both exports with their answers, `labels.json`, `report.html` (why each frame was chosen) and
`annotated.png` (what the detector said, and what came back).
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
from torchvision.models.detection import FCOS
from torchvision.transforms.functional import to_pil_image

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, LabelPool, LocalBackend, Pool, SelectedFrames, Selection, extract
from cval_torch.formats import Annotations, ImageFolder, save_cvat, save_label_studio
from cval_torch.report import contact_sheet, report
from cval_torch.training import Annotated, TrainingSet
from digits_on_photos import DigitFrames, PoolSettings, pool_frames, unseen_frames
from scripted_annotator import Object, Truth, Work, answer_in_cvat, answer_in_label_studio
from small_detector import collate, detector_of_digits, evaluate_map50, letters_as_shipped, train

MIN_SCORE = 0.3  # of the detector's boxes that become pre-labels
DRAWN = 18  # frames in the picture


@dataclass(frozen=True)
class Settings:
    """How large the round is.

    Attributes:
        pool: image files, the first annotated ones included.
        test: other frames, to measure on.
        start: frames annotated at first, at random.
        chosen: frames handed over.
        steps: training steps of each detector.
        random_draws: random choices to compare with.
    """

    pool: int = 1500
    test: int = 300
    start: int = 80
    chosen: int = 80
    steps: int = 150
    random_draws: int = 3


FULL = Settings()
QUICK = Settings(pool=120, test=20, start=20, chosen=16, steps=30, random_draws=1)


@dataclass(frozen=True)
class Result:
    """What a detector was trained on, and what it came to: mAP at an IoU of 0.5 on unseen frames."""

    name: str
    frames: int
    boxes: int
    map50: float


class GreyImages(ImageFolder):
    """The images of a folder with one channel, as the small detector takes them."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, str]]:
        image, target = super().__getitem__(index)
        return image[:1], target


@dataclass(frozen=True, eq=False)
class CameBack:
    """Frames that were annotated, as `contact_sheet` draws them: with the detector's boxes and the annotated ones."""

    frame_ids: Sequence[str]
    scores: Tensor
    predictions: Pool
    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def main(arguments: list[str] | None = None) -> list[Result]:
    """Run it; returns the rows of the table that it prints."""
    options = parse(arguments)
    settings, out = QUICK if options.quick else FULL, Path(options.out)
    began = time.perf_counter()
    frames = pool_frames(PoolSettings(frames=settings.pool), seed=options.seed)
    unseen = unseen_frames(settings.test, seed=options.seed)
    images = write_images(frames, out / "images")
    names = dict(enumerate(frames.classes))
    row_of = {frame_id: row for row, frame_id in enumerate(images.frame_ids)}
    truth = objects_of(frames, images.frame_ids)
    shuffled = torch.randperm(len(frames), generator=torch.Generator().manual_seed(options.seed)).tolist()
    start = shuffled[: settings.start]
    letters = letters_as_shipped()

    def result(name: str, labeled: Dataset[Any], rows: Sequence[int]) -> tuple[FCOS, Result]:
        detector = detector_of_digits(letters, seed=options.seed)
        train(detector, labeled, steps=settings.steps, seed=options.seed, progress=name)
        boxes = sum(len(frames.labels[row]) for row in rows)
        return detector, Result(name, len(rows), boxes, evaluate_map50(detector, unseen))

    labels = LabelPool(images, labeled=[images.frame_ids[row] for row in start])
    detector, before = result("before the round", Subset(frames, start), start)
    chosen, to_studio, to_cvat = choose(detector, labels, settings.chosen, out, names)

    # Hand over. Label Studio shows files where they are; people upload those of CVAT, so they are copied.
    how: dict[str, Any] = {"class_names": names, "min_score": MIN_SCORE, "round": 1, "exist_ok": True}
    save_label_studio(to_studio, out / "label_studio", document_root=out, **how)
    save_cvat(to_cvat, out / "cvat", **how)

    studio, cvat = answer_in_label_studio(out / "label_studio", truth), answer_in_cvat(out / "cvat", truth)

    # Bring back. CVAT's file does not say whether somebody looked at an image without boxes; that task is finished.
    from_studio = labels.annotate_from(studio.path, class_names=names)
    from_cvat = labels.annotate_from(cvat.path, class_names=names, empty="annotated")
    labels.save(out / "labels.json")
    first = annotations_of(images.frame_ids, truth, start, names)
    train_set = labels.training_set([first, from_studio, from_cvat])
    print_answers({"Label Studio": (from_studio, studio), "CVAT": (from_cvat, cvat)})
    draw(chosen, train_set, out / "annotated.png", names)

    came_back = [row_of[frame_id] for frame_id in labels.labeled_ids[settings.start :]]
    results = [before, result("after the round", train_set, [*start, *came_back])[1]]
    rest = shuffled[settings.start :]
    for draw_number in range(1, settings.random_draws + 1):
        drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(1_000 + draw_number)).tolist()
        rows = [*start, *(rest[place] for place in drawn[: len(came_back)])]
        results.append(result(f"random choice {draw_number}", Subset(frames, rows), rows)[1])
    print_results(results)
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Files are in {out}/")
    return results


def write_images(frames: DigitFrames, folder: Path) -> GreyImages:
    """The frames as image files, which is where a round of your own begins."""
    names = [f"{frame_id}.png" for frame_id in frames.frame_ids]
    for row, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(frames.images[row]).save(folder / name)
    return GreyImages(folder, frame_ids=names)


def choose(
    detector: FCOS, labels: LabelPool, frames: int, out: Path, names: dict[int, str]
) -> tuple[SelectedFrames, SelectedFrames, SelectedFrames]:
    """What is chosen: all of it, and one half for each tool. The report says why."""
    annotated = extract(detector, DataLoader(labels.labeled, batch_size=64, collate_fn=collate))
    pool = extract(detector, DataLoader(labels.unlabeled, batch_size=64, collate_fn=collate))
    stage = DetectionSampling(selection_strategy="auto", null_policy="sample", num_of_samples=frames)
    selection = LocalBackend(labeled=annotated).select(pool, stage)
    chosen = SelectedFrames(labels.unlabeled, selection, pool)
    report(chosen, out / "report.html", pool=pool, labeled=annotated, class_names=names, min_score=MIN_SCORE)

    def half(begin: int) -> SelectedFrames:
        rows, scores = selection.rows[begin::2], selection.scores[begin::2]
        return SelectedFrames(labels.unlabeled, Selection.of(pool, rows, scores, selection.stages), pool)

    return chosen, half(0), half(1)


def objects_of(frames: DigitFrames, frame_ids: Sequence[str]) -> Truth:
    """What is in each frame."""
    return {
        frame_id: [
            Object((box[0], box[1], box[2], box[3]), frames.classes[label])
            for box, label in zip(frames.boxes[row].tolist(), frames.labels[row].tolist(), strict=True)
        ]
        for row, frame_id in enumerate(frame_ids)
    }


def annotations_of(frame_ids: Sequence[str], truth: Truth, rows: Sequence[int], names: dict[int, str]) -> Annotations:
    """The annotations that were there before the round; yours come from `load_annotations`."""
    ids = [frame_ids[row] for row in rows]
    objects = [thing for frame_id in ids for thing in truth[frame_id]]
    label_of = {name: label for label, name in names.items()}
    counts = torch.tensor([0, *(len(truth[frame_id]) for frame_id in ids)])
    return Annotations(
        ids,
        counts.cumsum(0),
        boxes=torch.tensor([thing.box for thing in objects]).reshape(-1, 4),
        labels=torch.tensor([label_of[thing.name] for thing in objects], dtype=torch.int64),
        class_names=names,
        frame_ids=ids,
        source="the first annotations",
    )


def draw(chosen: SelectedFrames, train_set: TrainingSet, path: Path, names: dict[int, str]) -> None:
    """Some of the chosen frames: solid what the detector said, dashed what came back."""
    place_of = {frame_id: place for place, frame_id in enumerate(train_set.frame_ids)}
    ranks = [rank for rank, frame_id in enumerate(chosen.frame_ids) if frame_id in place_of][:DRAWN]
    ids = [chosen.frame_ids[rank] for rank in ranks]
    items = [train_set[place_of[frame_id]] for frame_id in ids]
    sheet = CameBack(ids, chosen.scores[ranks], chosen.predictions.take(ranks), items)
    title = "Pre-labels, and what annotators made of them"
    contact_sheet(sheet, path, title=title, classes=names, min_score=MIN_SCORE, show_truth=True)


def print_answers(answers: dict[str, tuple[Annotated, Work]]) -> None:
    """What was done in each tool, and what came back."""
    print("\n| tool | kept | corrected | deleted | drawn | frames back | empty ones | skipped | not opened | by two |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for tool, (annotated, work) in answers.items():
        boxes = [work.boxes[each] for each in ("kept", "corrected", "deleted", "drawn")]
        empty = int((annotated.annotations.counts == 0).sum())
        rest = [len(annotated.annotations), empty, len(annotated.skipped), len(work.unopened), len(work.twice)]
        print(f"| {tool} | {' | '.join(map(str, boxes + rest))} |")


def print_results(results: Sequence[Result]) -> None:
    """The table, and what it does not show."""
    print("\n| trained on | frames | boxes in them | mAP@50 on unseen frames |\n|---|---|---|---|")
    for result in results:
        print(f"| {result.name} | {result.frames} | {result.boxes} | {result.map50:.3f} |")
    draws = [result.map50 for result in results[2:]]
    print(f"\nRandom choice came to {min(draws):.3f} to {max(draws):.3f}, in {len(draws)} draws.")
    print("One pool, one start and few draws show that a round works, not what choosing is worth in general.")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="some seconds, to see it run")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/annotate_round"), help="folder for files (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
