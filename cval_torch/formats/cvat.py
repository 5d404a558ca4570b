"""CVAT: a folder to make a task of, with pre-labels, and what people marked there, read back."""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames, renumbered
from cval_torch.formats.coco import Empty, check_empty, coco_document, note_on_empty
from cval_torch.formats.cvat_xml import IMAGES_EXPORT, CvatImages, read_cvat_images
from cval_torch.formats.export_folder import (
    FRAMES_FILE,
    read_class_names,
    with_frames,
)
from cval_torch.formats.prepared import ExportOptions, ImageRoot, Images, exporting
from cval_torch.formats.rotated import envelopes
from cval_torch.formats.unpacked import unpacked
from cval_torch.pool.files import replacing, write_json
from cval_torch.pool.offsets import offsets_of
from cval_torch.report.frames import ChosenFrames

ANNOTATIONS_FILE = "annotations.xml"
LABELS_FILE = "labels.json"
MANIFEST_FILE = "manifest.jsonl"
README_FILE = "README.txt"
COCO_FILE = "coco_1.0.zip"

_LONGEST_NAME = 64  # CVAT cuts longer names of labels, and finds them no more
_FIRST_ID = 10**9
"""The number of the first image. CVAT matches images by name. Where it has no such name, it takes the number for the
position of the frame, and would draw the boxes on another image. No task has so many frames, so it reports an error."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def save_cvat(
    frames: ChosenFrames | Annotations,
    folder: str | os.PathLike[str],
    *,
    class_names: ClassNames | None = None,
    min_score: float | None = 0.3,
    images: Images = "copy",
    image_root: ImageRoot | None = None,
    round: int | None = None,  # noqa: A002, as everywhere
    exist_ok: bool = False,
    progress: bool = True,
) -> Path:
    """Write a folder that a CVAT task is made of; `README.txt` in it says what to click.

    `annotations.xml` has the pre-labels, or the annotations, as "CVAT for images 1.1". A detector's boxes have the
    source `auto` and their score as an attribute. `coco_1.0.zip` has the same boxes as CVAT's "COCO 1.0".
    `labels.json` is for the tab "Raw" of CVAT's label editor. If images are put into the folder, `manifest.jsonl` makes
    CVAT show them in the order of the choice.

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

    Returns:
        The path of `annotations.xml`.

    Raises:
        InvalidInputError: no frames; a folder that is not empty; a frame without a file; a label without a name; boxes
            that do not fit their file; a class name that CVAT would change or XML cannot hold; with `images='leave'`, a
            path that XML cannot hold, or two that differ in their suffixes alone.
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
        annotations = prepared.annotations
        _check_names(annotations)
        with replacing(staging / ANNOTATIONS_FILE, newline="\n") as file:
            file.writelines(f"{line}\n" for line in _lines(annotations))
        with zipfile.ZipFile(staging / COCO_FILE, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("annotations/instances_default.json", json.dumps(coco_document(annotations)))
        write_json(staging / LABELS_FILE, _labels(annotations))
        if images != "leave":
            with replacing(staging / MANIFEST_FILE, newline="\n") as file:
                file.writelines(f"{json.dumps(record)}\n" for record in _manifest(annotations))
        with replacing(staging / README_FILE) as file:
            file.write(_readme(annotations, in_folder=images != "leave"))
    return Path(folder) / ANNOTATIONS_FILE


def load_cvat(
    path: str | os.PathLike[str],
    *,
    class_names: ClassNames | None = None,
    empty: Empty = "unannotated",
) -> Annotations:
    """Read what CVAT exported as "CVAT for images 1.1", of a task, a job or a project.

    Boxes that are rotated, polygons, ellipses and masks become the upright boxes around them. Other shapes are left
    out. `notes` of the answer says how many.

    Args:
        path: `annotations.xml`; a folder with it; or the zip file of CVAT. If it lies in the folder that `save_cvat`
            wrote, frame ids, ranks and the numbers of classes come back from there.
        class_names: the names and labels of your classes. None takes those of `save_cvat`, or numbers the labels in
            alphabetical order from 1.
        empty: what an image without any shape is: `annotated`, so that a detector learns that nothing is in it, or
            `unannotated`. CVAT's files do not tell.

    Returns:
        The annotations.

    Raises:
        InvalidInputError: a file of "CVAT for video"; another file; a class that `class_names` has not; see
            `read_cvat_images` for the rest.
        MissingExtraError: defusedxml is not installed; it is in the extra `formats`.
        OSError: the file cannot be read.
    """
    check_empty(empty)
    path = Path(path)
    with unpacked(path, suffixes=(".xml", FRAMES_FILE)) as place:
        file = place if place == path else _xml_in(place, path)
        file = file / ANNOTATIONS_FILE if file.is_dir() else file
        source = str(path if place == path else f"{file.name} in {path}")
        with file.open("rb") as opened:
            found = read_cvat_images(opened, source)
        label_names = sorted(found.label_names)
        for folder in (file.parent, path.parent):
            class_names = read_class_names(folder, label_names) if class_names is None else class_names
        annotations = _annotations(found, source, class_names=class_names, empty=empty)
        return with_frames(with_frames(annotations, file.parent), path.parent)


def _annotations(found: CvatImages, source: str, *, class_names: ClassNames | None, empty: Empty) -> Annotations:
    names, label_of = renumbered(list(found.label_names), class_names, source)
    looked = [
        touched or empty == "annotated" if told is None else told
        for told, touched in zip(found.told, found.touched, strict=True)
    ]
    silent = sum(told is None and not touched for told, touched in zip(found.told, found.touched, strict=True))
    return Annotations(
        found.names,
        offsets_of(torch.tensor(found.counts, dtype=torch.int64)),
        boxes=envelopes(
            torch.tensor(found.corners, dtype=torch.float64).reshape(-1, 4),
            torch.tensor(found.degrees, dtype=torch.float64),
        ),
        labels=torch.tensor([label_of[name] for name in found.labels], dtype=torch.int64),
        class_names=names,
        is_annotated=torch.tensor(looked, dtype=torch.bool),
        sizes=torch.tensor(found.sizes, dtype=torch.int64).reshape(-1, 2),
        scores=torch.tensor(found.scores, dtype=torch.float32),
        is_crowd=torch.tensor(found.crowds, dtype=torch.bool),
        source=source,
        notes=[*note_on_empty(silent, empty), *found.notes()],
    )


def _xml_in(folder: Path, path: Path) -> Path:
    """The file in an unpacked export."""
    files = sorted(folder.rglob(ANNOTATIONS_FILE))
    if len(files) != 1:
        named = ", ".join(file.relative_to(folder).as_posix() for file in files[:5])
        raise InvalidInputError(
            f"{str(path)!r} must hold one {ANNOTATIONS_FILE}; it has {named or 'none'}. {IMAGES_EXPORT}, or read an "
            "export in the format 'COCO 1.0' by `load_coco`"
        )
    return files[0]


def _check_names(annotations: Annotations) -> None:
    for name in annotations.class_names.values():
        wrong = _NOT_XML.search(name)
        why = None
        if wrong is not None:
            why = f"XML cannot hold its character {wrong.group()!r}"
        elif name != name.strip():
            why = "CVAT cuts off white space at its ends"
        elif len(name) > _LONGEST_NAME:
            why = f"CVAT cuts off what exceeds {_LONGEST_NAME} characters, and it has {len(name)}"
        if why is not None:
            raise InvalidInputError(
                f"the class name {name!r} cannot be used in CVAT: {why}. Change it in `class_names`"
            )
    owners: dict[str, str] = {}
    for name, frame_id in zip(annotations.file_names, annotations.frame_ids, strict=True):
        frame = name if frame_id is None else frame_id
        wrong = _NOT_XML.search(name)
        if wrong is not None:
            raise InvalidInputError(
                f"the path of frame {frame!r} has the character {wrong.group()!r}, which XML cannot hold. Give images "
                "other names by `images='copy'`"
            )
        stem = os.path.splitext(name)[0]  # noqa: PTH122, as CVAT does it
        if stem in owners:
            raise InvalidInputError(
                f"{owners[stem]!r} and {name!r} are one image to CVAT, which does not look at suffixes. Give images "
                "other names by `images='copy'`"
            )
        owners[stem] = name


def _lines(annotations: Annotations) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>'
    yield "<annotations>"
    yield "  <version>1.1</version>"
    yield "  <meta>"
    yield "    <task>"
    yield f"      <size>{len(annotations)}</size>"
    yield "      <mode>annotation</mode>"
    yield "      <labels>"
    for label in _labels(annotations):
        yield f"        <label><name>{_escaped(label['name'])}</name><attributes>"
        for attribute in label["attributes"]:
            yield (
                f"          <attribute><name>{attribute['name']}</name><mutable>False</mutable>"
                f"<input_type>{attribute['input_type']}</input_type>"
                f"<default_value>{attribute['default_value']}</default_value>"
                f"<values>{attribute['values'][0]}</values></attribute>"
            )
        yield "        </attributes></label>"
    yield "      </labels>"
    yield "    </task>"
    yield "  </meta>"
    columns = (annotations.sizes, annotations.is_annotated, annotations.offsets[:-1], annotations.offsets[1:])
    rows = zip(annotations.file_names, *(column.tolist() for column in columns), strict=True)
    boxes = _boxes(annotations)
    for number, (name, (width, height), annotated, begin, end) in enumerate(rows, start=_FIRST_ID):
        attributes = f'id="{number}" name="{_escaped(name)}" width="{width}" height="{height}"'
        yield f'  <image {attributes} annotated="{int(annotated)}">'
        for _ in range(begin, end):
            yield from next(boxes)
        yield "  </image>"
    yield "</annotations>"


def _boxes(annotations: Annotations) -> Iterator[list[str]]:
    """The lines of each box."""
    labels = {label: _escaped(name) for label, name in annotations.class_names.items()}
    columns = annotations.labels.tolist(), annotations.is_crowd.tolist()
    rows = zip(annotations.boxes.numpy(), annotations.scores.numpy(), *columns, strict=True)
    for corners, score, label, crowd in rows:
        sides = " ".join(
            f'{key}="{_decimal(value)}"' for key, value in zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True)
        )
        is_drawn = math.isnan(score)
        source = "manual" if is_drawn else "auto"
        lines = [f'    <box label="{labels[label]}" source="{source}" occluded="0" {sides} z_order="0">']
        if not is_drawn:
            lines.append(f'      <attribute name="score">{_decimal(score)}</attribute>')
        if crowd:
            lines.append('      <attribute name="is_crowd">true</attribute>')
        yield [*lines, "    </box>"]


def _decimal(value: Any) -> str:
    """The shortest number that is this float32 when it is read."""
    return np.format_float_positional(value, unique=True, trim="-")


def _labels(annotations: Annotations) -> list[dict[str, Any]]:
    """What CVAT's editor of labels takes. A text has an empty default; a number would give drawn boxes a score."""
    attributes = [{"name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": [""]}]
    if bool(annotations.is_crowd.any()):
        crowd = {"name": "is_crowd", "mutable": False, "input_type": "checkbox"}
        attributes.append({**crowd, "default_value": "false", "values": ["false"]})
    return [
        {"name": name, "type": "rectangle", "attributes": attributes}
        for _, name in sorted(annotations.class_names.items())
    ]


def _manifest(annotations: Annotations) -> Iterator[dict[str, Any]]:
    """The order of the images, as CVAT's sorting method "predefined" reads it."""
    yield {"version": "1.1"}
    yield {"type": "images"}
    for name, (width, height) in zip(annotations.file_names, annotations.sizes.tolist(), strict=True):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122, as CVAT does it
        yield {"name": stem, "extension": suffix, "width": width, "height": height}


def _escaped(text: str) -> str:
    return re.sub('[&<>"\t\n\r]', lambda found: _ESCAPES[found.group()], text)


def _readme(annotations: Annotations, *, in_folder: bool) -> str:
    labels = f"Labels: open the tab 'Raw', paste the content of {LABELS_FILE} there, and click 'Done'."
    if not annotations.class_names:
        labels = f"Labels: {LABELS_FILE} is empty, because no class names are known. Add your labels."
    if in_folder:
        data = [
            "Zip the folder 'images' as a whole, so that the archive begins with 'images/'.",
            f"Select files: choose that zip file and {MANIFEST_FILE}, together.",
            "Advanced configuration: set 'Sorting method' to 'Predefined'. The first choice is then shown first.",
        ]
    else:
        data = [
            "Select files: give CVAT the images under the paths that they have in annotations.xml, for example from a",
            "  connected file share, or in a zip file with the same folders. CVAT shows them in alphabetical order;",
            f"  for the order of the choice, export with images='copy'. The ranks are in {FRAMES_FILE}.",
        ]
    steps = [
        "In CVAT, click 'Tasks', '+', 'Create a new task', and give it a name.",
        labels,
        *data,
        "Click 'Submit & Open', and wait until the task is there.",
        f"Pre-labels: on the task, click 'Actions', 'Upload annotations', 'CVAT 1.1', and choose {ANNOTATIONS_FILE}.",
        "Annotate. Correct the boxes, delete wrong ones, and add those that are missing.",
        "Click 'Actions', 'Export task dataset', and choose 'CVAT for images 1.1'. Images are not needed.",
        "Save the zip file into this folder, and read it by cval_torch.formats.load_cvat.",
    ]
    numbered: list[str] = []
    count = 0
    for step in steps:
        count += not step.startswith(" ")
        numbered.append(f"   {step}" if step.startswith(" ") else f"{count}. {step}")
    return "\n".join([f"{len(annotations)} frames for CVAT", "", *numbered, ""])
