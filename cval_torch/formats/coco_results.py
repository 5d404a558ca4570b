"""COCO's results files, the predictions of any detector, as a `Pool`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.coco_instances import (
    CocoInstances,
    looks_like_results,
    read_document,
    read_images,
    required_part,
)
from cval_torch.formats.coco_rows import (
    check_distinct,
    checked_rows,
    corners_of,
    ids_of,
    integers_of,
    rows_of_images,
    strings_of,
    unit_scores_of,
)
from cval_torch.formats.json_files import read_json
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH
from cval_torch.pool.pool import IdSource, Pool

_READ = ("image_id", "category_id", "bbox", "score")
_PASSED_OVER = {"id", "area", "iscrowd", "segmentation", "keypoints", "num_keypoints", "file_name", "category_name"}
"""What evaluation and detection libraries write beside the four keys, and what a `Pool` has no column for."""

_SOURCES: dict[str, IdSource] = {"file_name": "dataset", "image_id": "target"}


def load_coco_results(
    results: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    *,
    images: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]] | CocoInstances,
    frame_ids: Literal["file_name", "image_id"] = "file_name",
) -> Pool:
    """The `Pool` of predictions that another program made, as COCO results: `image_id, category_id, bbox, score`.

    The frames are all images of `images`, in their order. Those without a result are frames without boxes.

    Args:
        results: the JSON file, or the list that was read from it. A `bbox` is `[left, top, width, height]` in pixels.
        images: the instances file, an object or file with `images` alone, or the list of images: each with the `id`
            that the results name it by, and a `file_name`.
        frame_ids: what the frames are called. `file_name`: by their paths, as they stand in `images`; the pool's
            `ids_from` is "dataset". `image_id`: by their ids, as strings; `ids_from` is "target".

    Returns:
        A pool on the CPU with `boxes` (xyxy), `labels` (the category ids, as they are) and `scores`. The boxes of a
        frame keep their order.

    Raises:
        InvalidInputError: a file that is not JSON, or an instances file in place of results, or the other way round; a
            key that is missing, unknown or of another type; a score outside [0, 1]; a NaN; a negative width or height;
            an `image_id` that is not among the images; a frame id that is not distinct or too long. The message names
            the file, the key and the number of the record, counted from 0.
        OSError: a file cannot be read.

    >>> images = [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}]
    >>> pool = load_coco_results(
    ...     [{"image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5}], images=images
    ... )
    >>> pool.frame_ids, pool.counts, pool.boxes
    (('a.jpg', 'b.jpg'), tensor([1, 0]), tensor([[10., 20., 40., 60.]]))
    """
    if frame_ids not in _SOURCES:
        raise InvalidInputError(f"`frame_ids` must be 'file_name' or 'image_id'; got {frame_ids!r}")
    rows, where = _results(results)
    _check_keys(rows, where)
    known, names, of_images = _frames(images, frame_ids)
    owners = rows_of_images(ids_of(rows, "image_id", where), known, where, of_images)
    order = np.argsort(owners, kind="stable")
    offsets = torch.zeros(len(known) + 1, dtype=torch.int64)
    offsets[1:] = torch.from_numpy(np.bincount(owners, minlength=len(known)).cumsum())
    return Pool(
        names,
        offsets,
        scores=torch.from_numpy(unit_scores_of(rows, "score", where)[order]).float(),
        boxes=torch.from_numpy(corners_of(rows, "bbox", where)[order]).float(),
        labels=torch.from_numpy(integers_of(rows, "category_id", where)[order]),
        ids_from=_SOURCES[frame_ids],
    )


def _results(value: Any) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The records, and what to call them in messages."""
    is_file = isinstance(value, (str, os.PathLike))
    rows, where = (read_json(value), os.fspath(value)) if is_file else (value, "`results`")
    if isinstance(rows, Mapping):
        what = "a COCO instances file" if "images" in rows else "an object"
        remedy = ", and the instances file as `images=`" if "images" in rows else ""
        raise InvalidInputError(
            f"{where} is {what}, and not a list of results. Pass the detector's predictions, a list of objects with "
            f"{', '.join(_READ)}{remedy}"
        )
    return checked_rows(rows, where), where


def _check_keys(rows: Sequence[Mapping[str, Any]], where: str) -> None:
    known = {*_READ, *_PASSED_OVER}
    for keys in set(map(tuple, rows)):
        unknown = [key for key in keys if key not in known]
        if unknown:
            number = next(number for number, row in enumerate(rows) if tuple(row) == keys)
            close = difflib.get_close_matches(str(unknown[0]), _READ, n=1)
            raise InvalidInputError(
                f"number {number} of {where} has the key `{unknown[0]}`, which is not read"
                + (f"; do you mean `{close[0]}`?" if close else ".")
                + f" Those that are read are {', '.join(_READ)}"
            )


def _frames(images: Any, frame_ids: str) -> tuple[Sequence[int | str], Sequence[str], str]:
    """The images' ids, the frames' ids, and what to call the images in messages."""
    if isinstance(images, CocoInstances):
        known: Sequence[int | str] = images.image_ids
        names: Sequence[str] = images.file_names
        where = f"`images` of {images.source}"
    else:
        where, listed = "`images=`", images
        if not isinstance(images, (list, tuple)) or looks_like_results(images):
            document, source = read_document(images, where)
            where, listed = f"`images` of {source}", required_part(document, "images", source)
        known, rows = read_images(listed, where)
        names = strings_of(rows, "file_name", where) if frame_ids == "file_name" else ()
    if frame_ids == "image_id":
        names = [str(each) for each in known]
    remedy = "" if frame_ids == "image_id" else ", or pass frame_ids='image_id'"
    too_long = next((name for name in names if len(name) > MAX_FRAME_ID_LENGTH), None)
    if too_long is not None:
        raise InvalidInputError(
            f"a frame id has at most {MAX_FRAME_ID_LENGTH} characters; the `{frame_ids}` {too_long!r} of {where} has "
            f"{len(too_long)}. Shorten it{remedy}"
        )
    try:
        check_distinct(names, frame_ids, where)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}. Remove one of them{remedy}") from None
    return known, names, where
