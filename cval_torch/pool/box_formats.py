"""Boxes that say themselves in which format they are, as torchvision's `BoundingBoxes` do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError

_UPRIGHT = ("XYWH", "CXCYWH")


def as_corners(boxes: Tensor, what: str) -> Tensor:
    """Boxes as a plain tensor of corners, xyxy.

    Args:
        boxes: (n, 4) in pixels. `torchvision.tv_tensors.BoundingBoxes` are converted by their `format`. A plain tensor
            has none and is taken for xyxy.
        what: what to call them in errors, such as "`boxes` of frame 'a.jpg'".

    Returns:
        (n, 4) on the device of `boxes`. Floats keep their dtype. Integers that are converted become float32.

    Raises:
        InvalidInputError: the boxes are rotated.

    >>> from torchvision.tv_tensors import BoundingBoxes
    >>> as_corners(BoundingBoxes([[10.0, 20, 30, 40]], format="XYWH", canvas_size=(99, 99)), "`boxes`")
    tensor([[10., 20., 40., 60.]])
    """
    form = format_of(boxes)
    plain = boxes.as_subclass(Tensor) if type(boxes) is not Tensor else boxes
    if form in (None, "XYXY"):
        return plain
    if form not in _UPRIGHT:
        raise InvalidInputError(
            f"{what} must have sides along the axes: xyxy, or `BoundingBoxes` in XYXY, XYWH or CXCYWH; got the format "
            f"{form}. Pass the upright rectangle around each rotated box"
        )
    from torchvision.ops import box_convert  # noqa: PLC0415, it takes seconds, and most processes need none of it

    precise = plain.to(torch.promote_types(plain.dtype, torch.float32))
    corners: Tensor = box_convert(precise, form.lower(), "xyxy")
    return corners.to(plain.dtype) if plain.is_floating_point() else corners


def format_of(boxes: Any) -> str | None:
    """The name of the format that boxes carry, such as "XYWH"; None for boxes that carry none."""
    name = getattr(getattr(boxes, "format", None), "name", None)
    return name if isinstance(name, str) else None
