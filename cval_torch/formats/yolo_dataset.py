"""What a YOLO dataset consists of: the names of its classes, and its images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError, MissingExtraError
from cval_torch.formats.images import IMAGE_SUFFIXES, list_images
from cval_torch.formats.json_files import read_json

LABELS_FOLDER = "labels"
_SPLITS = ("train", "val", "test")
_NOTES_FILE = "notes.json"


@dataclass(frozen=True)
class YoloDataset:
    """A dataset on the disk.

    Attributes:
        folder: that its paths are below.
        names: of the classes by number.
        images: its image files, of all splits, each once.
        source: what to call it in messages.
        of_label_studio: whether Label Studio exported it, which puts digits in front of the names of files.
    """

    folder: Path
    names: dict[int, str]
    images: tuple[Path, ...]
    source: str
    of_label_studio: bool = False


def read_yolo_dataset(path: Path, *, source: str) -> YoloDataset:
    """Find out what is in a dataset.

    Args:
        path: its yaml file, or its folder.
        source: what to call it in messages.

    Raises:
        InvalidInputError: neither a yaml file nor a list of classes; a yaml file that is not one of a dataset.
        OSError: a file cannot be read.
    """
    if path.is_file():
        return _of_yaml(path, source)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no file or folder {source!r}")
    folder = _innermost(path)
    files = [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    if len(files) > 1:
        raise InvalidInputError(
            f"{source} has several yaml files, {', '.join(f.name for f in files)}: pass one of them"
        )
    if files:
        return _of_yaml(files[0], source)
    if (folder / _NOTES_FILE).is_file():  # of Label Studio: a name in its classes.txt may be broken by a line break
        return YoloDataset(folder, _names_in_notes(folder / _NOTES_FILE), _all_images(folder), source, True)
    for name in ("classes.txt", "obj.names"):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
            names = dict(enumerate(line.strip() for line in lines if line.strip()))
            return YoloDataset(folder, names, _all_images(folder), source)
    raise InvalidInputError(f"{source} has no `data.yaml`, and no `classes.txt` with the names of the classes")


def label_path(image: Path) -> Path:
    """Where Ultralytics looks for the labels of an image: the last folder `images` of its path becomes `labels`."""
    before, folder, after = os.fspath(image).rpartition(f"{os.sep}images{os.sep}")
    path = Path(f"{before}{os.sep}{LABELS_FOLDER}{os.sep}{after}") if folder else image
    return path.with_suffix(".txt")


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write plain values as YAML."""
    yaml = _yaml()
    path.write_text(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415, an extra
    except ImportError as error:
        raise MissingExtraError("formats", needed_for="YOLO's `data.yaml`") from error
    return yaml


def _all_images(folder: Path) -> tuple[Path, ...]:
    return tuple(folder / each for each in list_images(folder))


def _names_in_notes(path: Path) -> dict[int, str]:
    notes = read_json(path)
    try:
        return {int(each["id"]): str(each["name"]) for each in notes["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{str(path)!r} must have `categories` with `id` and `name`: {error}") from error


def _innermost(folder: Path) -> Path:
    """The folder that a zip file of a folder has as its only content."""
    inside = [each for each in folder.iterdir() if each.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != LABELS_FOLDER else folder


def _of_yaml(path: Path, source: str) -> YoloDataset:
    yaml = _yaml()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{str(path)!r} is not YAML: {error}") from error
    if not isinstance(document, Mapping) or "names" not in document:
        raise InvalidInputError(f"{str(path)!r} must have the `names` of the classes, as Ultralytics reads it")
    names = _names(document["names"], str(path))
    root = path.parent
    given = document.get("path")
    if given is not None:
        root = path.parent / str(given)
        if not root.is_dir():
            raise InvalidInputError(
                f"{str(path)!r} says that the dataset is in {str(given)!r}, and there is no folder {str(root)!r}. "
                "Correct `path` there, or remove it: then the folder of the yaml file counts"
            )
    images: dict[Path, None] = {}
    for split in _SPLITS:
        places = document.get(split) or []
        for place in [places] if isinstance(places, str) else places:
            images.update(dict.fromkeys(_images_at(root / str(place), f"`{split}` of {str(path)!r}")))
    return YoloDataset(root, names, tuple(images), source)


def _images_at(place: Path, where: str) -> list[Path]:
    if place.is_dir():
        return [place / name for name in list_images(place)]
    if place.suffix == ".txt" and place.is_file():
        lines = place.read_text(encoding="utf-8-sig").splitlines()
        return [place.parent / line.strip() for line in lines if line.strip()]
    if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
        return [place]
    raise InvalidInputError(f"{where} must be a folder of images, or a text file that lists some; got {str(place)!r}")


def _names(value: Any, where: str) -> dict[int, str]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        raise InvalidInputError(f"`names` of {where} must be a list, or names by number; got {type(value).__name__}")
    names: dict[int, str] = {}
    for number, name in pairs:
        if isinstance(number, bool) or not isinstance(number, int):
            raise InvalidInputError(f"`names` of {where} must be by number; got {number!r}")
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise InvalidInputError(
                f"`names` of {where} must be texts; number {number} is {name!r} to YAML. Put it in quotes"
            )
        names[number] = str(name)
    return names
