"""What the target of a frame says of its objects: labels and boxes, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.box_formats import as_corners

_WRAP = "Wrap a dataset of torchvision by `torchvision.datasets.wrap_dataset_for_transforms_v2`. "


class CollatedTarget(dict[str, Any]):
    """The `image_id` of one row of a batch whose targets were joined to columns: its objects are not known."""


def holds_only_id(target: Any) -> bool:
    """Whether a target holds nothing but an `image_id`: the frame has no objects.

    torchvision's wrapped `CocoDetection` gives such targets for images without annotations.

    >>> holds_only_id({"image_id": 7}), holds_only_id({"image_id": 7, "labels": []})
    (True, False)
    """
    return isinstance(target, Mapping) and not isinstance(target, CollatedTarget) and set(target) == {"image_id"}


def read_target(target: Any, what: str, *, remedy: str = "") -> tuple[Tensor, Tensor | None]:
    """(n,) int64 labels and (n, 4) xyxy boxes of a frame, on the CPU; None where the target has no boxes.

    Objects that an `iscrowd` column marks are left out. Such a box holds many objects; COCO's evaluation ignores it.

    Args:
        target: a dict with `labels` and perhaps `boxes` and `iscrowd`, as torchvision's detectors are trained on; or
            labels alone; or a dict with `image_id` alone, for a frame without objects. Boxes are in pixels: xyxy, or
            `BoundingBoxes` in any format that is not rotated.
        what: what to call the target in errors, such as "the target of frame 'a.jpg'".
        remedy: a sentence that errors about a target of another kind end with.

    Raises:
        InvalidInputError: it is none of these, or labels and boxes do not fit.

    >>> read_target([3, 1], "the target")
    (tensor([3, 1]), None)
    >>> read_target({"image_id": 7}, "the target")
    (tensor([], dtype=torch.int64), None)
    """
    if holds_only_id(target):
        return torch.zeros(0, dtype=torch.int64), None
    given = target.get("labels") if isinstance(target, Mapping) else target
    if given is None or _is_annotations(given):
        raise InvalidInputError(
            f"{what} must be a dict with `labels` (and `boxes`), or the labels; got {_describe(target)}. "
            f"{_WRAP if _is_of_torchvision(target) else ''}{remedy}".rstrip()
        )
    labels = _as_tensor(given)
    if labels is None or labels.ndim != 1 or labels.dtype == torch.bool or labels.is_floating_point():
        got = f"{type(given).__name__} {given!r:.80}" if labels is None else f"{tuple(labels.shape)} of {labels.dtype}"
        raise InvalidInputError(f"`labels` of {what} must be (n,) integers; got {got}")
    labels = labels.long()
    boxes = target.get("boxes") if isinstance(target, Mapping) else None
    corners = None if boxes is None else _read_boxes(boxes, len(labels), what)
    flags = target.get("iscrowd") if isinstance(target, Mapping) else None
    if flags is None:
        return labels, corners
    single = ~_read_flags(flags, len(labels), what)
    return labels[single], None if corners is None else corners[single]


def read_boxes(target: Any, what: str) -> Tensor:
    """(n, 4) xyxy boxes of a frame, on the CPU, to look at: they need no labels, and corners may be in any order.

    Args:
        target: see `read_target`. Anything else that is no annotation of torchvision's has no boxes.
        what: see `read_target`.

    Raises:
        InvalidInputError: the target is as an unwrapped dataset of torchvision gives it; its boxes are rotated, not
            finite, or of another shape.

    >>> read_boxes({"boxes": [[0, 0, 9, 9]]}, "the target")
    tensor([[0., 0., 9., 9.]])
    >>> read_boxes({"image_id": 7}, "the target")
    tensor([], size=(0, 4))
    """
    boxes = target.get("boxes") if isinstance(target, Mapping) else None
    if boxes is None:
        if _is_of_torchvision(target):
            raise InvalidInputError(f"{what} must be a dict with `boxes`; got {_describe(target)}. {_WRAP}".rstrip())
        return torch.zeros(0, 4)
    corners = _corners(boxes, what)
    if corners is None or corners.ndim != 2 or corners.shape[1] != 4:
        raise InvalidInputError(f"`boxes` of {what} must be (n, 4); got {_shape_of(boxes, corners)}")
    if not bool(corners.isfinite().all()):
        first = corners[~corners.isfinite().all(1)][0].tolist()
        raise InvalidInputError(f"`boxes` of {what} must be finite; got {first}")
    return corners


def _read_boxes(boxes: Any, count: int, what: str) -> Tensor:
    corners = _corners(boxes, what)
    if corners is None or corners.shape != (count, 4):
        got = _shape_of(boxes, corners)
        raise InvalidInputError(f"`boxes` of {what} must be (n, 4) xyxy with n={count} labels; got {got}")
    upside_down = (corners[:, 2:] < corners[:, :2]).any(1)
    if bool(upside_down.any()):
        first = corners[upside_down][0].tolist()
        raise InvalidInputError(f"`boxes` of {what} must be xyxy, x1 >= x0 and y1 >= y0; got {first}")
    return corners


def _corners(boxes: Any, what: str) -> Tensor | None:
    """Floats of whatever shape, on the CPU; (0, 4) of no boxes; None of what is no array of real numbers."""
    tensor = boxes if isinstance(boxes, Tensor) else _as_tensor(boxes)
    if tensor is None or tensor.is_complex():
        return None
    if tensor.numel() == 0:
        return torch.zeros(0, 4)
    corners = as_corners(tensor, f"`boxes` of {what}").detach().cpu()
    return corners if corners.is_floating_point() else corners.float()


def _shape_of(boxes: Any, corners: Tensor | None) -> str:
    return type(boxes).__name__ if corners is None else f"{tuple(corners.shape)}"


def _read_flags(flags: Any, count: int, what: str) -> Tensor:
    marks = _as_tensor(flags)
    if marks is None or marks.shape != (count,) or not bool(((marks == 0) | (marks == 1)).all()):
        got = f"{type(flags).__name__} {flags!r:.80}"
        raise InvalidInputError(f"`iscrowd` of {what} must be 0 or 1 for each of its {count} labels; got {got}")
    return marks.bool()


def _as_tensor(value: Any) -> Tensor | None:
    """A plain tensor on the CPU, empty ones as integers; None where it is no array of numbers."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    plain = tensor.detach().cpu().as_subclass(Tensor)
    return plain.long() if plain.numel() == 0 and plain.ndim == 1 else plain


def _is_annotations(value: Any) -> bool:
    """Whether this is COCO's list of one dict an object."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _is_of_torchvision(target: Any) -> bool:
    """Whether a target is as `CocoDetection` or `VOCDetection` gives it, unwrapped."""
    if isinstance(target, Mapping):
        return "annotation" in target and not {"boxes", "labels"} & set(target)
    return _is_annotations(target) and "bbox" in target[0]


def _describe(target: Any) -> str:
    if isinstance(target, CollatedTarget):
        return (
            "a row of columns, which a `collate_fn` joined from several targets. Keep one dict a frame, for example by "
            "`collate_fn=lambda batch: tuple(zip(*batch))`"
        )
    if isinstance(target, Mapping):
        return f"a dict with {sorted(map(str, target))}"
    if _is_annotations(target):
        return f"a list of dicts with {sorted(map(str, target[0]))}"
    return "none"
