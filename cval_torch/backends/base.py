"""The seam between a pool of predictions and whatever chooses frames from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from cval_torch.pool import Pool
from cval_torch.wire import DetectionSampling


@dataclass(frozen=True, eq=False)
class Selection:
    """The frames that a backend chose, the first choice first.

    Attributes:
        frame_ids: n ids, in rank order.
        rows: (n,) int64, their rows in the pool.
        scores: (n,) float64, the frame score from the last stage that scored frames (uncertainty, or a
            callable); NaN where no stage did (diversity or `random` alone, or frames without boxes that
            `null_policy` set apart).
        stages: the stages that were run, in order. The last one gave the rank.
        indices: (n,) int64, their rows in the user's dataset; None if the pool does not know them.
    """

    frame_ids: tuple[str, ...]
    rows: Tensor
    scores: Tensor
    stages: tuple[DetectionSampling, ...]
    indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frame_ids)


@runtime_checkable
class Backend(Protocol):
    """Chooses frames: in process, through cval.ai, or through a server of one's own."""

    def select(self, pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]) -> Selection:
        """Narrow `pool` stage by stage; every stage chooses among the frames that the one before it kept.

        Raises:
            InvalidInputError: no frames, no stages, or a stage that the pool's columns cannot serve.
            ServiceError: a remote backend failed.
        """
        ...
