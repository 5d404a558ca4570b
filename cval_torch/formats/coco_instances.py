"""COCO's instances files: images, annotated boxes and categories, read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.formats.coco_rows import (
    check_distinct,
    checked_rows,
    corners_of,
    flags_of,
    ids_of,
    integers_of,
    rows_of_images,
    strings_of,
)
from cval_torch.formats.json_files import read_json


@dataclass(frozen=True, eq=False)
class CocoInstances:
    """What an instances file says of N images with B annotated boxes.

    Attributes:
        image_ids: N distinct integers or strings.
        file_names: N paths, as they stand in the file.
        categories: names of the classes by their ids. The ids keep the file's numbers, gaps included.
        image_rows: (B,) int64, for each box the position of its image.
        boxes: (B, 4) float32, xyxy in pixels.
        labels: (B,) int64, the category of each box.
        is_crowd: (B,) bool, whether the box holds a crowd and not one object.
        source: what to call the file in messages.
    """

    image_ids: tuple[int | str, ...]
    file_names: tuple[str, ...]
    categories: Mapping[int, str]
    image_rows: Tensor
    boxes: Tensor
    labels: Tensor
    is_crowd: Tensor
    source: str

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return (
            f"CocoInstances({len(self)} images, {len(self.boxes)} boxes, {len(self.categories)} categories; "
            f"{self.source})"
        )


def load_coco_instances(
    path: str | os.PathLike[str] | Mapping[str, Any], *, source: str = "the instances"
) -> CocoInstances:
    """Read a COCO instances file: `images`, `annotations` and `categories`.

    The file may begin with a byte order mark. Keys that are not needed are passed over.

    Args:
        path: the JSON file, or what was read from it.
        source: what to call it in messages, if it is no path.

    Raises:
        InvalidInputError: the file is not JSON or not an instances file; a key is missing or of another type; an id
            comes twice; an annotation is of an unknown image or category; a box is not finite or has a negative side.
            The message names the file, the key and the number of the record, counted from 0.
        OSError: the file cannot be read.

    >>> instances = load_coco_instances(
    ...     {
    ...         "images": [{"id": 7, "file_name": "a.jpg"}],
    ...         "annotations": [{"image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40]}],
    ...         "categories": [{"id": 1, "name": "bolt"}],
    ...     }
    ... )
    >>> instances.file_names, instances.boxes, instances.categories
    (('a.jpg',), tensor([[10., 20., 40., 60.]]), {1: 'bolt'})
    """
    document, source = read_document(path, source)
    of_images = f"`images` of {source}"
    ids, images = read_images(required_part(document, "images", source), of_images)
    where = f"`annotations` of {source}"
    annotations = checked_rows(required_part(document, "annotations", source), where)
    categories = _categories(document, source)
    labels = integers_of(annotations, "category_id", where)
    unknown = ~np.isin(labels, np.fromiter(categories, dtype=np.int64, count=len(categories)))
    if unknown.any():
        number = int(unknown.argmax())
        raise InvalidInputError(
            f"number {number} of {where} has the `category_id` {labels[number]}, which is not among the "
            f"{len(categories)} `categories`"
        )
    rows = rows_of_images(ids_of(annotations, "image_id", where), ids, where, of_images)
    return CocoInstances(
        image_ids=tuple(ids),
        file_names=tuple(strings_of(images, "file_name", of_images)),
        categories=categories,
        image_rows=torch.from_numpy(rows),
        boxes=torch.from_numpy(corners_of(annotations, "bbox", where)).float(),
        labels=torch.from_numpy(labels),
        is_crowd=torch.from_numpy(flags_of(annotations, "iscrowd", where)),
        source=source,
    )


def read_document(value: str | os.PathLike[str] | Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The object at the top of an instances file, and what to call it in messages.

    Args:
        value: the file, or what was read from it.
        name: what to call it if it is no file.
    """
    if isinstance(value, (str, os.PathLike)):
        document, source = read_json(value), os.fspath(value)
    else:
        document, source = value, name
    if isinstance(document, Mapping):
        return document, source
    if isinstance(document, (list, tuple)):
        what = "a list of results" if looks_like_results(document) else "a list"
        raise InvalidInputError(
            f"{source} is {what}, and not a COCO instances file. Pass the file with `images`, `annotations` and "
            "`categories`, such as the ground truth that the results were evaluated with"
        )
    raise InvalidInputError(f"{source} must be an object with `images`; got {type(document).__name__}")


def read_images(rows: Any, where: str) -> tuple[list[int | str], Sequence[Mapping[str, Any]]]:
    """The ids of a list of images, and the list.

    Args:
        rows: what should be one.
        where: what to call it in messages, such as "`images` of FILE".
    """
    images = checked_rows(rows, where)
    ids = ids_of(images, "id", where)
    check_distinct(ids, "id", where)
    return ids, images


def looks_like_results(rows: Sequence[Any]) -> bool:
    """Whether a list is one of results or annotations, and not of images."""
    return bool(rows) and isinstance(rows[0], Mapping) and "image_id" in rows[0]


def _categories(document: Mapping[str, Any], source: str) -> dict[int, str]:
    where = f"`categories` of {source}"
    rows = checked_rows(required_part(document, "categories", source), where)
    ids: list[int] = integers_of(rows, "id", where).tolist()
    check_distinct(ids, "id", where)
    return dict(zip(ids, strings_of(rows, "name", where), strict=True))


def required_part(document: Mapping[str, Any], key: str, source: str) -> Any:
    """What an instances file has under `key`."""
    if key not in document:
        has = ", ".join(map(str, list(document)[:10])) or "none"
        raise InvalidInputError(
            f"{source} has no `{key}`; its keys are {has}. A COCO instances file has `images`, `annotations` and "
            "`categories`"
        )
    return document[key]
