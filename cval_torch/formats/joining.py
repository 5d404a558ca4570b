"""Boxes that several people drew in the same frame, as one set of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError

Join = Literal["majority", "union", "latest", "refuse"]
"""What becomes of a frame that several people annotated.

`majority`: a box stays if more than half of them drew it. `union`: every box stays, and one that several drew is one
box. `latest`: the annotation that was changed last counts alone. `refuse`: such a frame is an error.
"""

MIN_IOU = 0.5
"""From this intersection over union on, two boxes of one class are taken for the same object."""


def check_join(join: str) -> None:
    """Raise an `InvalidInputError` if this says not how annotations of several people are joined."""
    if join not in get_args(Join):
        raise InvalidInputError(f"`join` must be one of {', '.join(get_args(Join))}; got {join!r}")


def same_objects(boxes: Tensor, labels: Tensor, owners: Sequence[int], *, min_iou: float = MIN_IOU) -> list[list[int]]:
    """Which boxes of several people mean the same object.

    Boxes of one object have the same class, and each two of them overlap by `min_iou` or more. Each person gives at
    most one of them. Pairs are joined by their overlap, the largest first. So the groups do not depend on the order of
    the people.

    Args:
        boxes: (n, 4) xyxy.
        labels: (n,) int64, their classes.
        owners: n numbers of the people who drew them.
        min_iou: the intersection over union that makes two boxes the same, above 0.

    Returns:
        Groups of rows, each row in one of them. Rows are sorted within a group, and groups by their first rows.
    """
    count = len(owners)
    groups = [[row] for row in range(count)]
    if len(set(owners)) < 2:
        return groups
    overlaps = _overlaps(boxes.double().cpu().numpy())
    classes, people = labels.cpu().numpy(), np.asarray(owners)
    may_be = (overlaps >= min_iou) & (classes[:, None] == classes) & (people[:, None] != people)
    first, second = np.triu(may_be).nonzero()
    corners = boxes.tolist()
    pairs = sorted(
        zip(first.tolist(), second.tolist(), strict=True),
        key=lambda pair: (-overlaps[pair], sorted((corners[pair[0]], corners[pair[1]]))),
    )
    group_of = list(range(count))
    for one, other in pairs:
        mine, theirs = group_of[one], group_of[other]
        if mine != theirs and may_be[np.ix_(groups[mine], groups[theirs])].all():
            for row in groups[theirs]:
                group_of[row] = mine
            groups[mine] += groups[theirs]
            groups[theirs] = []
    return sorted(sorted(group) for group in groups if group)


def joined_boxes(
    boxes: Tensor, labels: Tensor, owners: Sequence[int], *, people: int, join: Join, min_iou: float = MIN_IOU
) -> tuple[Tensor, list[list[int]]]:
    """One set of boxes of those that several people drew in a frame.

    Args:
        boxes: (n, 4) xyxy.
        labels: (n,) int64, their classes.
        owners: n numbers of the people who drew them.
        people: how many looked at the frame, those who drew nothing included.
        join: `majority` keeps the objects that more than half of the people drew, `union` all of them.
        min_iou: see `same_objects`.

    Returns:
        (m, 4) float64 boxes, whose corners are the medians of those of an object, and for each the rows that it is
        made of.
    """
    needed = people / 2 if join == "majority" else 0
    kept = [group for group in same_objects(boxes, labels, owners, min_iou=min_iou) if len(group) > needed]
    exact = boxes.double().cpu().numpy()
    corners = [torch.from_numpy(np.median(exact[group], axis=0)) for group in kept]
    return torch.stack(corners) if corners else torch.empty(0, 4, dtype=torch.float64), kept


def _overlaps(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, n) intersections over unions. Boxes without an area overlap where they are equal."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    unions = areas[:, None] + areas[None, :] - shared
    equal = (boxes[:, None] == boxes[None, :]).all(axis=2)
    found: npt.NDArray[np.float64] = np.where(equal, 1.0, shared / np.where(unions > 0, unions, 1.0))
    return found
