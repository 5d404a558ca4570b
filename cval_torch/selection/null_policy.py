"""Frames without boxes: which of them a stage sets apart, and how they come back into its choice.

`DetectionSampling.null_policy` says what the policies mean. This is the only place that carries them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.selection.order import order_of_ids, shuffled
from cval_torch.selection.stage import Scoring


@dataclass(frozen=True, eq=False)
class SetApart:
    """The frames that a stage keeps out of the competition, worked out once a stage.

    Attributes:
        frames: F, how many frames there are in all.
        rows: (m,) int64, the frames set apart, in the order in which they join a choice. None of them ever does under
            `skip`.
        competing: (F - m,) int64, the others; None where none is set apart.
        policy: the `null_policy`.
    """

    frames: int
    rows: Tensor
    competing: Tensor | None
    policy: str

    @classmethod
    def of(cls, is_empty: Tensor, frame_ids: Sequence[str], stage: Scoring) -> SetApart:
        """What `stage` sets apart.

        Args:
            is_empty: (F,) bool, whether a frame has no boxes.
            frame_ids: F ids.
            stage: says what becomes of these frames.

        Raises:
            InvalidInputError: there is such a frame, and `use_null_detections=False`; or all are, and the policy is
                `skip`.
        """
        check_null_detections(is_empty, frame_ids, stage)
        empty = is_empty.nonzero().squeeze(1)
        if not sets_apart(stage) or len(empty) == 0:
            return cls(len(is_empty), empty[:0], None, stage.null_policy)
        if stage.null_policy == "skip" and len(empty) == len(is_empty):
            raise InvalidInputError(
                f"null_policy='skip' leaves nothing to choose from: none of the {len(is_empty)} frames has boxes"
            )
        rows = empty[order_of_ids(frame_ids, empty)]
        if stage.null_policy == "sample":
            rows = rows[shuffled(len(rows), stage.seed).to(rows.device)]
        return cls(len(is_empty), rows, (~is_empty).nonzero().squeeze(1), stage.null_policy)

    @property
    def num_competing(self) -> int:
        """How many frames compete."""
        return self.frames - len(self.rows)

    @property
    def num_choosable(self) -> int:
        """How many frames a choice can hold at the most."""
        return self.num_competing if self.policy == "skip" else self.frames

    def split(self, n: int) -> tuple[int, int]:
        """How many of a choice of `n` frames compete for their place, and how many of `rows` follow them."""
        if self.policy == "sample":
            following = (n * len(self.rows) + self.frames // 2) // self.frames
        else:
            following = max(n - self.num_competing, 0) if self.policy == "last" else 0
        return min(n - following, self.num_competing), following


def sets_apart(stage: Scoring) -> bool:
    """Whether frames without boxes take no part in the competition of a stage."""
    return stage.null_policy != "protocol"


def check_null_detections(is_empty: Tensor, frame_ids: Sequence[str], stage: Scoring) -> None:
    """Raise an `InvalidInputError` that names a frame without boxes, if the stage says that there must be none."""
    if not stage.use_null_detections and bool(is_empty.any()):
        frame_id = frame_ids[int(is_empty.nonzero()[0])]
        raise InvalidInputError(f"use_null_detections=False, but frame {frame_id!r} has no boxes")


def remark_on_number(apart: SetApart, stage: Scoring, num_of_samples: int | None) -> list[str]:
    """What to say where a stage asks for more frames than there are."""
    frames = apart.num_choosable
    if num_of_samples is None or not num_of_samples > frames > 0:
        return []
    of = "frames there are" if frames == apart.frames else "frames with boxes, which null_policy='skip' leaves"
    return [f"keeps all {frames} {of}: fewer than num_of_samples={num_of_samples}"]
