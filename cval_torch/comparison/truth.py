"""What is truly in each frame: read from the loader's own targets while it is inferred, or asked of the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.batches import parts_of
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.pool.targets import holds_only_id, read_target

Targets = Callable[[int], Any]
"""`row of the dataset -> target`: the frame's labels, or a dict of `labels` and `boxes`."""

_REMEDY = "Pass `targets=`, a function from a row of the dataset to one of these, [] for an empty frame"


class TruthReader:
    """Keeps the true labels and boxes of every frame that it is shown.

    Args:
        targets: asked for each frame's target; None: the loader's are taken.
        row_of: the row that `targets` is asked about, by frame id; None: the loader's own.
    """

    def __init__(self, targets: Targets | None, row_of: Callable[[str], int] | None = None) -> None:
        self.targets, self.row_of = targets, row_of
        self._known: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._says_objects = False  # whether any target holds more than an id

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
            self._says_objects |= not holds_only_id(target)
            labels, boxes = read_target(target, f"the target of frame {frame_id!r}", remedy=_REMEDY)
            self._known[frame_id] = labels, None if boxes is None else boxes.float()

    def truth(self, pool: Pool, run: InferencePass) -> Pool:
        """The true objects of the frames of `pool`, as a pool of `labels` and, if they are known, `boxes`.

        Frames that the pass did not load, since it found them in its folder, are loaded for their targets.

        Raises:
            InvalidInputError: as `watch`; or objects with boxes beside objects without; or no target says anything of
                objects.
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
        if self._known and not self._says_objects:
            raise InvalidInputError(
                "every target holds an `image_id` and nothing else, so none says which objects its frame shows. The "
                f"loader must yield targets with `labels`. {_REMEDY}"
            )
        found = [self._known[frame_id] for frame_id in pool.frame_ids]
        labels = [part for part, _ in found]
        counts = torch.tensor([len(part) for part in labels], dtype=torch.int64)
        return Pool(
            pool.frame_ids,
            offsets_of(counts),
            labels=torch.cat(labels),
            boxes=_joined([boxes for _, boxes in found], counts.tolist(), pool.frame_ids),
        )


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
