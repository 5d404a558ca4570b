"""From the `source` of a configuration to a dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from cval_torch.config.factories import call_factory
from cval_torch.config.schema import SourceConfig
from cval_torch.errors import InvalidInputError
from cval_torch.formats.coco_instances import read_document, read_images, required_part
from cval_torch.formats.coco_rows import strings_of
from cval_torch.formats.images import IMAGE_SUFFIXES, ImageFolder, files_below, list_images
from cval_torch.formats.video import VIDEO_SUFFIXES, VideoFrames


def open_source(config: SourceConfig) -> Dataset[Any]:
    """The dataset that a configuration names. Its items are images in [0, 1], and targets with an `image_id`.

    Raises:
        InvalidInputError: there is no such folder or file; it holds no images; a file that is listed is not there. The
            message names the key and a remedy.
        OSError: it cannot be read.
    """
    if config.factory is not None:
        dataset = call_factory(config.factory, config.args, key="source.factory")
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise InvalidInputError(
                f"`source.factory` must return a dataset with a length; got {type(dataset).__name__}"
            )
        found: Dataset[Any] = dataset
        return found
    path = Path(config.path or "")
    if path.is_dir():
        return _of_folder(path, config)
    if not path.is_file():
        raise InvalidInputError(f"`source`: there is no folder or file {os.fspath(path)!r}{_near(path)}")
    suffix = path.suffix.lower()
    if suffix in (".json", ".txt"):
        _refuse_video_options(config, os.fspath(path))
    if suffix == ".json":
        return _of_names(_names_in_coco(path), path, config)
    if suffix == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        return _of_names([line for line in lines if line], path, config)
    if suffix in VIDEO_SUFFIXES:
        return _of_video(path, config)
    _refuse_video_options(config, os.fspath(path))
    if suffix in IMAGE_SUFFIXES:
        return ImageFolder(path.parent, frame_ids=[path.name])
    raise InvalidInputError(
        f"`source` must be a folder, a COCO file (.json), a list of paths (.txt), an image or a video; got "
        f"{os.fspath(path)!r}"
    )


def _of_folder(folder: Path, config: SourceConfig) -> Dataset[Any]:
    images, videos = list_images(folder), files_below(folder, VIDEO_SUFFIXES)
    if videos and (not images or config.rate is not None or config.thin is not None):
        return _of_video(folder, config)
    if not images:
        raise InvalidInputError(
            f"`source`: there are no images or videos in {os.fspath(folder)!r}, or in folders below it. An image's "
            f"name ends in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    _refuse_video_options(config, os.fspath(folder))
    return ImageFolder(folder, frame_ids=images)


def _of_video(path: Path, config: SourceConfig) -> VideoFrames:
    return VideoFrames(path, rate=1.0 if config.rate is None else config.rate, thin=config.thin, progress=False)


def _refuse_video_options(config: SourceConfig, name: str) -> None:
    for key in ("rate", "thin"):
        if getattr(config, key) is not None:
            raise InvalidInputError(f"`source.{key}` is for videos, and {name!r} has none")


def _names_in_coco(path: Path) -> list[str]:
    document, source = read_document(path, "")
    where = f"`images` of {source}"
    _, images = read_images(required_part(document, "images", source), where)
    return strings_of(images, "file_name", where)


def _of_names(names: list[str], path: Path, config: SourceConfig) -> ImageFolder:
    if not names:
        raise InvalidInputError(f"`source`: {os.fspath(path)!r} lists no images")
    root = path.parent if config.images is None else Path(config.images)
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise InvalidInputError(
            f"`source`: {len(missing)} of the {len(names)} images in {os.fspath(path)!r} are not below "
            f"{os.fspath(root)!r}, such as {missing[0]!r}. Give the folder that they are below by `source.images`"
        )
    return ImageFolder(root, frame_ids=names)


def _near(path: Path) -> str:
    """What is there, if the folder is."""
    if not path.parent.is_dir():
        return ""
    names = sorted(each.name for each in path.parent.iterdir() if not each.name.startswith("."))[:5]
    return f"; {os.fspath(path.parent)!r} has {', '.join(map(repr, names))}" if names else ""
