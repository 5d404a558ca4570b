"""The seam between a pool of predictions and whatever chooses frames from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from cval_torch.pool.pool import IdSource, Pool
from cval_torch.selection.costs import estimated_boxes, total
from cval_torch.selection.stage import DetectionSampling


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
        estimated_boxes: (n,) float64, the boxes to be expected in each, which is what annotating it costs: the sum of
            its boxes' scores, or their number in a pool without scores. None if a backend of one's own does not say.
        remarks: what the user should know of the choice, such as that there were fewer frames than asked for. A
            backend has warned of them.
        ids_from: where the pool's ids come from; None if it does not say.
    """

    frame_ids: tuple[str, ...]
    rows: Tensor
    scores: Tensor
    stages: tuple[DetectionSampling, ...]
    indices: Tensor | None = None
    estimated_boxes: Tensor | None = None
    remarks: tuple[str, ...] = ()
    ids_from: IdSource | None = None

    @classmethod
    def of(
        cls,
        pool: Pool,
        rows: Tensor,
        scores: Tensor,
        stages: tuple[DetectionSampling, ...],
        *,
        remarks: tuple[str, ...] = (),
    ) -> Selection:
        """The frames at (n,) `rows` of a pool, with what the pool says of them."""
        return cls(
            frame_ids=tuple(pool.frame_ids[row] for row in rows.tolist()),
            rows=rows,
            scores=scores,
            stages=stages,
            indices=None if pool.indices is None else pool.indices[rows],
            estimated_boxes=estimated_boxes(pool, rows=rows),
            remarks=remarks,
            ids_from=pool.ids_from,
        )

    @property
    def num_of_boxes(self) -> float:
        """The boxes to be expected in all of them; NaN if `estimated_boxes` is None."""
        return float("nan") if self.estimated_boxes is None else total(self.estimated_boxes)

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __repr__(self) -> str:
        names = " -> ".join(stage.name for stage in self.stages)
        return f"Selection({len(self)} frames of about {self.num_of_boxes:.4g} boxes by {names})"


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


@runtime_checkable
class ReadsColumns(Protocol):
    """What a backend may also have: it says which columns it looks at, and a pass keeps no others for it."""

    def columns(self, stages: Sequence[DetectionSampling]) -> frozenset[str]:
        """The columns of a pool that `select` looks at for these stages, where they are there."""
        ...


@runtime_checkable
class ChecksPasses(Protocol):
    """What a backend may also have: it refuses a pass that would not keep what `select` needs, before it is made."""

    def check_pass(self, stages: Sequence[DetectionSampling], *, top_boxes: int | None) -> None:
        """Raise an `InvalidInputError` if a pool with embeddings of `top_boxes` boxes a frame cannot serve a stage."""
        ...
