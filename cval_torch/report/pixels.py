"""Images of any type and depth as 8-bit RGB, to be drawn on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cval_torch.errors import InvalidInputError

_MOST_NORMALIZED = 16.0  # no usual mean and standard deviation lead as far from 0


def image_in(item: Any) -> Any:
    """The image in an item of a dataset: what a tuple begins with, or the item itself."""
    return item[0] if isinstance(item, (tuple, list)) and len(item) else item


def as_rgb(image: Any, frame_id: str) -> Image.Image:
    """Make an RGB image of what a dataset gives.

    The range of the values follows from their type, and where it leaves a choice from the values of this image:

    - bool: False is black, True is white.
    - uint8: as it is. Other integers: from 0 to 255, or, if one is above 255, from 0 to 65535.
    - floating point: from 0 to 1. If all are 0 or more and one is above 16: from 0 to 255, or from 0 to 65535. All
      others are taken for a normalized image, and are stretched from the least value to the greatest.
    - PIL images: as Pillow converts them, but those of 16 bits from 0 to 65535, and those of 32 bits as tensors.

    Args:
        image: a (1, H, W) or (3, H, W) tensor, or a PIL image.
        frame_id: named in errors.

    Raises:
        InvalidInputError: it is neither, or its integers are below 0 or above 65535.
    """
    if isinstance(image, Image.Image):
        if image.mode.startswith("I;16"):
            return Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8)).convert("RGB")
        if image.mode not in ("I", "F"):
            return image.convert("RGB")
        image = torch.from_numpy(np.array(image))[None]
    usable = isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] in (1, 3) and image.numel() > 0
    if not usable or image.is_complex():
        got = f"{tuple(image.shape)} of {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
        raise InvalidInputError(
            f"an item must begin with an image: a (1, H, W) or (3, H, W) tensor, or a PIL image; "
            f"got {got} for frame {frame_id!r}"
        )
    pixels = image.detach().cpu()
    if pixels.dtype == torch.bool:
        pixels = pixels.to(torch.uint8) * 255
    elif pixels.is_floating_point():
        pixels = _from_floats(pixels)
    elif pixels.dtype != torch.uint8:
        pixels = _from_integers(pixels, frame_id)
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())


def _from_integers(pixels: Tensor, frame_id: str) -> Tensor:
    pixels = pixels.to(torch.int64)
    low, high = (int(value) for value in torch.aminmax(pixels))
    if low < 0 or high > 65535:
        raise InvalidInputError(
            f"an image of integers must have values from 0 to 255, or from 0 to 65535; got {low} to {high} for frame "
            f"{frame_id!r}. Divide it by its greatest possible value, so that it is in [0, 1]"
        )
    return (pixels if high <= 255 else (pixels / 257).round()).to(torch.uint8)


def _from_floats(pixels: Tensor) -> Tensor:
    pixels = pixels.float().nan_to_num()
    low, high = (float(value) for value in torch.aminmax(pixels))
    if low < 0 or high > 1:
        if low >= 0 and _MOST_NORMALIZED < high <= 65535:
            low, high = 0.0, 255.0 if high <= 255 else 65535.0
        pixels = (pixels - low) / max(high - low, 1e-12)
    return (pixels * 255).round().to(torch.uint8)
