"""What is truly in each frame: read from the loader's own targets while it is inferred, or asked of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.batches import parts_of
from cval_torch.extraction.passes import InferencePass
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool

Targets = Callable[[int], Any]
"""`row of the dataset -> target`: the frame's labels, or a dict of `labels` and `boxes`."""


class TruthReader:
    """Keeps the true labels and boxes of every frame that it is shown.

    Args:
        targets: asked for each frame's target; None: the loader's are taken.
        row_of: the row that `targets` is asked about, by frame id; None: the loader's own.
    """

    def __init__(self, targets: Targets | None, row_of: Callable[[str], int] | None = None) -> None:
        self.targets, self.row_of = targets, row_of
        self._known: dict[str, tuple[Tensor, Tensor | None]] = {}

    def watch(self, frame_ids: Sequence[str], rows: Sequence[int], targets: Sequence[Any] | None) -> None:
        """Read the targets of a batch; a `Watch`.

        Raises:
            InvalidInputError: a frame has no target, or one that is not understood.
        """
        if self.targets is None and targets is None:
            raise InvalidInputError(
                f"frame {frame_ids[0]!r} has no target, and what it truly shows must be known: the loader must yield "
                "(images, targets), or pass `targets=`, a function from a row of its dataset to the frame's labels"
            )
        for number, (frame_id, row) in enumerate(zip(frame_ids, rows, strict=True)):
            if self.targets is not None:
                target = self.targets(row if self.row_of is None else self.row_of(frame_id))
            else:
                target = targets[number] if targets is not None else None
            self._known[frame_id] = read_target(target, frame_id)

    def truth(self, pool: Pool, run: InferencePass) -> Pool:
        """The true objects of the frames of `pool`, as a pool of `labels` and, if they are known, `boxes`.

        Frames that the pass did not load, since it found them in its folder, are loaded for their targets.

        Raises:
            InvalidInputError: as `watch`; or objects with boxes beside objects without.
        """
        rows_of_frames = [] if pool.indices is None else pool.indices.tolist()
        names = dict(zip(rows_of_frames, pool.frame_ids, strict=True))
        missing = {row for row, name in names.items() if name not in self._known}
        plan = run.shares.plan
        batches = [[row for row in batch if row in missing] for batch in plan.batches or ()]
        batches = [batch for batch in batches if batch]
        if self.targets is not None:
            for batch in batches:
                self.watch([names[row] for row in batch], batch, None)
        elif batches:
            for rows, data in plan.load(batches):
                parts = parts_of(data, run.adapter, run.options.split, single=plan.single)
                self.watch([names[row] for row in rows or ()], rows or (), parts.targets)
        found = [self._known[frame_id] for frame_id in pool.frame_ids]
        labels = [part for part, _ in found]
        counts = torch.tensor([len(part) for part in labels], dtype=torch.int64)
        return Pool(
            pool.frame_ids,
            offsets_of(counts),
            labels=torch.cat(labels),
            boxes=_joined([boxes for _, boxes in found], counts.tolist(), pool.frame_ids),
        )


def read_target(target: Any, frame_id: str) -> tuple[Tensor, Tensor | None]:
    """(n,) int64 labels and (n, 4) float32 xyxy boxes of a frame; None where the target has no boxes.

    Args:
        target: a dict with `labels` and perhaps `boxes`, as torchvision's detectors are trained on; or labels alone.
        frame_id: the frame, for errors.

    Raises:
        InvalidInputError: it is neither, or labels and boxes do not fit.

    >>> read_target([3, 1], "a.jpg")
    (tensor([3, 1]), None)
    """
    given, boxes = (target.get("labels"), target.get("boxes")) if isinstance(target, Mapping) else (target, None)
    if given is None:
        got = f"a dict with {sorted(map(str, target))}" if isinstance(target, Mapping) else "none"
        raise InvalidInputError(
            f"the target of frame {frame_id!r} must be a dict with `labels` (and `boxes`), or the labels; got {got}. "
            "Pass `targets=`, a function from a row of the dataset to one of these, [] for an empty frame"
        )
    labels = _as_tensor(given)
    if labels is None or labels.ndim != 1 or labels.dtype == torch.bool or labels.is_floating_point():
        got = f"{type(given).__name__} {given!r:.80}" if labels is None else f"{tuple(labels.shape)} of {labels.dtype}"
        raise InvalidInputError(f"the labels of frame {frame_id!r} must be (n,) integers; got {got}")
    if boxes is None:
        return labels.long(), None
    form = getattr(getattr(boxes, "format", None), "name", "XYXY")
    corners = _as_tensor(boxes)
    corners = torch.zeros(0, 4) if corners is not None and corners.numel() == 0 else corners
    if corners is None or corners.shape != (len(labels), 4) or corners.is_complex() or form != "XYXY":
        got = type(boxes).__name__ if corners is None else f"{tuple(corners.shape)} in {form}"
        raise InvalidInputError(
            f"the boxes of frame {frame_id!r} must be (n, 4) xyxy with n={len(labels)} labels; got {got}"
        )
    corners = corners.float()
    upside_down = (corners[:, 2:] < corners[:, :2]).any(1)
    if bool(upside_down.any()):
        first = corners[upside_down][0].tolist()
        raise InvalidInputError(f"the boxes of frame {frame_id!r} must be xyxy, x1 >= x0 and y1 >= y0; got {first}")
    return labels.long(), corners


def _as_tensor(value: Any) -> Tensor | None:
    """On the CPU, empty ones as integers; None where it is no array of numbers."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    plain = tensor.detach().cpu().as_subclass(Tensor)
    return plain.long() if plain.numel() == 0 and plain.ndim == 1 else plain


def _joined(boxes: list[Tensor | None], counts: list[int], frame_ids: Sequence[str]) -> Tensor | None:
    """All boxes; None where no frame has any said."""
    without = [row for row, part in enumerate(boxes) if part is None and counts[row]]
    if not any(part is not None and len(part) for part in boxes):
        return None if without else torch.zeros(sum(counts), 4)
    if without:
        raise InvalidInputError(
            f"either every target has `boxes` or none; that of frame {frame_ids[without[0]]!r} has labels alone"
        )
    return torch.cat([torch.zeros(0, 4) if part is None else part for part in boxes])
