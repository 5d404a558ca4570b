"""Your own images and checkpoint: choose what to annotate next, and write pre-annotations to start from.

    python examples/own_images.py --images DIR --checkpoint FILE --model fasterrcnn_mobilenet_v3_large_320_fpn \
        --num-classes N --num-of-samples K --out DIR

With `--annotations FILE` (COCO json), the images it lists are annotated already and are left out, and its categories
name the classes. Its paths are compared with those of the images from their ends. Entries that match no image are told
on stderr. The model is any detection builder of torchvision; its labels are taken for category ids.

Images are turned upright as their EXIF orientation says. The boxes that are written are in pixels of the upright image,
which is what viewers and annotation tools show. Hidden files are passed over.

Written to `--out`: `selected.csv` (rank, file, score), `selected.png` (a contact sheet), and `predictions.json`, the
detector's boxes on the chosen frames as COCO, to import into an annotation tool.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader

from cval_torch import CvalError, DetectionSampling, SelectedFrames, select
from cval_torch.formats import (
    CocoInstances,
    ImageFolder,
    collate_images,
    list_images,
    load_coco_instances,
    match_paths,
)
from cval_torch.report.gallery import contact_sheet


def load_detector(name: str, checkpoint: Path, *, num_classes: int) -> nn.Module:
    """Build torchvision's `name`, with the weights of `checkpoint`: a state dict, or a dict with one under `model`."""
    model: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"] if isinstance(saved.get("model"), dict) else saved)
    return model.eval()


def stages_for(frames: int, available: int) -> list[DetectionSampling]:
    """Four times the budget by doubt, then the budget by diversity.

    Under "sample", frames without any detection get their share of the first stage, and no more: some hide objects
    that the detector misses, and most are empty. Without them the detector would never learn of what it cannot see.
    """
    doubtful = DetectionSampling(
        selection_strategy="entropy", null_policy="sample", num_of_samples=min(4 * frames, available)
    )
    return [doubtful, DetectionSampling(selection_strategy="clustering", num_of_samples=frames)]


def coco_predictions(
    chosen: SelectedFrames, categories: Sequence[dict[str, Any]], *, min_score: float
) -> dict[str, Any]:
    """Boxes of the chosen frames with a score of `min_score` or more, as COCO: xywh in pixels, integer ids from 1."""
    pool = chosen.predictions
    assert pool.boxes is not None
    assert pool.labels is not None
    assert pool.scores is not None
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for rank, frame_id in enumerate(chosen.frame_ids):
        height, width = chosen[rank][0].shape[-2:]
        images.append({"id": rank + 1, "file_name": frame_id, "width": width, "height": height})
        for row in range(int(pool.offsets[rank]), int(pool.offsets[rank + 1])):
            score = float(pool.scores[row])
            if score < min_score:
                continue
            left, top, right, bottom = pool.boxes[row].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": rank + 1,
                    "category_id": int(pool.labels[row]),
                    "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
                    "area": round((right - left) * (bottom - top), 2),
                    "iscrowd": 0,
                    "segmentation": [],  # CVAT wants it, empty, for a box
                    "score": round(score, 4),
                }
            )
    named = {category["id"] for category in categories}
    unnamed = sorted({annotation["category_id"] for annotation in annotations} - named)
    every = [*categories, *({"id": label, "name": f"class {label}"} for label in unnamed)]
    return {"images": images, "annotations": annotations, "categories": every}


def write_csv(chosen: SelectedFrames, path: Path) -> None:
    """Rank, file, score. A name that a spreadsheet would take for a formula gets an apostrophe in front."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("rank", "file_name", "score"))
        for rank, (frame_id, score) in enumerate(zip(chosen.frame_ids, chosen.scores.tolist(), strict=True), start=1):
            writer.writerow((rank, f"'{frame_id}" if frame_id[0] in "=+-@\t\r" else frame_id, f"{score:.6f}"))


def without_annotated(names: list[str], known: CocoInstances, folder: Path) -> list[str]:
    """The images that `known` does not list. What it lists and what is not there is told on stderr."""
    matches = match_paths(known.file_names, names, source=known.source)
    for remark in matches.remarks():
        print(f"note: {remark}", file=sys.stderr)
    annotated = matches.matched
    if known.file_names and not annotated:
        sys.exit(f"none of the {len(known)} images that {known.source} lists is in {folder}; is it the right folder?")
    return [name for name in names if name not in annotated]


def main(arguments: list[str] | None = None) -> SelectedFrames:
    """Choose, and write the three files."""
    options = parse(arguments)
    names, categories = list_images(options.images), []
    if options.annotations:
        known = load_coco_instances(options.annotations)
        categories = [{"id": number, "name": name} for number, name in known.categories.items()]
        names = without_annotated(names, known, options.images)
    dataset = ImageFolder(options.images, frame_ids=names)
    if len(dataset) == 0:
        sys.exit(f"{options.images} holds no image that is not annotated already")
    options.out.mkdir(parents=True, exist_ok=True)
    detector = load_detector(options.model, options.checkpoint, num_classes=options.num_classes).to(options.device)
    loader = DataLoader(dataset, batch_size=options.batch_size, num_workers=options.workers, collate_fn=collate_images)
    chosen = select(detector, loader, stages=stages_for(options.num_of_samples, len(dataset)))

    out: Path = options.out
    write_csv(chosen, out / "selected.csv")
    coco = coco_predictions(chosen, categories, min_score=options.min_score)
    (out / "predictions.json").write_text(json.dumps(coco, indent=1))
    contact_sheet(
        chosen,
        out / "selected.png",
        title=f"{len(chosen)} of {len(dataset)} frames worth annotating",
        classes={category["id"]: category["name"] for category in coco["categories"]},
        min_score=options.min_score,
    )
    for rank, frame_id in enumerate(chosen.frame_ids, start=1):
        print(f"{rank:4d}. {frame_id}")
    print(f"{len(coco['annotations'])} predicted boxes; selected.csv, selected.png and predictions.json are in {out}/")
    return chosen


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--annotations", type=Path, help="COCO json of the images that are annotated already")
    parser.add_argument("--checkpoint", type=Path, required=True, help="state dict of the detector")
    parser.add_argument("--model", default="fasterrcnn_mobilenet_v3_large_320_fpn", help="builder (%(default)s)")
    parser.add_argument("--num-classes", type=int, required=True, help="as the builder takes it, background included")
    parser.add_argument("--num-of-samples", type=int, required=True, help="frames to choose")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files; made if it is not there")
    parser.add_argument(
        "--min-score", type=float, default=0.3, help="of boxes that are drawn and written (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="images in a forward pass (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may not know all characters
    try:
        main()
    except CvalError as error:
        sys.exit(str(error))
