"""Folders of image files: which there are, and their pixels, upright and in [0, 1]."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from cval_torch.errors import InvalidInputError
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Suffixes of the files that are taken for images, in lower case."""


class ImageFolder(Dataset[tuple[Tensor, dict[str, str]]]):
    """The images below a folder; an image's id is its path from there, such as `cam1/0001.jpg`.

    An item is the image of `read_image`, and a target whose `image_id` is the id. Images may differ in size, so a
    `DataLoader` needs `collate_fn=collate_images`.

    Attributes:
        folder: the folder.
        frame_ids: the ids, in order.

    Args:
        folder: searched as by `list_images`.
        frame_ids: the images to hold, as paths below `folder`, in this order; None: all that `list_images` finds.
    """

    def __init__(self, folder: str | os.PathLike[str], *, frame_ids: Iterable[str] | None = None) -> None:
        self.folder = Path(folder)
        self.frame_ids = list_images(folder) if frame_ids is None else list(frame_ids)

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, str]]:
        frame_id = self.frame_ids[index]
        return read_image(self.folder / frame_id), {"image_id": frame_id}


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """The paths of the images in a folder and in the folders below it, sorted, with slashes.

    An image is a file with one of the `IMAGE_SUFFIXES`, in upper or lower case. Hidden files and folders, whose names
    begin with a dot, are passed over, such as the `._a.jpg` that macOS writes beside a copied `a.jpg`. Links to folders
    are not followed.

    Raises:
        InvalidInputError: a name that is not UTF-8, which no annotation file could hold; a path that is too long for a
            frame id.
        OSError: the folder, or one below it, cannot be read.
    """
    return files_below(folder, IMAGE_SUFFIXES)


def files_below(folder: str | os.PathLike[str], suffixes: Collection[str]) -> list[str]:
    """The files with one of these suffixes, as `list_images` finds them; `suffixes`: in lower case, with the dot."""
    found = []
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in suffixes and path.is_file():
                found.append(path.relative_to(folder).as_posix())
    for path_below in found:
        check_path_below(path_below, os.fspath(folder))
    return sorted(found)


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """The pixels of an image file, upright and in color.

    The image is turned as its EXIF orientation says, as viewers and annotation tools show it. Boxes that a detector
    finds in it are in pixels of the upright image. Images of 8 bits are divided by 255 and those of 16 bits by 65535.
    An alpha channel is dropped. Of an animation or a file of several pages, the first image is read.

    Args:
        path: a file of any format that Pillow reads.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        InvalidInputError: the file is not an image that can be read, or its pixels have no known range: numbers of 32
            bits beyond those of 16 bits, or floating-point numbers outside [0, 1].
        FileNotFoundError, PermissionError: the file cannot be opened.
    """
    with Path(path).open("rb") as file:
        try:
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                image.load()
        except MemoryError:  # says nothing about the file
            raise
        except Exception as error:  # damaged files make Pillow, and what extends it, raise errors of any kind
            raise InvalidInputError(f"{os.fspath(path)!r} cannot be read as an image: {error}") from error
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_pixels(image, os.fspath(path))
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1).float().div_(255).contiguous()


def collate_images(batch: list[tuple[Tensor, dict[str, str]]]) -> tuple[list[Tensor], list[dict[str, str]]]:
    """A batch of images of several sizes: a list of images and a list of targets."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


def _deep_pixels(image: Image.Image, name: str) -> Tensor:
    """Grey values of more than 8 bits. Pillow's own conversion would make everything above 255 white."""
    values = np.array(image).astype(np.float64)
    highest = 1.0 if image.mode == "F" else 65535.0
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= highest):  # NaN is neither
        raise InvalidInputError(
            f"{name!r} has pixels from {low:g} to {high:g}; in an image of Pillow's mode {image.mode!r} they must be "
            f"from 0 to {highest:g}. Save it with 8 or 16 bits"
        )
    grey = torch.from_numpy(values / highest).float()
    return grey.expand(3, -1, -1).contiguous()


def check_path_below(path: str, folder: str) -> None:
    """Raise an `InvalidInputError` if a path below a folder cannot be the id of a frame."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"the name of the file {os.fsencode(path)!r} in {os.fsencode(folder)!r} is not UTF-8, so no annotation "
            "file could hold it: rename the file, for example with convmv"
        ) from None
    if len(path) > MAX_FRAME_ID_LENGTH:
        raise InvalidInputError(
            f"a frame id has at most {MAX_FRAME_ID_LENGTH} characters; the path {path!r} in {folder!r} has "
            f"{len(path)}. Give a folder further down, or shorten the names"
        )


def _raise(error: OSError) -> None:
    raise error
