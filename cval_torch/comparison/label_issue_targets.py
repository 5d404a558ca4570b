"""The annotations of the frames of a pool, read from targets as torchvision's detectors train on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.pool.targets import read_target

_Marked = tuple[Tensor, Tensor]  # (n,) labels and (n, 4) boxes
_REMEDY = "Pass None for a frame that is not annotated"


@dataclass(frozen=True, eq=False)
class Annotations:
    """What is annotated in A frames of a pool of predictions.

    Attributes:
        rows: (A,) int64, the rows of these frames in the pool of predictions, rising.
        objects: the A frames with their N `boxes` and `labels`.
        places: (N,) int64, where each of them stands among the boxes of its target.
        crowds: the A frames with the `boxes` that stand for many objects (`iscrowd`), and their `labels`.
    """

    rows: Tensor
    objects: Pool
    places: Tensor
    crowds: Pool


def read_annotations(pool: Pool, targets: Mapping[str, Any] | Sequence[Any]) -> Annotations:
    """Read the targets of all frames that have one.

    Args:
        pool: the predictions.
        targets: one a frame, in the order of the pool, or by frame id; None for a frame that is not annotated. With
            ids a frame may be missing, which says the same, and ids that the pool does not have are left out.

    Raises:
        InvalidInputError: another number of targets than frames; ids of which the pool has none; a target that is
            not understood, or has labels but no boxes. The message names the frame.
    """
    found = [(row, target) for row, target in enumerate(_in_order(pool, targets)) if target is not None]
    names = [pool.frame_ids[row] for row, _ in found]
    read = [_read(target, f"the target of frame {name!r}") for name, (_, target) in zip(names, found, strict=True)]
    return Annotations(
        rows=torch.tensor([row for row, _ in found], dtype=torch.int64),
        objects=_pool_of(names, [objects for objects, _, _ in read]),
        places=torch.cat([torch.zeros(0, dtype=torch.int64), *(places for _, places, _ in read)]),
        crowds=_pool_of(names, [crowds for _, _, crowds in read]),
    )


def _in_order(pool: Pool, targets: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    if isinstance(targets, Mapping):
        if targets and not any(frame_id in targets for frame_id in pool.frame_ids):
            raise InvalidInputError(
                f"`targets` must have ids of the pool, such as {next(iter(pool.frame_ids), None)!r}; it has "
                f"{len(targets)} others, such as {next(iter(targets))!r}"
            )
        return [targets.get(frame_id) for frame_id in pool.frame_ids]
    if isinstance(targets, (str, bytes, Tensor)) or not isinstance(targets, Sequence):
        raise InvalidInputError(
            "`targets` must be a mapping from frame ids to targets, or a sequence of targets; got "
            f"{type(targets).__name__}"
        )
    if len(targets) != len(pool):
        raise InvalidInputError(
            f"`targets` must be one for each of the {len(pool)} frames of the pool, in its order; got {len(targets)}. "
            f"{_REMEDY}, or pass a mapping from frame ids"
        )
    return list(targets)


def _read(target: Any, what: str) -> tuple[_Marked, Tensor, _Marked]:
    """The objects, their places among the boxes of the target, and the crowds."""
    labels, boxes = read_target(target, what, remedy=_REMEDY)
    flags = target.get("iscrowd") if isinstance(target, Mapping) else None
    places, crowds = torch.arange(len(labels)), (torch.zeros(0, dtype=torch.int64), _or_none(None))
    if flags is not None:
        marked = torch.as_tensor(flags).detach().cpu().bool()
        places = (~marked).nonzero().squeeze(1)
        crowd_labels, crowd_boxes = read_target({**target, "iscrowd": (~marked).long()}, what)
        crowds = (crowd_labels, _or_none(crowd_boxes))
    if boxes is None and len(labels):
        raise InvalidInputError(f"{what} must have `boxes`: label issues are told by where objects are; it has labels")
    return (labels, _or_none(boxes)), places, crowds


def _or_none(boxes: Tensor | None) -> Tensor:
    return torch.zeros(0, 4, dtype=torch.float64) if boxes is None else boxes.double()


def _pool_of(names: list[str], found: list[_Marked]) -> Pool:
    return Pool(
        names,
        offsets_of(torch.tensor([len(labels) for labels, _ in found], dtype=torch.int64)),
        labels=torch.cat([torch.zeros(0, dtype=torch.int64), *(labels for labels, _ in found)]),
        boxes=torch.cat([torch.zeros(0, 4, dtype=torch.float64), *(boxes for _, boxes in found)]),
    )
