"""Boxes in the picture that annotation tools show, whatever picture the dataset gave the detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from skimage import data

from cval_torch.errors import InvalidInputError
from cval_torch.formats.upright import upright_boxes, upright_size


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.chelsea()[:200, 50:410])


def stored(photo: Image.Image, path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("turned", [False, True], ids=["as stored", "upright"])
def test_boxes_follow_the_pixels(tmp_path: Path, photo: Image.Image, orientation: int, turned: bool) -> None:
    path = stored(photo, tmp_path / "a.jpg", orientation)
    with Image.open(path) as opened:
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        shown = upright if turned else opened.copy()
    assert upright_size(path) == upright.size
    x0, y0, x1, y1 = box = (20, 30, 60, 45)
    patch = np.asarray(shown, dtype=np.int64)[y0:y1, x0:x1]
    found = upright_boxes(torch.tensor([box]).float(), path, shown, "a")[0].round().int().tolist()
    theirs = np.asarray(upright, dtype=np.int64)[found[1] : found[3], found[0] : found[2]]
    assert sorted(patch.reshape(-1, 3).tolist()) == sorted(theirs.reshape(-1, 3).tolist()), "the same pixels, turned"


def test_a_normalised_picture_is_recognised(tmp_path: Path, photo: Image.Image) -> None:
    path = stored(photo, tmp_path / "a.jpg", 3)
    dim = photo.point(lambda value: 40 + value // 4)
    found = upright_boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), path, dim, "a")
    assert found.tolist() == [[350, 190, 360, 200]]


def test_boxes_follow_another_size(tmp_path: Path, photo: Image.Image) -> None:
    path = stored(photo, tmp_path / "a.jpg", 1)
    half = photo.resize((180, 100))
    found = upright_boxes(torch.tensor([[10.0, 20.0, 30.0, 40.0]]), path, half, "a")
    assert found.tolist() == [[20, 40, 60, 80]]


@pytest.mark.parametrize("size", [(200, 200), (360, 210), (100, 100)])
def test_pictures_of_another_shape_are_refused(tmp_path: Path, photo: Image.Image, size: tuple[int, int]) -> None:
    path = stored(photo, tmp_path / "a.jpg", 1)
    with pytest.raises(InvalidInputError, match=r"frame 'f' with .* cropped, padded or stretched.*images='pixels'"):
        upright_boxes(torch.zeros(1, 4), path, photo.resize(size), "f")


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")
    with pytest.raises(InvalidInputError, match=r"a.jpg' cannot be read as an image"):
        upright_size(tmp_path / "a.jpg")
