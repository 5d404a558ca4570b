"""Lists of frames as text files: an id, or the path of an image, on each line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.prepared import ExportOptions, ImageRoot, prepare
from cval_torch.pool.files import replacing
from cval_torch.report.frames import ChosenFrames

_NOT_A_LINE = re.compile("[\r\n\ud800-\udfff]|^\ufeff")


def save_list(
    frames: ChosenFrames | Annotations,
    path: str | os.PathLike[str],
    *,
    write: Literal["frame_id", "path"] = "frame_id",
    image_root: ImageRoot | None = None,
    exist_ok: bool = False,
) -> Path:
    """Write a text file with the frames, one on each line, in their order: of a choice, the first choice first.

    Args:
        frames: what `select` returned, or annotations.
        path: the new file.
        write: `frame_id`, the ids; annotations without ids have file names instead. `path`, the paths of the image
            files from the root of the file system.
        image_root: the folder that ids are paths below, or a file for each id. None: the files that the dataset names.
        exist_ok: whether a file that is there already is replaced.

    Returns:
        The path.

    Raises:
        InvalidInputError: no frames; a file that is there already; a frame without a file; an id or path that does not
            fit on a line of UTF-8.
        OSError: the file cannot be written, or an image cannot be read.
    """
    path = Path(path)
    if write not in ("frame_id", "path"):
        raise InvalidInputError(f"`write` must be 'frame_id' or 'path'; got {write!r}")
    if path.exists() and not exist_ok:
        raise InvalidInputError(
            f"{str(path)!r} is there already. Give another `path`, or replace it by `exist_ok=True`"
        )
    if len(frames) == 0:
        raise InvalidInputError("`frames` must hold at least one frame; got none")
    lines = _paths(frames, image_root) if write == "path" else _ids(frames)
    for line in lines:
        wrong = _NOT_A_LINE.search(line)
        if wrong is not None:
            raise InvalidInputError(
                f"{line!r} does not fit on a line of text, because of its character {wrong.group()!r}. Use another "
                "format, such as `save_coco`"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def load_list(path: str | os.PathLike[str]) -> list[str]:
    """Read the lines of such a file, in their order. Empty lines are passed over.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.

    Returns:
        Distinct ids or paths; `LabelPool.label` takes ids.

    Raises:
        InvalidInputError: the file is not UTF-8, or a line stands twice.
        OSError: it cannot be read.
    """
    try:
        content = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{os.fspath(path)} is not UTF-8: {error.reason} at byte {error.start}") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(content.split("\n"), start=1):
        text = line.removesuffix("\r")
        if text and seen.setdefault(text, number) != number:
            raise InvalidInputError(f"{os.fspath(path)} has {text!r} on line {seen[text]} and on line {number}")
    return list(seen)


def _ids(frames: ChosenFrames | Annotations) -> list[str]:
    if not isinstance(frames, Annotations):
        return list(frames.frame_ids)
    pairs = zip(frames.frame_ids, frames.file_names, strict=True)
    return [name if frame_id is None else frame_id for frame_id, name in pairs]


def _paths(frames: ChosenFrames | Annotations, image_root: ImageRoot | None) -> list[str]:
    options = ExportOptions(min_score=None, images="leave", image_root=image_root, progress=False)
    prepared = prepare(frames, Path(), options)
    rows = zip(prepared.sources, prepared.annotations.file_names, strict=True)
    missing = [name for source, name in rows if source is None]
    if missing:
        raise InvalidInputError(f"frame {missing[0]!r} has no file. Give the folder of the images by `image_root`")
    return [source.absolute().as_posix() for source in prepared.sources if source is not None]
