"""Whether the rows that an adapter read are what their columns stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import HookError
from cval_torch.hooks.base import FrameBatch

_NEAR = 0.02  # more than the rounding of bfloat16, less than what another column would give


def check_form(frames: Any, count: int, reader: str) -> None:
    """Make sure that all columns are tensors of the shapes and kinds that `FrameBatch` documents.

    Args:
        frames: what an adapter's `read` returned.
        count: N, the frames of the batch.
        reader: the adapter's name, for the message.

    Raises:
        HookError: the first that is not, by name.
    """
    check_boxes(frames, count, reader)
    check_optional(frames, reader)


def check_boxes(frames: Any, count: int, reader: str) -> None:
    """Make sure of the columns that must be there; nothing is computed of a `Later`. See `check_form`."""
    if not isinstance(frames, FrameBatch):
        raise HookError(f"`read` of {reader} must return a FrameBatch; got {type(frames).__name__}")
    _check_column(frames.counts, "counts", "(N,)", reader)
    if frames.counts.is_floating_point() or bool((frames.counts < 0).any()):
        raise HookError(f"{reader} must count boxes in integers from 0, as `counts`; got {frames.counts.tolist()}")
    if len(frames.counts) != count:
        raise HookError(f"{reader} read {len(frames.counts)} frames of a batch of {count}")
    for name, shape, integers in _NEEDED:
        _check_kind(getattr(frames, name), name, shape, integers, reader, rows=int(frames.counts.sum()))


def check_optional(frames: FrameBatch, reader: str) -> None:
    """Make sure of the columns that may be missing, after `check_boxes`. See `check_form`."""
    boxes = len(frames.scores)
    embedded = boxes if frames.embedded is None else int(frames.embedded.sum())
    rows = {"N": len(frames.counts), "B": boxes, "K": embedded}
    for name, shape, integers in _OPTIONAL:
        column = getattr(frames, name)
        some = name == "box_embeddings" and frames.embedded is not None
        if column is not None:
            letter = "K" if some else shape[1]
            _check_kind(column, name, shape.replace("B", letter), integers, reader, rows=rows[letter])
    if (frames.probabilities is None) != (frames.activation is None):
        raise HookError(
            f"{reader} must say the `activation` of its `probabilities`, 'softmax' or 'sigmoid', and only of these; "
            f"got activation={frames.activation!r}"
        )


# Name, shape, whether it holds integers.
_NEEDED = (("boxes", "(B, 4)", False), ("labels", "(B,)", True), ("scores", "(B,)", False))
_OPTIONAL = (
    ("probabilities", "(B, C)", False),
    ("box_embeddings", "(B, E)", False),
    ("frame_embeddings", "(N, D)", False),
)


def _check_kind(column: Any, name: str, shape: str, integers: bool, reader: str, *, rows: int) -> None:
    _check_column(column, name, shape, reader, rows=rows)
    if column.is_floating_point() == integers or column.dtype in (torch.bool, torch.complex64):
        wanted = "integers" if integers else "floating-point numbers"
        raise HookError(f"`{name}` of {reader} must be {wanted}; got {column.dtype}")


def _check_column(column: Any, name: str, shape: str, reader: str, *, rows: int | None = None) -> None:
    if not isinstance(column, Tensor):
        raise HookError(f"`{name}` of {reader} must be a tensor {shape}; got {type(column).__name__}")
    width = 4 if name == "boxes" else None
    fits = column.ndim == shape.count(",") + (shape[-2] != ",")
    fits = fits and (rows is None or len(column) == rows) and (width is None or column.shape[1] == width)
    if not fits:
        known = "" if rows is None else f" with {shape[1]}={rows}"
        raise HookError(f"`{name}` of {reader} must be {shape}{known}; got {tuple(column.shape)}")


def faults_of(frames: FrameBatch, sizes: Sequence[tuple[int, int]] | None) -> list[str]:
    """What is wrong with the numbers of a batch whose form is right, each as a sentence. None where there are no boxes.

    Args:
        frames: see `FrameBatch`.
        sizes: (height, width) of the N images, as the loader gave them; None: unknown.
    """
    if not len(frames.scores):
        return []
    found = _faults_of_boxes(frames, sizes)
    if frames.probabilities is not None:
        found = _faults_of_probabilities(frames, frames.probabilities.float()) + found
    return found


def _faults_of_probabilities(frames: FrameBatch, probabilities: Tensor) -> list[str]:
    labels, scores = frames.labels, frames.scores.float()
    columns = probabilities.shape[1]
    outside = ((labels < 0) | (labels >= columns)).nonzero()
    if len(outside):
        row = int(outside[0])
        return [
            f"`labels` must be columns of `probabilities`, in [0, {columns}); got {int(labels[row])} in row {row}. "
            "Subtract what the labels begin with, or put the background column where the labels count it"
        ]
    found = []
    own = probabilities.gather(1, labels[:, None].long())[:, 0]
    row = int((scores - own).abs().argmax())
    if not abs(float(scores[row] - own[row])) <= _NEAR:
        found.append(
            f"`scores` must be `probabilities[label]`; row {row} has the score {float(scores[row]):.3f}, and "
            f"{float(own[row]):.3f} in column {int(labels[row])}. Read both from one row of the detector, and multiply "
            "the probabilities by what the detector multiplies its scores with"
        )
    if frames.activation == "softmax":
        sums = probabilities.sum(1)
        row = int((sums - 1).abs().argmax())
        if not abs(float(sums[row]) - 1) <= _NEAR:
            found.append(
                f"`probabilities` of a softmax must sum to 1; those of row {row} sum to {float(sums[row]):.3f}. Keep "
                "the background column, or say activation='sigmoid' of independent columns"
            )
    return found


def _faults_of_boxes(frames: FrameBatch, sizes: Sequence[tuple[int, int]] | None) -> list[str]:
    boxes = frames.boxes.float().cpu()
    corners = "must be x1, y1, x2, y2 in pixels of the loader's images"
    turned = ((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])).nonzero()
    if len(turned):
        row = int(turned[0])
        return [
            f"`boxes` {corners}, with x1 <= x2 and y1 <= y2; row {row} is {_numbers(boxes[row])}. Convert boxes of "
            "another form with torchvision.ops.box_convert"
        ]
    if bool((boxes >= 0).all() & (boxes <= 1).all() & (boxes > 0).any()):
        return [f"`boxes` {corners}; all are in [0, 1]. Multiply them by the width and height of their images"]
    if sizes is None:
        return []
    owners = torch.repeat_interleave(frames.counts.cpu().long())
    limits = torch.tensor([(width, height) for height, width in sizes], dtype=torch.float32)[owners]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    outside = ((centres < -1) | (centres > limits + 1)).any(1).nonzero()
    if not len(outside):
        return []
    row = int(outside[0])
    width, height = (int(side) for side in limits[row])
    return [
        f"`boxes` {corners}; the centre of row {row}, {_numbers(boxes[row])}, is outside its image of {width} x "
        f"{height} pixels. Scale boxes of a resized image back"
    ]


def _numbers(box: Tensor) -> str:
    return "(" + ", ".join(f"{number:.1f}" for number in box.tolist()) + ")"
