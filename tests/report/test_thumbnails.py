"""Small pictures and their bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from cval_torch.report.thumbnails import LARGE_BYTES, SMALL_BYTES, Picture, jpeg_address, picture_of, small_picture


def read(address: str) -> Image.Image:
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def size_of(address: str) -> int:
    return len(base64.b64decode(address.partition(",")[2]))


def photograph() -> Image.Image:
    skimage = pytest.importorskip("skimage")
    return Image.fromarray(skimage.data.astronaut())


def test_a_photograph_fits_and_looks_like_itself() -> None:
    image = photograph()
    picture = picture_of(lambda: (image, {}), "a")
    assert (picture.width, picture.height, picture.fault) == (320, 320, "")
    assert picture.scale == pytest.approx(320 / 512)
    assert 4_000 < size_of(picture.address) <= LARGE_BYTES
    assert size_of(picture.small) <= SMALL_BYTES
    found = np.asarray(read(picture.address), dtype=float)
    small = np.asarray(image.resize((320, 320), Image.Resampling.LANCZOS), dtype=float)
    assert np.abs(found - small).mean() < 8


def test_noise_that_does_not_compress_is_made_smaller() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8))
    address = jpeg_address(noise, side=320, limit=LARGE_BYTES)
    assert size_of(address) <= LARGE_BYTES
    found = read(address)
    assert found.width / found.height == pytest.approx(1.5, abs=0.02)


def test_small_images_are_not_made_larger() -> None:
    picture = picture_of(lambda: torch.zeros(1, 8, 16), "a")
    assert read(picture.address).size == (16, 8)
    assert (picture.width, picture.height, picture.scale) == (320, 160, 20.0)


def test_a_thread_of_pixels_is_a_picture() -> None:
    picture = picture_of(lambda: torch.rand(3, 1, 4000), "a")
    assert (picture.width, picture.height) == (320, 1)
    assert read(picture.address).size[1] == 1


def test_what_cannot_be_loaded_is_a_fault_and_no_error() -> None:
    def load() -> None:
        raise OSError("image file is\ntruncated \u202e(3 bytes)")

    picture = picture_of(load, "a")
    assert picture == Picture("", 1.0, 320, 240, fault=r"OSError: image file is truncated \u202e(3 bytes)")
    assert small_picture(load, "a") == ""


def test_what_is_no_image_is_a_fault() -> None:
    assert "must begin with an image" in picture_of(lambda: ({"boxes": 1}, 2), "a").fault


def test_no_more_than_the_pixels_is_kept() -> None:
    image = photograph()
    image.info["comment"] = b"where it was taken"
    exif = image.getexif()
    exif[270] = "secret"
    file = io.BytesIO()
    image.save(file, format="JPEG", exif=exif, comment=b"secret")
    address = picture_of(lambda: Image.open(io.BytesIO(file.getvalue())), "a").address
    assert b"secret" not in base64.b64decode(address.partition(",")[2])
