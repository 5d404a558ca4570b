"""Images as viewers and annotation tools show them, and boxes that were found in images that nobody turned."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cval_torch.errors import InvalidInputError

_ORIENTATION = 0x0112  # the tag of EXIF
_TURNED = (5, 6, 7, 8)  # orientations whose width is the upright image's height
_SIDE = 32


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels of an image file as it is shown, without reading its pixels.

    Raises:
        InvalidInputError: the file is no image.
        FileNotFoundError, PermissionError: it cannot be opened.
    """
    size, orientation = _size_and_orientation(path)
    return size[::-1] if orientation in _TURNED else size


def upright_boxes(boxes: Tensor, path: str | os.PathLike[str], shown: Image.Image, frame_id: str) -> Tensor:
    """Boxes in pixels of the upright file, of boxes that were found in an image that a dataset made of the file.

    Datasets that open images without a look at the orientation in their EXIF data give the detector another picture
    than annotation tools show. Which of the two a dataset gave is seen from the pixels. A dataset that made the image
    larger or smaller is followed, too.

    Args:
        boxes: (n, 4) float xyxy in pixels of `shown`.
        path: the file.
        shown: what the dataset gave.
        frame_id: named in errors.

    Returns:
        (n, 4) float32 xyxy.

    Raises:
        InvalidInputError: `shown` is of another shape than the file: it was cropped, padded or stretched.
    """
    stored, orientation = _size_and_orientation(path)
    upright = stored[::-1] if orientation in _TURNED else stored
    turned = orientation != 1 and _looks_stored(path, shown)
    base = stored if turned else upright
    if not _same_shape(shown.size, base):
        raise InvalidInputError(
            f"the dataset gives frame {frame_id!r} with {shown.width} x {shown.height} pixels, and its file "
            f"{os.fspath(path)!r} has {base[0]} x {base[1]}: it was cropped, padded or stretched, so the detector's "
            "boxes do not fit the file. Leave them out by `min_score=None`, or export what the detector saw by "
            "`images='pixels'`"
        )
    scale = torch.tensor([base[0] / shown.width, base[1] / shown.height] * 2, dtype=torch.float64)
    scaled = boxes.detach().cpu().double() * scale
    return (_turn(scaled, orientation, stored) if turned else scaled).float()


def _size_and_orientation(path: str | os.PathLike[str]) -> tuple[tuple[int, int], int]:
    with Path(path).open("rb") as file:
        try:
            with Image.open(file) as image:
                orientation = image.getexif().get(_ORIENTATION, 1)
                size: tuple[int, int] = image.size
        except Exception as error:  # damaged files make Pillow, and what extends it, raise errors of any kind
            raise InvalidInputError(f"{os.fspath(path)!r} cannot be read as an image: {error}") from error
    return size, orientation if orientation in range(1, 9) else 1


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one is the other made larger or smaller, up to a pixel of rounding."""
    ratio = min(one[0] / other[0], one[1] / other[1])
    return all(abs(side - ratio * full) <= 1 for side, full in zip(one, other, strict=True))


def _looks_stored(path: str | os.PathLike[str], shown: Image.Image) -> bool:
    """Whether a picture is as its file stores it, rather than upright."""
    with Image.open(path) as image:
        image.draft("RGB", (8 * _SIDE, 8 * _SIDE))
        upright = ImageOps.exif_transpose(image)
        seen = _small(shown)
        return bool(np.abs(_small(image) - seen).sum() < np.abs(_small(upright) - seen).sum())


def _small(image: Image.Image) -> npt.NDArray[np.float64]:
    """The image in a small square, with its brightness normalised: a dataset may have normalised its colors."""
    pixels = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
    spread = float(pixels.std())
    normalised: npt.NDArray[np.float64] = (pixels - pixels.mean()) / (spread or 1.0)
    return normalised


def _turn(boxes: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """Boxes in the upright image, of boxes in the stored one of this `size` (EXIF 2.3, table of Orientation)."""
    width, height = size
    x0, y0, x1, y1 = boxes.unbind(1)
    flipped_x = (width - x1, width - x0)
    flipped_y = (height - y1, height - y0)
    horizontal, vertical = {
        1: ((x0, x1), (y0, y1)),
        2: (flipped_x, (y0, y1)),
        3: (flipped_x, flipped_y),
        4: ((x0, x1), flipped_y),
        5: ((y0, y1), (x0, x1)),
        6: (flipped_y, (x0, x1)),
        7: (flipped_y, flipped_x),
        8: ((y0, y1), flipped_x),
    }[orientation]
    return torch.stack([horizontal[0], vertical[0], horizontal[1], vertical[1]], dim=1)
