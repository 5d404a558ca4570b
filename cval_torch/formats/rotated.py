"""Rotated boxes as boxes with upright sides: a detector that this library reads knows no others."""

from __future__ import annotations

import torch
from torch import Tensor


def envelopes(boxes: Tensor, degrees: Tensor, *, about: str = "center") -> Tensor:
    """The smallest upright boxes that hold rotated ones.

    Args:
        boxes: (n, 4) xyxy, before they are rotated.
        degrees: (n,) clockwise, as screens count, with y downward.
        about: what stays in place: "center", or "corner", the left upper one.

    Returns:
        (n, 4) float32 xyxy. A box that is not rotated stays as it is.

    >>> envelopes(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([90.0])).tolist()
    [[1.0, -1.0, 3.0, 3.0]]
    >>> envelopes(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([90.0]), about="corner").round().tolist()
    [[-2.0, 0.0, 0.0, 4.0]]
    """
    if not bool((degrees != 0).any()):
        return boxes.float()
    exact = boxes.double()
    angles = degrees.double().deg2rad()
    sides = exact[:, 2:] - exact[:, :2]
    pivots = exact[:, :2] if about == "corner" else (exact[:, :2] + exact[:, 2:]) / 2
    corners = torch.stack([exact[:, [0, 1]], exact[:, [2, 1]], exact[:, [2, 3]], exact[:, [0, 3]]], dim=1)
    arms = corners - pivots[:, None]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    # quarters of a turn give corners that are exact up to rounding of the cosine
    turned = torch.stack([arms[..., 0] * cos - arms[..., 1] * sin, arms[..., 0] * sin + arms[..., 1] * cos], dim=-1)
    points = turned + pivots[:, None]
    found = torch.cat([points.amin(1), points.amax(1)], dim=1)
    still = (degrees == 0)[:, None] | (sides == 0).all(1)[:, None]
    return torch.where(still, exact, found).float()
