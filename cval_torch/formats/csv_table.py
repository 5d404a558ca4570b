"""Tables with a row for each box, as CSV files, written and read back."""

from __future__ import annotations

import csv
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames, renumbered
from cval_torch.formats.coco import Empty, check_empty, note_on_empty
from cval_torch.formats.csv_rows import BOX_COLUMNS, COLUMNS, CsvTable, guarded, read_table
from cval_torch.formats.export_folder import FRAMES_FILE, read_class_names, with_frames
from cval_torch.formats.prepared import ExportOptions, ImageRoot, Images, exporting
from cval_torch.formats.unpacked import unpacked
from cval_torch.pool.files import replacing
from cval_torch.pool.offsets import offsets_of
from cval_torch.report.frames import ChosenFrames

TABLE_FILE = "boxes.csv"


def save_csv(
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
) -> Path:
    """Write `boxes.csv`: a row for each box, and one without a box for each frame that has none.

    The columns are `frame_id, file_name, width, height, label, class_name, xmin, ymin, xmax, ymax, score, rank,
    uncertainty, round, annotated, is_crowd`, with commas between them, in UTF-8. Boxes are in pixels. What is not known
    is left empty. A text that a spreadsheet would take for a formula, because it begins with `=`, `+`, `-` or `@`, gets
    a `'` in front, which `load_csv` takes away.

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
        The path of `boxes.csv`.

    Raises:
        InvalidInputError: no frames; a folder that is not empty; a frame without a file; a label without a name; boxes
            that do not fit their file; a text that UTF-8 or a CSV file cannot hold.
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
    with (
        exporting(frames, folder, options) as (staging, prepared),
        replacing(staging / TABLE_FILE, newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_rows(prepared.annotations))
    return Path(folder) / TABLE_FILE


def load_csv(
    path: str | os.PathLike[str],
    *,
    class_names: ClassNames | None = None,
    empty: Empty = "unannotated",
) -> Annotations:
    """Read a table with a row for each box: ours, or one of another program.

    The first line names the columns, in any order, in upper or lower case. A table needs `file_name` or `frame_id`, and
    for boxes `xmin, ymin, xmax, ymax` and `class_name` or `label`. Usual other names are understood, such as
    `filename`, `image`, `class`, `x1, y1, x2, y2`, `left, top, right, bottom` and `confidence`. Columns of other names
    are passed over. Commas, semicolons or tabs stand between the columns.

    Args:
        path: the file, in UTF-8 with or without a byte order mark, or the folder that `save_csv` wrote, or
            a zip file of it.
        class_names: the names and labels of your classes. None takes the numbers of the column `label`; without it, the
            names are numbered in alphabetical order from 1.
        empty: what a frame without boxes is where the table has no column `annotated`: `annotated`, so that a detector
            learns that nothing is in it, or `unannotated`.

    Returns:
        The annotations. The frames are in the order of their first rows.

    Raises:
        InvalidInputError: the file is not UTF-8 or no such table; a cell that is no number; a box that is not finite or
            ends before it begins; rows of one frame that differ in what they say of the frame; a class that
            `class_names` has not. The message names the file, the line and the column.
        OSError: the file cannot be read.
    """
    check_empty(empty)
    path = Path(path)
    with unpacked(path, suffixes=(".csv", FRAMES_FILE)) as place:
        file = place / TABLE_FILE if place.is_dir() else place
        if place != path and not file.is_file():
            raise InvalidInputError(f"{str(path)!r} has no {TABLE_FILE}. Unpack it, and pass the file of the table")
        source = str(path if place == path else f"{TABLE_FILE} in {path}")
        table = read_table(file, source)
        names, labels = _classes(table, class_names, source, file.parent)
        annotations = _annotations(table, names, labels, source, empty)
        return with_frames(with_frames(annotations, file.parent), path.parent)


def _annotations(table: CsvTable, names: dict[int, str], labels: list[int], source: str, empty: Empty) -> Annotations:
    told = table.column("annotated")
    drawn = [bool(boxes) for boxes in table.boxes]
    pairs = list(zip(told, drawn, strict=True))
    boxes = [box for boxes in table.boxes for box in boxes]
    return Annotations(
        [str(name) for name in table.column("file_name")],
        offsets_of(torch.tensor([len(each) for each in table.boxes], dtype=torch.int64)),
        boxes=torch.tensor([box.corners for box in boxes], dtype=torch.float64).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=names,
        frame_ids=table.column("frame_id"),
        is_annotated=torch.tensor(
            [has_boxes or empty == "annotated" if each is None else each for each, has_boxes in pairs]
        ),
        sizes=torch.tensor([[frame["width"], frame["height"]] for frame in table.frames]).reshape(-1, 2),
        scores=torch.tensor([box.score for box in boxes], dtype=torch.float32),
        is_crowd=torch.tensor([box.is_crowd for box in boxes], dtype=torch.bool),
        ranks=torch.tensor(table.column("rank"), dtype=torch.int64),
        uncertainties=torch.tensor(table.column("uncertainty"), dtype=torch.float64),
        rounds=torch.tensor(table.column("round"), dtype=torch.int64),
        source=source,
        notes=note_on_empty(sum(each is None and not has_boxes for each, has_boxes in pairs), empty),
    )


def _rows(annotations: Annotations) -> Iterator[list[str]]:
    names = ("sizes", "ranks", "rounds", "uncertainties", "is_annotated", "counts")
    columns = (getattr(annotations, name).tolist() for name in names)
    frames = zip(annotations.file_names, annotations.frame_ids, *columns, strict=True)
    boxes = _boxes(annotations)
    unnamed: set[str] = set()
    for file_name, frame_id, (width, height), rank, round_, uncertainty, annotated, count in frames:
        if frame_id is None and file_name in unnamed:
            raise InvalidInputError(
                f"the frames of a table must be distinct; got two with the path {file_name!r} and without an id"
            )
        unnamed |= {file_name} if frame_id is None else set()
        what = repr(file_name if frame_id is None else frame_id)
        before = [
            "" if frame_id is None else _text(frame_id, f"the frame {what}"),
            _text(file_name, f"the path of the frame {what}"),
            str(width) if width > 0 else "",
            str(height) if height > 0 else "",
        ]
        after = [
            str(rank) if rank > 0 else "",
            "" if math.isnan(uncertainty) else repr(uncertainty),
            str(round_) if round_ >= 0 else "",
            str(annotated).lower(),
        ]
        for box in itertools.islice(boxes, count):
            yield [*before, *box[:-1], *after, box[-1]]
        if count == 0:
            yield [*before, *("" for _ in BOX_COLUMNS), *after, ""]


def _boxes(annotations: Annotations) -> Iterator[list[str]]:
    """The cells of each box: those of `BOX_COLUMNS`, and whether it is a crowd."""
    labels = annotations.labels.tolist()
    names = {label: _text(annotations.class_names[label], "the class name") for label in set(labels)}
    rows = zip(
        labels, annotations.boxes.numpy(), annotations.scores.numpy(), annotations.is_crowd.tolist(), strict=True
    )
    for label, corners, score, crowd in rows:
        sides = [_decimal(side) for side in corners]
        yield [str(label), names[label], *sides, "" if math.isnan(score) else _decimal(score), str(crowd).lower()]


def _text(text: str, what: str) -> str:
    wrong = re.search("[\x00\ud800-\udfff]", text)
    if wrong is not None:
        raise InvalidInputError(
            f"{what} cannot be written to a CSV file: {text!r} has the character {wrong.group()!r}. Use another "
            "format, such as `save_coco`"
        )
    return guarded(text)


def _decimal(value: Any) -> str:
    """The shortest number that is this float32 when it is read."""
    return np.format_float_positional(value, unique=True, trim="-")


def _classes(
    table: CsvTable, class_names: ClassNames | None, source: str, folder: Path
) -> tuple[dict[int, str], list[int]]:
    """The names by label, and the label of each box."""
    boxes = [box for boxes in table.boxes for box in boxes]
    found: dict[int, str] = {}
    for box in boxes:
        if box.label is not None and found.setdefault(box.label, box.class_name) != box.class_name:
            raise InvalidInputError(
                f"line {box.line} of {source} gives the label {box.label} the name {box.class_name!r}; another row "
                f"gives it {found[box.label]!r}"
            )
    texts = [box.class_name for box in boxes]
    numbered = all(box.label is not None for box in boxes)
    written = read_class_names(folder, None) if class_names is None and numbered else None
    if written is not None and found.items() <= written.items():
        class_names = written  # with the classes that no box has
    names, label_of = renumbered(found if numbered else texts, class_names, source)
    return names, [label_of[text] for text in texts]
