"""`ClassDifficulty`: which classes a detector finds hard, tracked while it is trained or tried out.

After PPAL (Yang, Huang, Crowley, *Plug and Play Active Learning for Object Detection*, arXiv 2211.11612, and its public
code), whose first stage weighs the uncertainty of a box by the difficulty of its class. An object that was found with
confidence `p` and overlap `IoU` has the quality `p^xi IoU^(1 - xi)`, `xi = 0.6`, and 1 less that is its difficulty; a
class's is an exponential moving average of the means of batches, from 1 at the start. What the public code keeps, and
calls `class_quality`, is 1 less the difficulty `D` that is kept here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.box_formats import as_corners
from cval_torch.pool.targets import read_target

STATE_FORMAT = "cval_torch.difficulty/1"


@dataclass
class _Running:
    """One class: its average, the momentum of its next update, and the share that the start has in the average."""

    average: float
    momentum: float
    start: float


class ClassDifficulty:
    """Tracks how hard each class is for a detector, from its detections and the truth; knows no framework.

    Each object of the truth is matched with at most one detection of its class, the best matches first; an object that
    nothing matches has difficulty 1, and a detection that matches nothing is left out. The mean over a batch's objects
    of a class moves the class's average by `1 - momentum`. A class that a batch does not show stays as it is, and its
    next update counts for more: its momentum is multiplied by `momentum` once for each such batch, and goes back after
    it was seen.

    Three things differ from the public code. There the matched boxes are anchors within the loss; here they are
    detections, which any detector gives. There a class that a batch does not show drifts back to difficulty 1; here it
    waits. There the start, difficulty 1, is felt for hundreds of batches; here its share is taken out again (as in
    Adam), so that a pass over a few batches counts in full. With every class in each of many batches, both agree.

    Args:
        classes: labels that are known beforehand: of difficulty 1 until they are seen. Others join as they are seen.
        momentum: in [0, 1): what an average keeps at each batch. PPAL trains with 0.99.
        xi: in [0, 1]: 1 goes by the confidence alone, 0 by the overlap alone.
        min_iou: in (0, 1]: the least overlap of a match.

    Raises:
        InvalidInputError: a number out of range.

    >>> import torch
    >>> difficulty = ClassDifficulty(classes=[1, 2])
    >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> found = {"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    >>> difficulty.update([found], [{"boxes": box, "labels": torch.tensor([1])}])
    >>> {label: round(value, 3) for label, value in difficulty.difficulties.items()}
    {1: 0.34, 2: 1.0}
    """

    def __init__(
        self, classes: Iterable[int] = (), *, momentum: float = 0.99, xi: float = 0.6, min_iou: float = 0.5
    ) -> None:
        if not 0 <= momentum < 1:
            raise InvalidInputError(f"`momentum` must be in [0, 1); got {momentum}")
        if not 0 <= xi <= 1:
            raise InvalidInputError(f"`xi` must be in [0, 1]; got {xi}")
        if not 0 < min_iou <= 1:
            raise InvalidInputError(f"`min_iou` must be in (0, 1]; got {min_iou}")
        self.momentum, self.xi, self.min_iou = float(momentum), float(xi), float(min_iou)
        self._running = {int(label): self._unseen() for label in classes}

    @property
    def difficulties(self) -> dict[int, float]:
        """By label, in [0, 1], higher = harder; 1 for a class that was not seen yet."""
        return {
            label: 1.0 if one.start == 1 else min(max((one.average - one.start) / (1 - one.start), 0.0), 1.0)
            for label, one in sorted(self._running.items())
        }

    def update(self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Take one batch into account.

        Args:
            predictions: for each image `boxes` (P, 4) xyxy, `labels` (P,) and `scores` (P,) in [0, 1], as torchvision's
                detectors return them in eval mode.
            targets: for each image `boxes` (T, 4) in the same pixels, and `labels` (T,). A dict with `image_id` alone
                is an image without objects. Objects that `iscrowd` marks are left out. Boxes of targets and predictions
                are xyxy, or `BoundingBoxes` in XYXY, XYWH or CXCYWH.

        Raises:
            InvalidInputError: they are not as many, or a column is missing, of another shape, or out of range; then
                nothing was taken into account.
        """
        if len(predictions) != len(targets):
            raise InvalidInputError(
                f"`predictions` and `targets` must be one an image; got {len(predictions)} and {len(targets)}"
            )
        found: dict[int, list[float]] = {}
        for number, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
            boxes, labels = _truth(target, f"targets[{number}]")
            theirs = _columns(prediction, ("boxes", "labels", "scores"), f"predictions[{number}]")
            for label, quality in zip(labels.tolist(), self._qualities(boxes, labels, *theirs), strict=True):
                found.setdefault(label, []).append(1 - quality)
        for label in found.keys() - self._running.keys():
            self._running[label] = self._unseen()
        for label, one in self._running.items():
            if label in found:
                mean = math.fsum(found[label]) / len(found[label])
                one.average = one.momentum * one.average + (1 - one.momentum) * mean
                one.start *= one.momentum
                one.momentum = self.momentum
            else:
                one.momentum *= self.momentum

    def weights(self, *, alpha: float = 0.3, beta: float = 0.2) -> dict[int, float]:
        """PPAL's weights of classes: `1 + alpha beta ln(1 + (e^(1 / alpha) - 1) D)`, for `class_weights`.

        Args:
            alpha: at least 0.01: how soon they rise; the smaller, the more even slight difficulties count.
            beta: at least 0: how far they rise.

        Returns:
            By label, from 1 for a class without difficulty to `1 + beta` for one that is never found.

        Raises:
            InvalidInputError: a number out of range.
        """
        if not (math.isfinite(alpha) and alpha >= 0.01):
            raise InvalidInputError(f"`alpha` must be a finite number of at least 0.01; got {alpha}")
        if not (math.isfinite(beta) and beta >= 0):
            raise InvalidInputError(f"`beta` must be a finite number of at least 0; got {beta}")
        steep = math.expm1(1 / alpha)
        return {label: 1 + alpha * beta * math.log1p(steep * hard) for label, hard in self.difficulties.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything, as str, float, list and dict: it loads under `weights_only=True`, and goes through JSON."""
        return {
            "format": STATE_FORMAT,
            "momentum": self.momentum,
            "xi": self.xi,
            "min_iou": self.min_iou,
            "classes": {str(label): [one.average, one.momentum, one.start] for label, one in self._running.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what a `state_dict` says. All of it, or nothing.

        Raises:
            InvalidInputError: not a state of this format, or damaged.
        """
        wanted = state.get("format") if isinstance(state, Mapping) else type(state).__name__
        if wanted != STATE_FORMAT:
            raise InvalidInputError(f"`state` must be a ClassDifficulty state of {STATE_FORMAT!r}; got {wanted!r}")
        try:
            loaded = ClassDifficulty(momentum=state["momentum"], xi=state["xi"], min_iou=state["min_iou"])
            for label, (average, momentum, start) in state["classes"].items():
                numbers = (float(average), float(momentum), float(start))
                if not all(0 <= number <= 1 for number in numbers):
                    raise InvalidInputError(f"`state` is damaged: class {label} has {numbers}, not numbers in [0, 1]")
                loaded._running[int(label)] = _Running(*numbers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(f"`state` is damaged: {type(error).__name__}: {error}") from error
        self.__dict__.update(loaded.__dict__)

    def __repr__(self) -> str:
        return f"ClassDifficulty({len(self._running)} classes, momentum={self.momentum}, xi={self.xi})"

    def _unseen(self) -> _Running:
        return _Running(average=1.0, momentum=self.momentum, start=1.0)

    def _qualities(self, boxes: Tensor, labels: Tensor, *theirs: Tensor) -> list[float]:
        """For each object of an image, `p^xi IoU^(1 - xi)` of the detection that matches it, 0 without."""
        from torchvision.ops import box_iou  # noqa: PLC0415, it takes seconds, and most processes need none of it

        their_boxes, their_labels, scores = theirs
        overlaps = box_iou(boxes, their_boxes)
        quality = scores.pow(self.xi) * overlaps.pow(1 - self.xi)
        fits = (labels[:, None] == their_labels) & (overlaps >= self.min_iou)
        qualities, taken = [0.0] * len(labels), set[int]()
        rows, columns = fits.nonzero().unbind(1)
        values = quality[rows, columns]
        order = values.sort(descending=True, stable=True).indices
        matched = set[int]()
        for row, column, value in zip(
            rows[order].tolist(), columns[order].tolist(), values[order].tolist(), strict=True
        ):
            if row not in matched and column not in taken:
                matched.add(row)
                taken.add(column)
                qualities[row] = value
        return qualities


def _truth(target: Any, where: str) -> tuple[Tensor, Tensor]:
    """Boxes in float64 and labels of one image."""
    labels, boxes = read_target(target, where)
    if boxes is None:
        if len(labels):
            raise InvalidInputError(f"{where} must have `boxes`; it has labels alone")
        boxes = torch.zeros(0, 4)
    if not bool(boxes.isfinite().all()):
        raise InvalidInputError(f"`boxes` of {where} must be finite; got {boxes.tolist()}")
    return boxes.double(), labels


def _columns(image: Mapping[str, Any], names: Sequence[str], where: str) -> list[Tensor]:
    """The columns of what was found in one image, on the CPU, floats in float64, checked."""
    columns: list[Tensor] = []
    for name in names:
        column = image.get(name) if isinstance(image, Mapping) else None
        if not isinstance(column, Tensor):
            raise InvalidInputError(f"{where} must have the tensor `{name}`; got {type(column).__name__}")
        if name == "boxes":
            column = as_corners(column, f"`boxes` of {where}")
        rows = len(columns[0]) if columns else column.numel() // 4
        shape = (rows, 4) if name == "boxes" else (rows,)
        if column.shape != shape:
            raise InvalidInputError(f"`{name}` of {where} must be {shape}; got {tuple(column.shape)}")
        column = column.detach().cpu()
        column = column.long() if name == "labels" else column.double()
        if not bool(column.isfinite().all()) or (name == "scores" and bool(((column < 0) | (column > 1)).any())):
            raise InvalidInputError(f"`{name}` of {where} must be finite, and scores in [0, 1]; got {column.tolist()}")
        columns.append(column)
    return columns
