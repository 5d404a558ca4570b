"""Folders that exports write: whole or not at all, and never over what no export wrote."""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.json_files import read_json
from cval_torch.pool.files import write_json

FRAMES_FILE = "frames.json"
"""The file beside every export that says which frame is which image."""
SELECTION_FILE = "selection.json"
"""The file in the folder of a selection that the command line wrote."""
SELECTION_FORMAT = "cval_torch.selection/1"
_FORMAT = "cval_torch.export/1"
_MARKS = {FRAMES_FILE: _FORMAT, SELECTION_FILE: SELECTION_FORMAT}


@contextmanager
def export_folder(folder: str | os.PathLike[str], *, exist_ok: bool) -> Iterator[Path]:
    """A new folder to write to, which becomes `folder` at the end. After an error nothing is there, or what was before.

    Args:
        folder: where the export goes. It may be there if it is empty.
        exist_ok: whether an export that is there already is replaced.

    Raises:
        InvalidInputError: the folder holds something, and `exist_ok` is False, or no export wrote it.
        OSError: the disk is full or read-only.
    """
    target = Path(os.path.abspath(folder))  # noqa: PTH100, links to folders are followed by the rename
    _check_free(target, exist_ok=exist_ok)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
    staging.mkdir()
    try:
        yield staging
        _check_free(target, exist_ok=exist_ok)  # it took a while
        _put(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_free(target: Path, *, exist_ok: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise InvalidInputError(f"{str(target)!r} is not a folder; give another `folder`")
    if not any(target.iterdir()):
        return
    if not exist_ok:
        raise InvalidInputError(
            f"the folder {str(target)!r} is not empty. Give another `folder`, or replace the export in it by "
            "`exist_ok=True`"
        )
    if not any(_marked(target, name) for name in _MARKS):
        raise InvalidInputError(
            f"the folder {str(target)!r} has no {FRAMES_FILE} of an export, so it is not replaced. Give another "
            "`folder`"
        )


def _marked(folder: Path, name: str) -> dict[str, Any] | None:
    """What is in the file by which we know a folder for our own; None if there is no such file of ours."""
    try:
        record = read_json(folder / name)
    except (OSError, InvalidInputError):
        return None
    return record if isinstance(record, dict) and record.get("format") == _MARKS[name] else None


def _put(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    aside = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.old")
    target.rename(aside)
    try:
        staging.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_frames(folder: Path, annotations: Annotations, *, stages: list[dict[str, Any]]) -> None:
    """Write down which frame is which image, for people and for `read_frames`.

    Args:
        folder: of the export.
        annotations: what is exported.
        stages: what chose the frames, as plain values.
    """
    names = {str(label): name for label, name in annotations.class_names.items()}
    record = {
        "format": _FORMAT,
        "class_names": names,
        "stages": stages,
        "frames": frame_records(annotations),
    }
    write_json(folder / FRAMES_FILE, record)


def frame_records(annotations: Annotations) -> list[dict[str, Any]]:
    """For each frame what travels along, without what is not known."""
    records = []
    columns = (getattr(annotations, name) for name in ("ranks", "uncertainties", "rounds", "is_annotated", "sizes"))
    rows = zip(annotations.file_names, annotations.frame_ids, *(column.tolist() for column in columns), strict=True)
    for file_name, frame_id, rank, uncertainty, round_, annotated, (width, height) in rows:
        record: dict[str, Any] = {"file_name": file_name, "annotated": annotated}
        if frame_id is not None:
            record["frame_id"] = frame_id
        if rank > 0:
            record["rank"] = rank
        if not math.isnan(uncertainty):
            record["uncertainty"] = uncertainty
        if round_ >= 0:
            record["round"] = round_
        if width > 0:
            record |= {"width": width, "height": height}
        records.append(record)
    return records


def read_frames(folder: Path) -> dict[str, dict[str, Any]]:
    """What `write_frames` wrote down in a folder, by file name; nothing if no export wrote that folder.

    Raises:
        InvalidInputError: the file is damaged.
        OSError: it cannot be read.
    """
    export = _marked(folder, FRAMES_FILE)
    if export is None:
        return {}
    try:
        return {record["file_name"]: record for record in export["frames"]}
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"{str(folder / FRAMES_FILE)!r} is damaged: {type(error).__name__}: {error}") from error


def read_class_names(folder: Path, names: Collection[str] | None) -> dict[int, str] | None:
    """The classes by label that `write_frames` wrote down in a folder, and after them those of `names` that are new.

    Formats that have names alone, or numbers without gaps, get their labels back by it. None if no export wrote the
    folder, or if one of its classes is not among `names`: then it is another's. With None for `names`, all are.
    """
    export = _marked(folder, FRAMES_FILE)
    if export is None:
        return None
    found = export.get("class_names")
    if not isinstance(found, dict) or not (names is None or set(found.values()) <= set(names)):
        return None
    known = {int(label): name for label, name in found.items()}
    for name in names or ():
        if name not in known.values():
            known[max(known, default=0) + 1] = name
    return known


def with_frames(annotations: Annotations, folder: Path) -> Annotations:
    """The same annotations with the ids, ranks, uncertainties and rounds that `write_frames` wrote down in `folder`.

    Frames are found by their file names. What the annotations know themselves is kept. Without such a file there,
    nothing changes.

    Raises:
        InvalidInputError: the file is damaged.
        OSError: it cannot be read.
    """
    by_name = read_frames(folder)
    if not by_name:
        return annotations
    try:
        records = [by_name.get(name, {}) for name in annotations.file_names]
        ids = [
            own if own is not None else record.get("frame_id")
            for own, record in zip(annotations.frame_ids, records, strict=True)
        ]
        ranks = torch.tensor([int(record.get("rank", 0)) for record in records], dtype=torch.int64)
        rounds = torch.tensor([int(record.get("round", -1)) for record in records], dtype=torch.int64)
        values = [float(record.get("uncertainty", math.nan)) for record in records]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"{str(folder / FRAMES_FILE)!r} is damaged: {type(error).__name__}: {error}") from error
    uncertainties = torch.tensor(values, dtype=torch.float64)
    return annotations.replace(
        frame_ids=ids,
        ranks=torch.where(annotations.ranks > 0, annotations.ranks, ranks),
        rounds=torch.where(annotations.rounds >= 0, annotations.rounds, rounds),
        uncertainties=torch.where(annotations.uncertainties.isnan(), uncertainties, annotations.uncertainties),
    )
