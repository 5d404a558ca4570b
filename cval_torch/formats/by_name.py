"""The formats by their names, and which one a file is in."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames
from cval_torch.formats.coco import INSTANCES_FILE, Empty, check_empty, load_coco
from cval_torch.formats.csv_table import load_csv
from cval_torch.formats.cvat import load_cvat
from cval_torch.formats.json_files import read_json
from cval_torch.formats.label_studio import TASKS_FILE, load_label_studio
from cval_torch.formats.label_studio_tasks import looks_like_tasks
from cval_torch.formats.yolo import load_yolo

LOADERS: Mapping[str, Callable[..., Annotations]] = {
    "coco": load_coco,
    "csv": load_csv,
    "cvat": load_cvat,
    "label_studio": load_label_studio,
    "yolo": load_yolo,
}
"""What reads each format, by name."""
_TELLING = frozenset({"label_studio"})
"""The formats that keep "annotated, with nothing in it" apart from "not annotated"."""


def load_annotations(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002, as in the libraries of the field
    class_names: ClassNames | None = None,
    empty: Empty = "unannotated",
) -> Annotations:
    """Read annotations in any of the formats.

    Args:
        path: a file, a zip file, or the folder of an export.
        format: its name, one of `LOADERS`. None: it is told from the file.
        class_names: the names and labels of your classes; see the format's own `load_...`.
        empty: what a frame without boxes is where the format does not tell.

    Raises:
        InvalidInputError: an unknown format; a file of none of them; and what the format's function raises.
        OSError: the file cannot be read.
    """
    name = guess_format(path) if format is None else format.replace("-", "_").lower()
    if name not in LOADERS:
        raise InvalidInputError(f"`format` must be one of {', '.join(LOADERS)}; got {format!r}")
    if name in _TELLING:
        check_empty(empty)
        return LOADERS[name](path, class_names=class_names)
    return LOADERS[name](path, class_names=class_names, empty=empty)


def guess_format(path: str | os.PathLike[str]) -> str:
    """The name of the format of a file or folder.

    Raises:
        InvalidInputError: it looks like none of them.
        OSError: it cannot be read.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"there is no file or folder {os.fspath(path)!r}")
    names = [each.name for each in place.iterdir()] if place.is_dir() else _inside(place)
    for name, shows in _SIGNS.items():
        if any(shows(each) for each in names):
            return name
    found = _of_json(place) if place.suffix.lower() == ".json" else None
    if found is None:
        raise InvalidInputError(
            f"{os.fspath(path)!r} is in none of the formats that are told from a file; say which by `format`, one of "
            f"{', '.join(LOADERS)}"
        )
    return found


def _inside(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return [path.name]
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _is_coco(name: str) -> bool:
    return (
        name == INSTANCES_FILE
        or (name.startswith("annotations/instances_") and name.endswith(".json"))
        or name == "result.json"
    )


def _is_yolo(name: str) -> bool:
    return name in ("data.yaml", "data.yml", "classes.txt", "obj.names") or name.endswith(".yaml")


def _is_cvat(name: str) -> bool:
    return name.lower().endswith(".xml")


def _is_csv(name: str) -> bool:
    return name.lower().endswith((".csv", ".tsv"))


_SIGNS: dict[str, Callable[[str], bool]] = {
    "label_studio": lambda name: name == TASKS_FILE,  # before CVAT: an XML file lies beside it
    "coco": _is_coco,
    "cvat": _is_cvat,
    "csv": _is_csv,
    "yolo": _is_yolo,
}


def _of_json(path: Path) -> str | None:
    document = read_json(path)
    if looks_like_tasks(document):
        return "label_studio"
    return "coco" if isinstance(document, Mapping) and "images" in document else None
