"""Images fitted into a frame of another size by one scale and a border, and boxes brought back from there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

BORDER = 114 / 255
"""The grey of the border, as the YOLO family is trained with it."""


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in its letterbox, all in pixels.

    Attributes:
        original: (height, width) of the image as it was given.
        content: (height, width) that the resized image takes up.
        left: columns of border before it.
        top: rows of border above it.
    """

    original: tuple[int, int]
    content: tuple[int, int]
    left: int
    top: int

    def bounds(self) -> list[float]:
        """The image's own area in the letterbox, xyxy."""
        height, width = self.content
        return [float(self.left), float(self.top), float(self.left + width), float(self.top + height)]

    def clip(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4) xyxy of the letterbox without what lies on the border."""
        low = boxes.new_tensor([self.left, self.top])
        high = low + boxes.new_tensor([self.content[1], self.content[0]])
        return torch.cat([part.minimum(high).maximum(low) for part in boxes.chunk(2, dim=-1)], dim=-1)

    def to_original(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4) xyxy of the letterbox, in pixels of the original image and clipped to it."""
        height, width = self.original
        size = boxes.new_tensor([width, height])
        gain = boxes.new_tensor([self.content[1] / width, self.content[0] / height])
        start = boxes.new_tensor([self.left, self.top])
        corners = [((part - start) / gain).minimum(size).clamp(min=0) for part in boxes.chunk(2, dim=-1)]
        return torch.cat(corners, dim=-1)


def fit(original: tuple[int, int], target: tuple[int, int], *, stride: int, rect: bool) -> tuple[Letterbox, list[int]]:
    """Lay out an image in the middle of `target`.

    Args:
        original: (height, width) of the image.
        target: (height, width) that it is scaled up or down to, whichever side it reaches first.
        stride: what both sides of the letterbox must be multiples of; `target` is rounded up to it.
        rect: whether to leave out all of the border but what the stride needs; else the letterbox is `target`.

    Returns:
        The layout, and the letterbox's own [height, width].
    """
    frame = [math.ceil(side / stride) * stride for side in target]
    scale = min(frame[0] / original[0], frame[1] / original[1])
    content = tuple(max(round(side * scale), 1) for side in original)
    border = [side - inner for side, inner in zip(frame, content, strict=True)]
    if rect:
        border = [side % stride for side in border]
    # The odd pixel goes below and to the right; the tenth settles the halves, which `round` would take to even.
    top, left = (round(side / 2 - 0.1) for side in border)
    size = [inner + side for inner, side in zip(content, border, strict=True)]
    return Letterbox(original, (content[0], content[1]), left, top), size


def letterbox(
    image: Tensor, target: tuple[int, int], *, stride: int = 32, rect: bool = True
) -> tuple[Tensor, Letterbox]:
    """Resize an image with its proportions kept, and pad it to a multiple of the stride.

    Args:
        image: (C, H, W), floating point in [0, 1].
        target: see `fit`, as are `stride` and `rect`.
        stride: the detector's largest.
        rect: see `fit`.

    Returns:
        The letterboxed image (C, H', W'), and where in it the image lies.
    """
    layout, size = fit((image.shape[-2], image.shape[-1]), target, stride=stride, rect=rect)
    if layout.content != layout.original:
        image = functional.interpolate(image[None], layout.content, mode="bilinear", align_corners=False)[0]
    (height, width), (content_height, content_width) = size, layout.content
    right = width - content_width - layout.left
    bottom = height - content_height - layout.top
    return functional.pad(image, (layout.left, right, layout.top, bottom), value=BORDER), layout
