"""Image files as cameras, scanners and operating systems write them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cval_torch import extract
from cval_torch.errors import InvalidInputError
from cval_torch.formats.images import IMAGE_SUFFIXES, ImageFolder, collate_images, list_images, read_image

GREY16 = (np.arange(12).reshape(3, 4) * 5957).astype(np.uint16)  # 0 to 65527

TURNS = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(np.swapaxes(pixels, 0, 1), 2),
    8: lambda pixels: np.rot90(pixels, 1),
}
"""What the EXIF standard says that a viewer does with each orientation."""


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_images_are_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, exif=oriented(orientation), **options)
    expected = torch.from_numpy(TURNS[orientation](pixels).copy()).permute(2, 0, 1).float() / 255
    assert torch.equal(read_image(path), expected)


def test_a_photo_of_a_phone(tmp_path: Path) -> None:
    """A JPEG of orientation 6: the left side of what is stored is the top of what is shown."""
    pixels = np.zeros((32, 64, 3), dtype=np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=oriented(6), quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (3, 64, 32)
    assert image[:, :14].min() > 0.9
    assert image[:, 18:].max() < 0.1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bits_are_not_clipped(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(GREY16).save(path, exif=oriented(orientation))
    expected = torch.from_numpy(TURNS[orientation](GREY16) / 65535).float()
    image = read_image(path)
    assert torch.equal(image, expected.expand(3, -1, -1))
    assert image.dtype == torch.float32
    assert image.is_contiguous()


def test_other_kinds_of_deep_images(tmp_path: Path) -> None:
    expected = torch.from_numpy(GREY16 / 65535).float().expand(3, -1, -1)
    Image.frombytes("I;16B", (4, 3), GREY16.astype(">u2").tobytes()).save(tmp_path / "big_endian.tif")
    Image.fromarray(GREY16.astype(np.int32)).save(tmp_path / "int32.tif")
    (tmp_path / "a.pgm").write_bytes(b"P5 4 3 65535\n" + GREY16.astype(">u2").tobytes())
    Image.fromarray((GREY16 / 65535).astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("big_endian.tif", "int32.tif", "a.pgm", "float.tif"):
        torch.testing.assert_close(read_image(tmp_path / name), expected, atol=1e-7, rtol=0)


def test_a_dark_16_bit_image_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png"), torch.full((3, 3, 4), 200 / 65535))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (
            np.full((3, 4), 70_000, dtype=np.int32),
            "to 70000; in an image of .* 'I' they must be from 0 to 65535",
        ),
        (np.full((3, 4), -1, dtype=np.int32), "from -1 to -1"),
        (np.full((3, 4), 255, dtype=np.float32), "from 255 to 255; .* from 0 to 1. Save it with 8 or 16 bits"),
        (np.full((3, 4), np.nan, dtype=np.float32), "nan"),
    ],
)
def test_pixels_of_no_known_range(pixels: np.ndarray, said: str, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(InvalidInputError, match=f"a.tif.*{said}"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_modes_of_8_bits(mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode).save(tmp_path / "a.tif")
    assert torch.equal(read_image(tmp_path / "a.tif"), torch.ones(3, 3, 4))


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    for name in ("text.jpg", "empty.jpg", "cut.png"):
        with pytest.raises(InvalidInputError, match=f"{name}' cannot be read as an image: "):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")


def test_errors_of_what_extends_pillow_name_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    raised: list[Exception] = [ModuleNotFoundError("No module named 'pi_heif'"), MemoryError()]

    def extended_open(file: object) -> None:  # as Ultralytics puts one in the place of Pillow's
        raise raised.pop(0)

    monkeypatch.setattr(Image, "open", extended_open)
    with pytest.raises(InvalidInputError, match=r"text.jpg' cannot be read as an image: No module named 'pi_heif'"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(MemoryError):
        read_image(tmp_path / "text.jpg")


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(root / name, format="PNG")


def test_what_is_listed(tmp_path: Path) -> None:
    make(tmp_path, "b.PNG", "a.jpeg", "sub/deep/c.tif", "sub/näher.webp")
    make(tmp_path, "._a.jpg", ".hidden.png", ".cache/d.jpg", "sub/._c.tif", "__MACOSX/sub/._c.tif", "e.svg")
    (tmp_path / "folder.jpg").mkdir()
    assert list_images(tmp_path) == ["a.jpeg", "b.PNG", "sub/deep/c.tif", "sub/näher.webp"]
    assert {Path(name).suffix.lower() for name in list_images(str(tmp_path))} <= IMAGE_SUFFIXES


def test_a_hidden_folder_that_was_asked_for(tmp_path: Path) -> None:
    make(tmp_path, ".frames/a.jpg")
    assert list_images(tmp_path / ".frames") == ["a.jpg"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_images(tmp_path / "none")


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        os.rename(tmp_path / "a.jpg", path)  # noqa: PTH104 (a name of bytes)
    except OSError:
        pytest.skip("the file system has no such names")
    with pytest.raises(InvalidInputError, match=r"b'caf\\xe9.jpg' .* is not UTF-8.*: rename the file") as raised:
        list_images(tmp_path)
    str(raised.value).encode("utf-8")  # it can be printed


def test_a_path_that_is_too_long_for_an_id(tmp_path: Path) -> None:
    make(tmp_path, f"{'d' * 100}/{'x' * 23}.jpg")
    assert len(list_images(tmp_path)[0]) == 128
    make(tmp_path, f"{'d' * 100}/{'x' * 24}.jpg")
    with pytest.raises(InvalidInputError, match=r"at most 128 characters; the path 'ddd.* has 129\. Give a folder"):
        list_images(tmp_path)


def test_a_folder_as_a_dataset(tmp_path: Path, faster_rcnn: torch.nn.Module) -> None:
    make(tmp_path, "b.png", "sub/a.png", "._b.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "c.png")
    dataset = ImageFolder(tmp_path)
    assert (len(dataset), dataset.frame_ids) == (3, ["b.png", "c.png", "sub/a.png"])
    assert dataset[1][0].shape == (3, 30, 40)
    assert dataset[2][1] == {"image_id": "sub/a.png"}
    part = ImageFolder(str(tmp_path), frame_ids=("sub/a.png", "c.png"))
    pool = extract(faster_rcnn, DataLoader(part, batch_size=2, collate_fn=collate_images), progress=False)
    assert pool.frame_ids == ("sub/a.png", "c.png")
