"""`LocalBackend`: selection in process, on the device where the pool is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cval_torch.errors import warn_user
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Selection
from cval_torch.selection.class_weights import checked_counts
from cval_torch.selection.labeled import Labeled
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import narrowed


class LocalBackend:
    """Chooses frames in process: no account, no server, every strategy.

    Args:
        labeled: frames that are annotated already, extracted by the same model, which the diversity strategies stay
            away from, and stages with a `min_distance` keep it from, and whose predicted objects, counted by score,
            `class_weights="balanced"` goes by; None if there are none. In place of the pool, a `Labeled` has no more
            than some stages look at, and no objects to count.
        labeled_counts: annotated objects by label, such as from the annotation files: what `"balanced"` goes by
            instead, exactly, and by what `auto` (`class_gain`) knows a class. Labels are the detector's own.

    Raises:
        InvalidInputError: `labeled_counts` are not finite numbers of at least 0 by label.

    >>> import torch
    >>> pool = Pool(["a", "b", "c"], torch.tensor([0, 1, 2, 3]), scores=torch.tensor([0.9, 0.5, 0.8]))
    >>> LocalBackend().select(pool, DetectionSampling(selection_strategy="entropy", num_of_samples=2)).frame_ids
    ('b', 'c')
    """

    def __init__(
        self, *, labeled: Pool | Labeled | None = None, labeled_counts: Mapping[int, float] | None = None
    ) -> None:
        self.labeled = labeled
        self.labeled_counts = None if labeled_counts is None else checked_counts(labeled_counts, "labeled_counts")

    def select(self, pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]) -> Selection:
        """Narrow `pool` stage by stage; see `Backend.select`.

        Raises:
            InvalidInputError: no frames, no stages, an unknown strategy, or a stage that the pool's columns
                cannot serve; the message names it. A frame that is in `labeled` too. Classes to be balanced, and
                neither `labeled` nor `labeled_counts`.
        """
        kept, ran = narrowed(pool, stages, labeled=self.labeled, labeled_counts=self.labeled_counts)
        for remark in kept.remarks:
            warn_user(remark)
        return Selection.of(pool, kept.rows, kept.scores, ran, remarks=kept.remarks)
