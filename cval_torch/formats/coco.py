"""COCO: an instances file of what was chosen, or annotated, written and read back."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames, renumbered
from cval_torch.formats.coco_instances import load_coco_instances
from cval_torch.formats.export_folder import frame_records, with_frames
from cval_torch.formats.json_files import integer_or, number_or_nan, parse_json, read_json
from cval_torch.formats.prepared import ExportOptions, ImageRoot, Images, exporting
from cval_torch.formats.rotated import envelopes
from cval_torch.formats.tool_paths import exported_paths
from cval_torch.formats.unpacked import unpacked
from cval_torch.pool.files import write_json
from cval_torch.pool.offsets import offsets_of
from cval_torch.report.frames import ChosenFrames

INSTANCES_FILE = "instances.json"
RESULTS_FILE = "results.json"

Empty = Literal["annotated", "unannotated"]
"""What a frame without boxes is, in a file that does not tell."""


def save_coco(
    frames: ChosenFrames | Annotations,
    folder: str | os.PathLike[str],
    *,
    class_names: ClassNames | None = None,
    min_score: float | None = 0.3,
    images: Images = "leave",
    image_root: ImageRoot | None = None,
    round: int | None = None,  # noqa: A002, as everywhere
    exist_ok: bool = False,
    progress: bool = True,
    results: bool = False,
) -> Path:
    """Write `instances.json` with all frames, in their order, and their boxes.

    Every image has the keys `frame_id`, `rank`, `uncertainty`, `round` and `annotated` beside those of COCO, and a
    detector's boxes have their `score`. Category ids are the labels, with their gaps. `frames.json` says the same of
    the frames for files that lose it.

    Args:
        frames: what `select` returned, or annotations.
        folder: the new folder.
        class_names: see `ExportOptions`, as for all of these.
        min_score: of pre-labels, in [0, 1]; None writes none.
        images: what happens to the image files.
        image_root: the folder that ids are paths below, or a file for each id.
        round: the number of the round, from 0.
        exist_ok: whether an export that is there already is replaced.
        progress: whether to show a bar.
        results: whether to write `results.json` too: the boxes that have a score, as COCO results.

    Returns:
        The path of `instances.json`.

    Raises:
        InvalidInputError: no frames; a folder that is not empty; a frame without a file; a label without a name; boxes
            that do not fit their file.
        OSError: something cannot be read or written. Nothing is left half written.
    """
    options = ExportOptions(
        class_names=class_names,
        min_score=min_score,
        images=images,
        image_root=image_root,
        round=round,
        exist_ok=exist_ok,
        progress=progress,
    )
    with exporting(frames, folder, options) as (staging, prepared):
        document = coco_document(prepared.annotations)
        write_json(staging / INSTANCES_FILE, document)
        if results:
            keys = ("image_id", "category_id", "bbox", "score")
            rows = [{key: each[key] for key in keys} for each in document["annotations"] if "score" in each]
            write_json(staging / RESULTS_FILE, rows)
    return Path(folder) / INSTANCES_FILE


def load_coco(
    path: str | os.PathLike[str],
    *,
    class_names: ClassNames | None = None,
    empty: Empty = "unannotated",
) -> Annotations:
    """Read a COCO instances file: ours, or one that an annotation tool exported.

    Args:
        path: the file; a folder with `instances.json`; or a zip file, as CVAT and Label Studio export, with one
            instances file.
        class_names: the names and labels of your classes. Categories are found by name then. None keeps the file's ids.
        empty: what an image without boxes is where the file does not tell: `annotated`, so that a detector learns that
            nothing is in it, or `unannotated`.

    Returns:
        The annotations. A box with a `rotation` (in degrees, as CVAT writes it among `attributes`) is the envelope of
        the rotated box. Label Studio's names of images lose what the tool adds to them.

    Raises:
        InvalidInputError: see `load_coco_instances`; a zip file with no instances file, or with several; a class that
            `class_names` has not.
        OSError: the file cannot be read.
    """
    check_empty(empty)
    path = Path(path)
    file = path / INSTANCES_FILE if path.is_dir() else path
    document = _from_zip(file) if zipfile.is_zipfile(file) else read_json(file)
    return with_frames(
        annotations_of_coco(document, os.fspath(file), class_names=class_names, empty=empty), file.parent
    )


def annotations_of_coco(document: Any, source: str, *, class_names: ClassNames | None, empty: Empty) -> Annotations:
    """What an instances file says; see `load_coco`.

    Args:
        document: what was read from it.
        source: what to call it in messages.
        class_names: see there.
        empty: see there.
    """
    instances = load_coco_instances(document, source=source)
    names, label_of = renumbered(instances.categories, class_names, source)
    labels = [label_of[instances.categories[label]] for label in instances.labels.tolist()]
    records, images = document["annotations"], document["images"]
    order = instances.image_rows.argsort(stable=True)
    places = order.tolist()
    offsets = offsets_of(torch.bincount(instances.image_rows, minlength=len(instances)))
    scores = torch.tensor([number_or_nan(records[row].get("score")) for row in places], dtype=torch.float32)
    angles = torch.tensor([_rotation(records[row]) for row in places], dtype=torch.float64)
    drawn = torch.zeros(len(instances), dtype=torch.bool)
    drawn[instances.image_rows] = True
    told = [image.get("annotated") for image in images]
    looked = [
        bool(boxes) or empty == "annotated" if each is None else bool(each)
        for each, boxes in zip(told, drawn.tolist(), strict=True)
    ]
    silent = sum(each is None and not boxes for each, boxes in zip(told, drawn.tolist(), strict=True))
    file_names, notes = _file_names(instances.file_names, document)
    return Annotations(
        file_names,
        offsets,
        boxes=envelopes(instances.boxes[order], angles),
        labels=torch.tensor(labels, dtype=torch.int64)[order],
        class_names=names,
        frame_ids=[image["frame_id"] if isinstance(image.get("frame_id"), str) else None for image in images],
        is_annotated=torch.tensor(looked, dtype=torch.bool),
        sizes=torch.tensor([_size(image) for image in images], dtype=torch.int64).reshape(-1, 2),
        scores=scores,
        is_crowd=instances.is_crowd[order],
        ranks=torch.tensor([integer_or(image.get("rank"), 0) for image in images], dtype=torch.int64),
        uncertainties=torch.tensor([number_or_nan(image.get("uncertainty")) for image in images], dtype=torch.float64),
        rounds=torch.tensor([integer_or(image.get("round"), -1) for image in images], dtype=torch.int64),
        source=source,
        notes=[*notes, *note_on_empty(silent, empty)],
    )


def coco_document(annotations: Annotations) -> dict[str, Any]:
    """The instances file of annotations, as plain values. Image ids count from 1."""
    images = [{"id": number, **record} for number, record in enumerate(frame_records(annotations), start=1)]
    boxes = annotations.boxes.double()
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    owners = torch.arange(len(annotations)).repeat_interleave(annotations.counts)
    rows = zip(
        (owners + 1).tolist(),
        annotations.labels.tolist(),
        corners.tolist(),
        annotations.is_crowd.tolist(),
        annotations.scores.double().tolist(),
        strict=True,
    )
    records = []
    for number, (image_id, label, box, crowd, score) in enumerate(rows, start=1):
        record = {
            "id": number,
            "image_id": image_id,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(crowd),
            "segmentation": [],
        }
        records.append(record if math.isnan(score) else {**record, "score": score})
    categories = [{"id": label, "name": name} for label, name in sorted(annotations.class_names.items())]
    return {"info": {}, "licenses": [], "images": images, "annotations": records, "categories": categories}


def check_empty(empty: str) -> None:
    """Raise an `InvalidInputError` if this says not what a frame without boxes is."""
    if empty not in ("annotated", "unannotated"):
        raise InvalidInputError(f"`empty` must be 'annotated' or 'unannotated'; got {empty!r}")


def note_on_empty(frames: int, empty: Empty) -> list[str]:
    """What to tell of frames without boxes, of which the file does not say what they are."""
    if frames == 0:
        return []
    other = "unannotated" if empty == "annotated" else "annotated"
    what = "annotated, with nothing in it" if empty == "annotated" else "not annotated"
    return [
        f"{frames} {'frame has' if frames == 1 else 'frames have'} no boxes, and each was taken to be {what}. "
        f"If that is wrong, pass `empty={other!r}`"
    ]


def _from_zip(path: Path) -> Any:
    found: dict[str, Any] = {}
    with unpacked(path, suffixes=(".json",)) as folder:
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() == ".json" and file.is_file():
                name = file.relative_to(folder).as_posix()
                document = parse_json(file.read_bytes(), f"{name} in {path}")
                if isinstance(document, Mapping) and "images" in document and "annotations" in document:
                    found[name] = document
    if len(found) != 1:
        what = f"it has {', '.join(found)}" if found else "it has none"
        raise InvalidInputError(
            f"{str(path)!r} must hold one COCO instances file; {what}. Unpack it, and pass the file"
        )
    return next(iter(found.values()))


def _file_names(names: Sequence[str], document: Mapping[str, Any]) -> tuple[Sequence[str], list[str]]:
    """The paths of the images, and what to tell of them. Label Studio has its own names for them."""
    info = document.get("info")
    if not isinstance(info, Mapping) or info.get("contributor") != "Label Studio":
        return names, []
    twice = len(names) - len(set(names))
    several = (
        f"{twice} images stand there again, as Label Studio has them once for each annotation. Export the project as "
        "JSON, and read that by `load_label_studio`, which joins them"
    )
    return exported_paths(names), [several] if twice else []


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    return integer_or(image.get("width"), 0), integer_or(image.get("height"), 0)


def _rotation(record: Mapping[str, Any]) -> float:
    attributes = record.get("attributes")
    angle = number_or_nan(attributes.get("rotation")) if isinstance(attributes, Mapping) else 0.0
    return angle if math.isfinite(angle) else 0.0
