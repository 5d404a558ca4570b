"""YOLO's text files, one an image, and the `data.yaml` beside them, as Ultralytics reads them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames, renumbered
from cval_torch.formats.coco import Empty, check_empty, note_on_empty
from cval_torch.formats.export_folder import read_class_names, read_frames, with_frames
from cval_torch.formats.images import list_images
from cval_torch.formats.matching import match_paths
from cval_torch.formats.prepared import IMAGES_FOLDER, ExportOptions, ImageRoot, Images, exporting
from cval_torch.formats.tool_paths import exported_paths
from cval_torch.formats.unpacked import unpacked
from cval_torch.formats.upright import upright_size
from cval_torch.formats.yolo_dataset import LABELS_FOLDER, YoloDataset, label_path, read_yolo_dataset, write_yaml
from cval_torch.pool.offsets import offsets_of
from cval_torch.report.frames import ChosenFrames

PREDICTIONS_FOLDER = "predictions"


def save_yolo(
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
    """Write `data.yaml`, `images/` and `labels/`, from which Ultralytics trains.

    YOLO numbers classes from 0 without gaps, in the order of the labels. A frame that is annotated has a label file,
    which is empty where nothing is in the frame. Ultralytics takes an image without a label file for background, so
    `data.yaml` lists the annotated frames alone where some are annotated and some are not. A detector's boxes of frames
    that nobody annotated go to `predictions/`, with their confidences as a sixth column. Move a file from there to
    `labels/`, without that column, once a person confirmed it. Crowds are left out: the format has none.

    Args:
        frames: what `select` returned, or annotations.
        folder: the new folder.
        class_names: see `ExportOptions`, as for all of these.
        min_score: of pre-labels, in [0, 1]; None writes none.
        images: what happens to the image files. They cannot stay where they are: Ultralytics finds the labels of an
            image beside the folder `images` that it is in.
        image_root: the folder that ids are paths below, or a file for each id.
        round: the number of the round, from 0.
        exist_ok: whether an export that is there already is replaced.
        progress: whether to show a bar.

    Returns:
        The path of `data.yaml`.

    Raises:
        InvalidInputError: as `save_coco` does; `images` is "leave"; the size of an image is not known.
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
    if images == "leave":
        raise InvalidInputError(
            "YOLO's labels lie beside the folder of the images, so `images` must be 'copy', 'symlink', 'hardlink' or "
            "'pixels'; got 'leave'"
        )
    with exporting(frames, folder, options) as (staging, prepared):
        marked = prepared.annotations
        names = dict(sorted(marked.class_names.items()))
        number_of = {label: number for number, label in enumerate(names)}
        for row, file_name in enumerate(marked.file_names):
            _write_labels(staging, marked, row, file_name, number_of)
        train = IMAGES_FOLDER
        if 0 < int(marked.is_annotated.sum()) < len(marked):
            train = "train.txt"
            listed = [f"./{name}" for name, kept in zip(marked.file_names, marked.is_annotated, strict=True) if kept]
            (staging / train).write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")
        write_yaml(staging / "data.yaml", {"train": train, "val": train, "names": dict(enumerate(names.values()))})
    return Path(folder) / "data.yaml"


def load_yolo(
    path: str | os.PathLike[str],
    *,
    class_names: ClassNames | None = None,
    empty: Empty = "unannotated",
    image_root: str | os.PathLike[str] | None = None,
) -> Annotations:
    """Read the labels of a YOLO dataset.

    Args:
        path: its `data.yaml`; its folder; or a zip file of the folder. Without a `data.yaml`, the names of the classes
            are in `classes.txt`, as Label Studio exports them, or in `obj.names`.
        class_names: the names and labels of your classes. Classes are found by name then. None keeps the file's
            numbers, or, in a folder of `save_yolo`, the labels from before.
        empty: what an image without a label file is: `annotated`, as Ultralytics takes it, or `unannotated`. An empty
            label file says that nothing is in the image.
        image_root: the folder of the images, where the dataset holds labels alone.

    Returns:
        The annotations. A row of more than six numbers is a polygon, and becomes its envelope. A label file whose rows
        have a sixth number, a confidence, holds predictions, so its frame is not annotated.

    Raises:
        InvalidInputError: no names of classes; a row that is no label; a class without a name; an image that is not
            there. The message names the file and the line.
        OSError: a file cannot be read.
    """
    check_empty(empty)
    with unpacked(path) as place:
        dataset = read_yolo_dataset(place, source=os.fspath(path))
        return _read(dataset, class_names=class_names, empty=empty, image_root=image_root)


def _read(
    dataset: YoloDataset,
    *,
    class_names: ClassNames | None,
    empty: Empty,
    image_root: str | os.PathLike[str] | None,
) -> Annotations:
    source, folder = dataset.source, dataset.folder
    if class_names is None:
        class_names = read_class_names(folder, dataset.names.values())
    names, label_of = renumbered(dataset.names, class_names, source)
    files = _images(dataset, image_root)
    known = read_frames(folder)
    sizes, tables, looked, silent = [], [], [], 0
    for file_name, (image, labels) in files.items():
        record = known.get(file_name, {})
        size = (record["width"], record["height"]) if "width" in record else upright_size(image)
        predictions = _beside(folder, file_name)
        if labels.is_file():
            table = _rows(labels, size, dataset.names)
            looked.append(not any(len(row) == 6 for row in table))
        elif record and predictions.is_file():
            table = _rows(predictions, size, dataset.names)
            looked.append(False)
        else:
            table = []
            silent += 1
            looked.append(empty == "annotated")
        sizes.append(size)
        tables.append(table)
    rows = [row for table in tables for row in table]
    boxes = torch.tensor([row[1:5] for row in rows], dtype=torch.float64).reshape(-1, 4)
    marked = Annotations(
        exported_paths(list(files)) if dataset.of_label_studio else list(files),
        offsets_of(torch.tensor([len(table) for table in tables], dtype=torch.int64)),
        boxes=boxes,
        labels=torch.tensor([label_of[dataset.names[int(row[0])]] for row in rows], dtype=torch.int64),
        class_names=names,
        is_annotated=torch.tensor(looked, dtype=torch.bool),
        sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        scores=torch.tensor([row[5] if len(row) == 6 else math.nan for row in rows], dtype=torch.float32),
        source=source,
        notes=note_on_empty(silent, empty),
    )
    return with_frames(marked, folder)


def _images(dataset: YoloDataset, image_root: str | os.PathLike[str] | None) -> dict[str, tuple[Path, Path]]:
    """By file name the image and its label file, which may not be there."""
    if image_root is None:
        if not dataset.images:
            raise InvalidInputError(f"{dataset.source} holds no images; give the folder of the images by `image_root`")
        ours = [dataset.folder / name for name in read_frames(dataset.folder)]  # also those that no split lists
        images = dict.fromkeys([*ours, *dataset.images])
        return {_name(image, dataset.folder): (image, label_path(image)) for image in images}
    names = list_images(image_root)
    stems = [str(Path(name).with_suffix("")) for name in names]
    if len(set(stems)) != len(stems):
        twice = next(stem for number, stem in enumerate(stems) if stem in stems[:number])
        raise InvalidInputError(f"two images in {os.fspath(image_root)!r} would have the label file {twice + '.txt'!r}")
    labels = dataset.folder / LABELS_FOLDER
    texts = sorted(path for path in labels.rglob("*.txt") if path.name != "classes.txt")
    entries = [path.relative_to(labels).with_suffix("").as_posix() for path in texts]
    if dataset.of_label_studio:
        entries = exported_paths([f"{IMAGES_FOLDER}/{entry}" for entry in entries])
    matches = match_paths(entries, stems, source=dataset.source)
    if matches.unmatched:
        raise InvalidInputError(
            f"{len(matches.unmatched)} label files of {dataset.source} have no image in {os.fspath(image_root)!r}, "
            f"such as {matches.unmatched[0] + '.txt'!r}"
        )
    name_of = dict(zip(stems, names, strict=True))
    found = {}
    for stem, text in zip(matches.frame_ids, texts, strict=True):
        if stem is not None:
            found[name_of[stem]] = (Path(image_root, name_of[stem]), text)
    return found


def _name(image: Path, folder: Path) -> str:
    return (image.relative_to(folder) if image.is_relative_to(folder) else image).as_posix()


def _beside(folder: Path, file_name: str) -> Path:
    return folder / PREDICTIONS_FOLDER / Path(*Path(file_name).with_suffix(".txt").parts[1:])


def _rows(path: Path, size: tuple[int, int], names: Mapping[int, str]) -> list[list[float]]:
    """For each line its class, the corners in pixels, and, if there is one, the confidence."""
    width, height = size
    found = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{str(path)!r} is no text: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {str(path)!r}"
        values = _numbers(line, where)
        if values[0] != int(values[0]) or int(values[0]) not in names:
            raise InvalidInputError(f"{where} has the class {line.split()[0]}; the names are of {_some(names)}")
        if len(values) in (5, 6):
            x, y, w, h = values[1:5]
            corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            if w < 0 or h < 0:
                raise InvalidInputError(f"{where} has a box of negative size: {line.strip()}")
            confidence = values[5:]
            if confidence and not 0 <= confidence[0] <= 1:
                raise InvalidInputError(
                    f"{where} must have a confidence in [0, 1] in its sixth column; got {confidence[0]}"
                )
        else:
            xs, ys = [value * width for value in values[1::2]], [value * height for value in values[2::2]]
            corners, confidence = [min(xs), min(ys), max(xs), max(ys)], []
        found.append([values[0], *corners, *confidence])
    return found


def _numbers(line: str, where: str) -> list[float]:
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) in (5, 6) or (len(values) >= 7 and len(values) % 2 == 1):
        if not all(map(math.isfinite, values)):
            raise InvalidInputError(f"{where} must have finite numbers; got {line.strip()[:80]!r}")
        if all(-0.01 <= value <= 1.01 for value in values[1:]):
            return values
        raise InvalidInputError(
            f"{where} must have coordinates in [0, 1], as parts of the image's sides; got {line.strip()[:80]!r}"
        )
    raise InvalidInputError(
        f"{where} must be `class x y width height`, or a class and the corners of a polygon; got {line.strip()[:80]!r}"
    )


def _write_labels(folder: Path, marked: Annotations, row: int, file_name: str, number_of: Mapping[int, int]) -> None:
    """The label file of a frame that is annotated, or the predictions for one that is not."""
    part = slice(int(marked.offsets[row]), int(marked.offsets[row + 1]))
    annotated = bool(marked.is_annotated[row])
    kept = ~marked.is_crowd[part]
    if not annotated and not bool(kept.any()):
        return
    where = LABELS_FOLDER if annotated else PREDICTIONS_FOLDER
    path = folder / where / Path(*Path(file_name).with_suffix(".txt").parts[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = marked.sizes[row].tolist()
    if bool(kept.any()) and width < 1:
        raise InvalidInputError(
            f"the size of the image {file_name!r} is not known; give the folder of the images by `image_root`"
        )
    parts = _relative(marked.boxes[part][kept], width, height)
    numbers = [number_of[label] for label in marked.labels[part][kept].tolist()]
    scores: Iterable[Any] = marked.scores[part][kept].tolist()
    lines = []
    for number, box, score in zip(numbers, parts.tolist(), scores, strict=True):
        columns = [f"{value:.8f}".rstrip("0").rstrip(".") for value in box]
        if not annotated:
            columns.append("1" if math.isnan(score) else f"{score:.6g}")
        lines.append(" ".join([str(number), *columns]) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _relative(boxes: Tensor, width: int, height: int) -> Tensor:
    """(n, 4) float64 center and sides in [0, 1], of boxes clipped to the image."""
    size = torch.tensor([width, height] * 2, dtype=torch.float64)
    corners = torch.minimum(boxes.double().clamp_min(0), size) / size if len(boxes) else boxes.double()
    return torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)


def _some(names: Mapping[int, str]) -> str:
    return ", ".join(map(str, list(names)[:20])) or "no classes"
