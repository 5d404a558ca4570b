"""`Summary`: of F frames, what one stage needs to choose among them.

It is made of each frame's own boxes. So it can be made wherever the frames are, also a batch after another while a
model infers them, and everything else can be let go. Only strategies that compare single boxes need the pool itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from cval_torch.pool.pool import Pool
from cval_torch.selection.constraints import bounds_of, check_labels
from cval_torch.selection.null_policy import check_null_detections
from cval_torch.selection.scored import Scored, score_frames
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.descriptor import Descriptors, beside
from cval_torch.strategies.registry import find_strategy


@dataclass(frozen=True, eq=False)
class Summary:
    """What one stage reads of F frames.

    Attributes:
        scored: ids, scores (NaN under a strategy that gives none), and what budgets and quotas look at.
        vectors: where the frames lie, for strategies that see vectors, and for a `min_distance`.
        contents: for strategies that see these.
        pool: the frames themselves, for strategies that see boxes. For a `min_distance` it may stand for `vectors`,
            which are then made of the frames that are asked for.
    """

    scored: Scored
    vectors: Descriptors | None = None
    contents: Contents | None = None
    pool: Pool | None = None

    @classmethod
    def of(cls, pool: Pool, stage: DetectionSampling, *, part: bool = False) -> Summary:
        """Read a pool.

        Args:
            pool: F frames.
            stage: what is to be done with them. Weights of classes must be numbers.
            part: whether these are some frames of a larger pool, which is not going to be there.

        Raises:
            InvalidInputError: a missing column; see `score_frames`.
        """
        check_null_detections(pool.is_empty, pool.frame_ids, stage)
        strategy = find_strategy(stage.selection_strategy)
        if strategy.is_diversity:
            check_labels(pool, stage)
            unscored = torch.tensor(torch.nan, dtype=torch.float64, device=pool.device).expand(len(pool))
            scored = Scored(pool.frame_ids, pool.is_empty, unscored, *bounds_of(pool, stage), pool.ids_from)
        else:
            scored = score_frames(pool, stage)
        spaced = stage.min_distance is not None
        vectors = strategy.sees == "vectors" or (spaced and part)
        return cls(
            scored,
            Descriptors.of(pool, part=part) if vectors else None,
            Contents.of(pool, part=part) if strategy.sees == "contents" else None,
            pool if strategy.sees == "boxes" or (spaced and not part) else None,
        )

    def __len__(self) -> int:
        return len(self.scored)

    def spacing(self, stage: DetectionSampling, labeled: Pool | None) -> Callable[[], Spacing] | None:
        """Makes what keeps the `min_distance` of the stage; None if it has none."""
        if stage.min_distance is None:
            return None
        if self.vectors is None and self.pool is not None:
            return partial(Spacing.of, self.pool, stage.min_distance, labeled=labeled)
        ours, theirs = self.described_beside(labeled)
        return partial(Spacing, ours, stage.min_distance, labeled=theirs)

    def described_beside(self, labeled: Pool | None) -> tuple[Descriptors, Descriptors | None]:
        """The frames and the labeled ones in one space. Raises as `beside` does."""
        if self.vectors is None:
            raise ValueError("this summary was made for a stage that sees no vectors")
        return beside(self.vectors, None if labeled is None else Descriptors.of(labeled, part=True))
