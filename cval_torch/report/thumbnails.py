"""Small pictures of frames as `data:` addresses, of no more bytes than a page has room for."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from cval_torch.report.pixels import as_rgb, image_in
from cval_torch.report.wording import visible

LARGE_SIDE, LARGE_BYTES = 320, 12_000
SMALL_SIDE, SMALL_BYTES = 72, 1_500
_QUALITIES = (82, 72, 60, 48, 36, 26)


@dataclass(frozen=True)
class Picture:
    """The picture of a frame, or why there is none.

    Attributes:
        address: a `data:` address of a JPEG; empty if the image cannot be shown.
        scale: pixels of the picture's overlay to one of the image; the longer side of an overlay is `LARGE_SIDE`.
        width: of the overlay.
        height: of the overlay.
        fault: why there is no picture; empty if there is one.
        small: a smaller one, for lists; empty if the image cannot be shown.
    """

    address: str
    scale: float
    width: int
    height: int
    fault: str = ""
    small: str = ""


def picture_of(load: Callable[[], Any], frame_id: str) -> Picture:
    """The picture of one frame. An image that cannot be loaded or read becomes a `fault`, and no error.

    Args:
        load: gives an image, or a tuple that begins with one; see `ChosenFrames`.
        frame_id: named in a fault.
    """
    try:
        image = _image_of(load(), frame_id)
        scale = LARGE_SIDE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        address = jpeg_address(image, side=LARGE_SIDE, limit=LARGE_BYTES)
        small = jpeg_address(image, side=SMALL_SIDE, limit=SMALL_BYTES)
    except Exception as error:  # whatever a user's dataset raises: the other frames can be shown
        return Picture("", 1.0, LARGE_SIDE, LARGE_SIDE * 3 // 4, fault=_said(error))
    return Picture(address, scale, width, height, small=small)


def small_picture(load: Callable[[], Any], frame_id: str) -> str:
    """The address of a small picture of one frame; empty if its image cannot be loaded or read."""
    try:
        return jpeg_address(_image_of(load(), frame_id), side=SMALL_SIDE, limit=SMALL_BYTES)
    except Exception:  # as above; a frame with a card of its own says there what is wrong
        return ""


def jpeg_address(image: Image.Image, *, side: int, limit: int) -> str:
    """An RGB image as a `data:` address of a JPEG.

    Args:
        image: it is made smaller, never larger.
        side: the longer side in pixels, at most.
        limit: bytes of the JPEG, at most: quality falls first, then the size.
    """
    scale = min(1.0, side / max(image.size))
    while True:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = image.copy() if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        small.info.clear()  # comments and the like of the file, which Pillow would write again
        for quality in _QUALITIES:
            file = io.BytesIO()
            small.save(file, format="JPEG", quality=quality, optimize=True)
            if file.tell() <= limit or max(size) == 1:
                return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        scale *= 0.8


def _image_of(item: Any, frame_id: str) -> Image.Image:
    return as_rgb(image_in(item), frame_id)


def _said(error: Exception) -> str:
    text = visible(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
