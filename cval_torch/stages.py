"""Stages: fold a list of `DetectionSampling` over a `Pool`, each choosing among the frames that the last one kept.

Ties go to the smaller frame id, and everything random starts from frames in the order of
their ids: the choice is the same whatever the order in which a loader brought the frames.

What one stage hands to the next is the frames, and the last frame scores, which a later diversity stage may use as
weights. The rank of the result is the last stage's own: by score for a scoring stage, by the method's order for a
diversity stage. So after `entropy` to 2000 and `clustering` to 200, the first frame is the most typical one of the
largest cluster, and `scores` still tells its entropy.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool import Pool
from cval_torch.ranking import callable_name, frame_scores, rank_rows
from cval_torch.scores import UNCERTAINTIES
from cval_torch.wire import DetectionSampling


def run_stages(
    pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]
) -> tuple[Tensor, Tensor, tuple[DetectionSampling, ...]]:
    """Choose frames, stage by stage.

    Args:
        pool: F frames.
        stages: one, or a sequence of one or more. `dataset_id`, which is for the wire, is ignored.

    Returns:
        `rows` (n,) int64 of the pool in rank order, on its device; `scores` (n,) float64 of the last stage that
        scored frames, NaN for frames that none scored; the stages.

    Raises:
        InvalidInputError: no frames or no stages; `frames` set on a stage; an unknown strategy; a column missing.
    """
    ran = _as_stages(stages)
    if len(pool) == 0:
        raise InvalidInputError("`pool` must hold at least one frame to choose from; got none")
    rows = torch.arange(len(pool), device=pool.device)
    scores = torch.full((len(pool),), torch.nan, dtype=torch.float64, device=pool.device)
    kept = pool
    for stage in ran:
        if stage.num_of_samples > len(kept):
            warnings.warn(
                f"num_of_samples={stage.num_of_samples} of the stage {_name_of(stage)!r} is more than the "
                f"{len(kept)} frames there are: all are kept",
                UserWarning,
                stacklevel=3,
            )
        chosen, scores = _run_stage(kept, stage, scores)
        rows = rows[chosen]
        kept = pool.take(rows) if stage is not ran[-1] else kept
    return rows, scores, ran


def _as_stages(stages: DetectionSampling | Sequence[DetectionSampling]) -> tuple[DetectionSampling, ...]:
    ran = (stages,) if isinstance(stages, DetectionSampling) else tuple(stages)
    if not ran:
        raise InvalidInputError("`stages` must hold at least one DetectionSampling; got none")
    for number, stage in enumerate(ran):
        if not isinstance(stage, DetectionSampling):
            raise InvalidInputError(f"`stages` must be DetectionSampling; got {type(stage).__name__} at {number}")
        if stage.frames is not None:
            raise InvalidInputError(
                f"stage {number} has `frames`, which a request on the wire carries; in process the frames are the "
                "pool's: leave it None"
            )
        if isinstance(stage.selection_strategy, str) and stage.selection_strategy not in KNOWN_STRATEGIES:
            raise InvalidInputError(
                f"`selection_strategy` must be a callable or one of {', '.join(KNOWN_STRATEGIES)}; "
                f"got {stage.selection_strategy!r}"
            )
    return ran


KNOWN_STRATEGIES = (*UNCERTAINTIES, "probability", "random")
"""The names that a stage may have in process."""


def _run_stage(pool: Pool, stage: DetectionSampling, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen rows of `pool` in rank order, and the frame scores of those, new ones or those handed on."""
    n = min(stage.num_of_samples, len(pool))
    nulls = pool.counts == 0
    if not stage.use_null_detections and bool(nulls.any()):
        frame_id = pool.frame_ids[int(nulls.nonzero()[0])]
        raise InvalidInputError(f"use_null_detections=False, but frame {frame_id!r} has no boxes")
    if stage.null_policy == "protocol" or not bool(nulls.any()):
        return _choose(pool, stage, scores, torch.arange(len(pool), device=pool.device), n)
    seen = (~nulls).nonzero().squeeze(1)
    empty = sorted(nulls.nonzero().squeeze(1).tolist(), key=pool.frame_ids.__getitem__)
    if stage.null_policy == "skip" and len(seen) == 0:
        raise InvalidInputError(
            f"null_policy='skip' leaves nothing to choose from: none of the {len(pool)} frames has boxes"
        )
    if stage.null_policy == "sample":
        share = (n * len(empty) + len(pool) // 2) // len(pool)
        filling = torch.tensor(empty)[_shuffled(len(empty), stage.seed)[:share]]
    else:
        filling = torch.tensor(empty if stage.null_policy == "last" else [], dtype=torch.int64)
        filling = filling[: max(n - len(seen), 0)]
    rows, new_scores = _choose(pool, stage, scores, seen, min(n - len(filling), len(seen)))
    unscored = scores.new_full((len(filling),), torch.nan)
    return torch.cat([rows, filling.to(rows)]), torch.cat([new_scores, unscored])


def _choose(pool: Pool, stage: DetectionSampling, scores: Tensor, rows: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """`n` of `rows` in rank order, and their scores."""
    if n == 0:
        return rows[:0], scores[:0]
    ids = [pool.frame_ids[row] for row in rows.tolist()]
    if stage.selection_strategy == "random":
        by_id = sorted(range(len(ids)), key=ids.__getitem__)
        chosen = [by_id[position] for position in _shuffled(len(ids), stage.seed)[:n].tolist()]
    else:
        scores = frame_scores(pool, stage)
        chosen = rank_rows(scores[rows], ids, n, descending=stage.descending)
    picked = rows[torch.tensor(chosen, dtype=torch.int64, device=rows.device)]
    return picked, scores[picked]


def _shuffled(n: int, seed: int) -> Tensor:
    """A permutation of `range(n)`, drawn on the CPU so that a GPU gives the same one."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _name_of(stage: DetectionSampling) -> str:
    strategy = stage.selection_strategy
    return strategy if isinstance(strategy, str) else callable_name(strategy)
