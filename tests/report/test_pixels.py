"""Images of every type, as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cval_torch.errors import InvalidInputError
from cval_torch.report.pixels import as_rgb


def drawn(image) -> list[int]:
    """The grey values of a row of pixels."""
    pixels = np.asarray(as_rgb(image, "a.jpg"))
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([False, True], torch.bool, [0, 255]),
        ([0, 100, 255], torch.uint8, [0, 100, 255]),
        ([0, 100, 255], torch.int64, [0, 100, 255]),
        ([0, 100, 127], torch.int8, [0, 100, 127]),
        ([0, 257 * 100, 65535], torch.int32, [0, 100, 255]),
        ([0, 257 * 100, 65535], torch.uint16, [0, 100, 255]),
        ([0, 257], torch.int16, [0, 1]),
        ([0, 0.4, 1], torch.float32, [0, 102, 255]),
        ([0, 0.4, 1], torch.bfloat16, [0, 102, 255]),
        ([0, 0, 0.2], torch.float64, [0, 0, 51]),
        ([50, 100, 200], torch.float32, [50, 100, 200]),
        ([0, 257 * 100, 257 * 200], torch.float32, [0, 100, 200]),
        ([-2, 0, 2], torch.float32, [0, 128, 255]),
        ([0, 1, 2.5], torch.float32, [0, 102, 255]),
        ([-50, 0, 50], torch.float32, [0, 128, 255]),
    ],
    ids=str,
)
def test_tensors(values, dtype: torch.dtype, expected: list[int], channels: int) -> None:
    image = torch.tensor(values).to(dtype).expand(channels, 2, -1)
    assert drawn(image) == expected


def test_pil_images() -> None:
    deep = np.array([[0, 257 * 100, 65535]])
    assert drawn(Image.fromarray(deep.astype(np.uint16))) == [0, 100, 255]
    assert drawn(Image.fromarray(deep.astype(np.int32))) == [0, 100, 255]
    assert drawn(Image.fromarray((deep / 65535).astype(np.float32))) == [0, 100, 255]
    assert drawn(Image.frombytes("I;16B", (3, 1), deep.astype(">u2").tobytes())) == [0, 100, 255]
    assert drawn(Image.fromarray(np.array([[0, 257]], dtype=np.uint16))) == [0, 1]  # dark, and it stays so
    assert drawn(Image.fromarray(np.array([[False, True]]))) == [0, 255]
    assert drawn(Image.fromarray(np.array([[0, 100]], dtype=np.uint8))) == [0, 100]


@pytest.mark.parametrize("values", [[-1, 5], [0, 65536], [0, 2**40]])
def test_integers_of_no_known_range(values: list[int]) -> None:
    with pytest.raises(InvalidInputError, match=rf"got {values[0]} to {values[1]} for frame 'a.jpg'. Divide it by"):
        as_rgb(torch.tensor(values).expand(3, 2, -1), "a.jpg")


@pytest.mark.parametrize("image", [torch.zeros(2, 4, 4), torch.zeros(4, 4), torch.zeros(3, 0, 4), "a.jpg", None])
def test_what_is_no_image(image) -> None:
    with pytest.raises(InvalidInputError, match=r"an item must begin with an image.* for frame 'a\.jpg'"):
        as_rgb(image, "a.jpg")
    with pytest.raises(InvalidInputError, match="complex64"):
        as_rgb(torch.zeros(3, 4, 4, dtype=torch.complex64), "a.jpg")
