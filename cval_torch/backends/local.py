"""`LocalBackend`: selection in process, on the device where the pool is."""

from __future__ import annotations

from collections.abc import Sequence

from cval_torch.backends.base import Selection
from cval_torch.pool import Pool
from cval_torch.stages import run_stages
from cval_torch.wire import DetectionSampling


class LocalBackend:
    """Chooses frames in process: no account, no server, every strategy.

    Args:
        labeled: frames that are annotated already, extracted by the same model, which the diversity strategies stay
            away from; None if there are none.

    >>> import torch
    >>> pool = Pool(["a", "b", "c"], torch.tensor([0, 1, 2, 3]), scores=torch.tensor([0.9, 0.5, 0.8]))
    >>> LocalBackend().select(pool, DetectionSampling(selection_strategy="entropy", num_of_samples=2)).frame_ids
    ('b', 'c')
    """

    def __init__(self, *, labeled: Pool | None = None) -> None:
        self.labeled = labeled

    def select(self, pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]) -> Selection:
        """Narrow `pool` stage by stage; see `Backend.select`.

        Raises:
            InvalidInputError: no frames, no stages, an unknown strategy, or a stage that the pool's columns
                cannot serve; the message names it. A frame that is in `labeled` too.
        """
        rows, scores, ran = run_stages(pool, stages, labeled=self.labeled)
        return Selection(
            frame_ids=tuple(pool.frame_ids[row] for row in rows.tolist()),
            rows=rows,
            scores=scores,
            stages=ran,
            indices=None if pool.indices is None else pool.indices[rows],
        )
