"""Whether a picture can be written to a file, asked before the picture is made."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

from cval_torch.errors import InvalidInputError

_LONGEST_SIDES = {"JPEG": 65_500, "MPO": 65_500, "PDF": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_536}
"""Pixels, by Pillow's name of the format. A PDF of Pillow's holds a JPEG."""


def check_picture_file(path: str | os.PathLike[str], *, width: int, height: int) -> Path:
    """The path, if an RGB picture of `width` x `height` pixels can be written there.

    Raises:
        InvalidInputError: the path has no suffix, or that of no format that Pillow can write a picture in; it is a
            folder; the format has no room for so many pixels.
    """
    target = Path(path)
    name = os.fspath(path)
    if not target.suffix:
        raise InvalidInputError(f"the path of a picture must end in a suffix, such as `.png`; got {name!r}")
    file_format = Image.registered_extensions().get(target.suffix.lower())
    if file_format is None or not _takes_rgb(file_format):
        raise InvalidInputError(
            f"no picture can be written to {name!r}: {target.suffix} is not the suffix of a format that Pillow writes "
            "RGB pictures in. Take `.png`, `.jpg` or `.webp`"
        )
    if target.is_dir():
        raise InvalidInputError(f"no picture can be written to {name!r}, which is a folder")
    longest = _LONGEST_SIDES.get(file_format)
    if longest is not None and max(width, height) > longest:
        too_long = "wide" if width > longest else "high"
        fewer_or_more = "fewer `columns`" if width > longest else "more `columns`"
        raise InvalidInputError(
            f"a {file_format} file has at most {longest} pixels a side; {name!r} would be {width} x {height}, too "
            f"{too_long}. Write a `.png`, or draw fewer frames (`max_frames`), smaller tiles (`tile_size`) or "
            f"{fewer_or_more}"
        )
    return target


def _takes_rgb(file_format: str) -> bool:
    """Whether Pillow, as it is installed, writes an RGB picture in a format."""
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format=file_format)
    except (KeyError, OSError, ValueError):
        return False
    return True
