"""Label Studio: tasks with pre-labels for what was chosen, and its JSON export read back."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames, renumbered
from cval_torch.formats.export_folder import frame_records, read_class_names
from cval_torch.formats.joining import Join, check_join
from cval_torch.formats.json_files import read_json
from cval_torch.formats.label_studio_regions import CROWD
from cval_torch.formats.label_studio_setup import CONTROL, IMAGE, Served, is_remote, label_config, readme, serve
from cval_torch.formats.label_studio_tasks import read_tasks
from cval_torch.formats.prepared import IMAGES_FOLDER, ExportOptions, ImageRoot, Images, Prepared, exporting
from cval_torch.formats.unpacked import unpacked
from cval_torch.pool.files import replacing, write_json
from cval_torch.report.frames import ChosenFrames

TASKS_FILE = "tasks.json"
CONFIG_FILE = "label_config.xml"
README_FILE = "README.txt"


def save_label_studio(
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
    document_root: str | os.PathLike[str] | None = None,
    moves_to: str | os.PathLike[str] | None = None,
    model_version: str = "cval_torch",
) -> Path:
    """Write `tasks.json` for Label Studio, the labelling interface for it, and what to click.

    Tasks come in the order of the frames, the most informative first. The `data` of each has the `image`, and
    `frame_id`, `rank`, `uncertainty` and `round`, which can be sorted by, and come back with the export. Pre-labels are
    predictions; annotated frames are annotations, also those without boxes. `label_config.xml` is the labelling
    interface, and `README.txt` says what to set and to click. `frames.json` says once more which frame is which image.

    Args:
        frames: what `select` returned, or annotations.
        folder: the new folder.
        class_names: see `ExportOptions`, as for all of these.
        min_score: of pre-labels, in [0, 1]; None writes none.
        images: what happens to the image files. Label Studio shows them from the disk, where they are.
        image_root: the folder that ids are paths below, or a file for each id.
        round: the number of the round, from 0.
        exist_ok: whether an export that is there already is replaced.
        progress: whether to show a bar.
        document_root: what Label Studio's LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is, or will be. All images must be in
            folders below it. None: the parent of `folder`, if it gets the images; the parent of `image_root`; or the
            parent of the folder that holds all images. `README.txt` names it.
        moves_to: where the folder will lie, if it is going to be moved, such as to another machine. None: where it is.
        model_version: what the pre-labels are called in Label Studio.

    Returns:
        The path of `tasks.json`.

    Raises:
        InvalidInputError: no frames; a folder that is not empty; a frame without a file; a label without a name, or no
            class at all; boxes that do not fit their file; an image that is not below `document_root`.
        OSError: something cannot be read or written. Nothing is left half written.
    """
    if not isinstance(model_version, str) or not model_version.strip():
        raise InvalidInputError(f"`model_version` must be a text; got {model_version!r}")
    options = ExportOptions(
        class_names=class_names,
        min_score=min_score,
        images=images,
        image_root=image_root,
        round=round,
        exist_ok=exist_ok,
        progress=progress,
    )
    target = Path(os.path.abspath(moves_to or folder))  # noqa: PTH100, links are not followed
    with exporting(frames, folder, options) as (staging, prepared):
        annotations = prepared.annotations
        config = label_config(annotations.class_names)
        served = _serve(prepared, target, options, document_root)
        looked = min_score is not None and not isinstance(frames, Annotations)
        write_json(staging / TASKS_FILE, _tasks(annotations, served, model_version, always_predicted=looked))
        text = readme(
            served, folder=target, model_version=model_version, annotated=bool(annotations.is_annotated.any())
        )
        for name, content in ((CONFIG_FILE, config), (README_FILE, text)):
            with replacing(staging / name, newline="\n") as file:
                file.write(content)
    return Path(folder) / TASKS_FILE


def load_label_studio(
    path: str | os.PathLike[str],
    *,
    class_names: ClassNames | None = None,
    join: Join = "majority",
    image_key: str = IMAGE,
) -> Annotations:
    """Read what Label Studio exported as JSON, or the `tasks.json` that `save_label_studio` wrote.

    A submitted task is annotated, also without boxes. A task without an annotation is not annotated; its boxes are
    those of its newest prediction. A skipped task is left out and listed in `skipped`, unless another person annotated
    it. Drafts do not count. Rotated boxes, polygons and ellipses become the smallest upright boxes that hold them.

    Args:
        path: the file; the folder that `save_label_studio` wrote; or a zip file of it.
        class_names: the names and labels of your classes. None takes those of the export that the file lies beside, or
            numbers the names from 1 in alphabetical order.
        join: what becomes of a task that several people annotated. `majority`: a box stays if more than half of them
            drew one of the same class that overlaps it by half (IoU of 0.5 or more); its corners are the medians.
            `union`: all boxes stay, those of the same object as one. `latest`: the annotation that was changed last
            counts alone. `refuse`: it is an error. Of several annotations of one person, the last counts.
        image_key: the key of the image in the tasks' `data`.

    Returns:
        The annotations. File names are plain paths: below the document root for local files, without the digits in
        front for uploads. Scores are those of predictions, and of boxes that came from a prediction.

    Raises:
        InvalidInputError: the file is no such export, such as JSON-MIN; a task or region is malformed; a class that
            `class_names` has not; a frame stands in two tasks. The message names the file, the task and the key.
        OSError: the file cannot be read.
    """
    check_join(join)
    source = os.fspath(path)
    with unpacked(path) as place:
        file = place / TASKS_FILE if place.is_dir() else place
        if place.is_dir() and not file.is_file():
            raise InvalidInputError(
                f"{source} must hold a {TASKS_FILE}, as `save_label_studio` writes it. What Label Studio exports for "
                "other tools is read by `load_coco` and `load_yolo`"
            )
        tasks = read_tasks(read_json(file), source, join=join, image_key=image_key)
        exported = read_class_names(file.parent, None) if class_names is None else None
    wanted, notes = class_names, list(tasks.notes)
    if exported:
        new = sorted(set(tasks.names) - set(exported.values()))
        wanted = {**exported, **dict(enumerate(new, start=max(exported) + 1))}
        if new:
            notes.append(f"{source} has classes that the export beside it has not: {', '.join(new)}")
    names, label_of = renumbered(sorted(set(tasks.names)), wanted, source)
    return tasks.annotations(names, [label_of[name] for name in tasks.names], notes)


def _serve(
    prepared: Prepared, target: Path, options: ExportOptions, document_root: str | os.PathLike[str] | None
) -> Served:
    annotations = prepared.annotations
    names = [own or name for own, name in zip(annotations.frame_ids, annotations.file_names, strict=True)]
    paths: list[str | Path] = []
    for name, file_name, source in zip(names, annotations.file_names, prepared.sources, strict=True):
        if options.images != "leave":
            paths.append(target / file_name)
        elif source is not None:
            paths.append(Path(os.path.abspath(source)))  # noqa: PTH100, links are not followed
        elif is_remote(file_name):
            paths.append(file_name)
        elif document_root is not None:
            paths.append(Path(os.path.abspath(Path(document_root, file_name))))  # noqa: PTH100
        else:
            raise InvalidInputError(
                f"Label Studio must find the image of frame {name!r}. Give the folder that {file_name!r} is a path "
                "below by `image_root`, or by `document_root` if it is Label Studio's own"
            )
    within = None
    if options.images != "leave":
        within, document_root = target / IMAGES_FOLDER, document_root or target.parent
    elif isinstance(options.image_root, (str, os.PathLike)):
        within = Path(os.path.abspath(options.image_root))  # noqa: PTH100
        within = within if all(isinstance(path, str) or path.is_relative_to(within) for path in paths) else None
    return serve(paths, names, document_root, within=within)


def _tasks(
    annotations: Annotations, served: Served, model_version: str, *, always_predicted: bool
) -> list[dict[str, Any]]:
    tasks = []
    offsets = annotations.offsets.tolist()
    for row, (record, url) in enumerate(zip(frame_records(annotations), served.urls, strict=True)):
        data = {key: record[key] for key in ("frame_id", "rank", "uncertainty", "round") if key in record}
        regions = _regions(annotations, row, slice(offsets[row], offsets[row + 1]))
        task: dict[str, Any] = {"data": {IMAGE: url, **data}}
        if annotations.is_annotated[row]:
            task["annotations"] = [{"result": regions}]
        elif regions or always_predicted:
            scores = [region["score"] for region in regions if "score" in region]
            mean = {"score": sum(scores) / len(scores)} if scores else {}
            task["predictions"] = [{"model_version": model_version, **mean, "result": regions}]
        tasks.append(task)
    return tasks


def _regions(annotations: Annotations, row: int, part: slice) -> list[dict[str, Any]]:
    width, height = annotations.sizes[row].tolist()
    boxes = annotations.boxes[part].double()
    if len(boxes) and (width < 1 or height < 1):
        raise InvalidInputError(
            f"Label Studio writes boxes in percent of the image, and the size of {annotations.file_names[row]!r} is "
            "not known. Give the folder of the images by `image_root`"
        )
    columns = zip(
        boxes.tolist(),
        annotations.labels[part].tolist(),
        annotations.scores[part].double().tolist(),
        annotations.is_crowd[part].tolist(),
        strict=True,
    )
    regions = []
    for number, ((left, top, right, bottom), label, score, crowd) in enumerate(columns, start=1):
        region = {
            "id": f"box{number}",
            "type": "rectanglelabels",
            "from_name": CONTROL,
            "to_name": IMAGE,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "x": 100 * left / width,
                "y": 100 * top / height,
                "width": 100 * (right - left) / width,
                "height": 100 * (bottom - top) / height,
                "rotation": 0,
                "rectanglelabels": [annotations.class_names[label]],
            },
        }
        if not math.isnan(score):
            region["score"] = score
        if crowd:
            region["meta"] = {"text": [CROWD]}
        regions.append(region)
    return regions
