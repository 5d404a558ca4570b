"""Stages: fold a list of `DetectionSampling` over a `Pool`, each choosing among the frames that the last one kept.

Ties go to the smaller frame id, and everything random starts from frames in the order of their ids: the choice is the
same whatever the order in which a loader brought the frames.

What one stage hands to the next is its frames and the last frame scores, which a later diversity stage may use as
weights (higher = more informative, whichever direction they were sorted in). The rank of the result is the last
stage's own: by score for a scoring stage, in the method's order for a diversity stage. So after `entropy` to 2000 and
`clustering` to 200, the first frame is the most typical one of the largest cluster, and `scores` still tells its
entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, warn_user
from cval_torch.pool.pool import Pool
from cval_torch.selection.checks import check_apart, checked_stages
from cval_torch.selection.class_weights import counts_for, with_known_weights
from cval_torch.selection.constraints import bounds_of, check_labels
from cval_torch.selection.null_policy import SetApart
from cval_torch.selection.order import rows_by_id
from cval_torch.selection.scored import Chosen, bounded_choice, ranked_choice, score_frames
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.descriptor import descriptors_beside
from cval_torch.strategies.registry import Strategy, find_strategy


@dataclass(frozen=True, eq=False)
class Kept:
    """What a stage hands to the next one, and the last one to the user.

    Attributes:
        source: the pool that the first stage was given.
        rows: (F,) int64, the rows of it that are kept, in rank order; before the first stage all of them.
        scores: (F,) float64, their scores from the last stage that scored; NaN for frames that none scored.
        descending: whether high scores were that stage's first.
        labeled: what is annotated already.
        remarks: what the user should know of the choice, of all stages so far.
        is_whole: whether `rows` are all of `source` in its own order.
    """

    source: Pool
    rows: Tensor
    scores: Tensor
    descending: bool = True
    labeled: Pool | None = None
    remarks: tuple[str, ...] = ()
    is_whole: bool = False

    @classmethod
    def everything(cls, pool: Pool, labeled: Pool | None) -> Kept:
        """All frames of a pool, before the first stage."""
        unscored = torch.tensor(torch.nan, dtype=torch.float64, device=pool.device).expand(len(pool))
        return cls(pool, torch.arange(len(pool), device=pool.device), unscored, labeled=labeled, is_whole=True)

    @cached_property
    def pool(self) -> Pool:
        """The F frames that are kept; copied only if another stage looks at them."""
        return self.source if self.is_whole else self.source.take(self.rows)

    def weights(self) -> Tensor | None:
        """(F,) non-negative, higher = more informative: the scores, mirrored if low ones came first.

        0 for a frame that was not scored; None if no frame was.
        """
        known = ~self.scores.isnan()
        if not bool(known.any()):
            return None
        low, high = torch.aminmax(self.scores[known])
        weights = self.scores if self.descending else low + high - self.scores
        return torch.where(known, weights - low.clamp_max(0), 0)


def run_stages(
    pool: Pool,
    stages: DetectionSampling | Sequence[DetectionSampling],
    *,
    labeled: Pool | None = None,
    labeled_counts: Mapping[int, float] | None = None,
) -> tuple[Tensor, Tensor, tuple[DetectionSampling, ...]]:
    """Choose frames, stage by stage, and warn of what the user should know of the choice.

    Args:
        pool: F frames.
        stages: one, or a sequence of one or more.
        labeled: frames that are annotated already, extracted by the same model: diversity strategies that can, stay
            away from them, and stages that balance classes count theirs.
        labeled_counts: annotated objects by label, for these stages to count by instead.

    Returns:
        `rows` (n,) int64 of the pool in rank order, on its device; `scores` (n,) float64 of the last stage that
        scored frames, NaN for frames that none scored; the stages.

    Raises:
        InvalidInputError: no frames or no stages; an unknown strategy; a column missing;
            a frame in both pools; classes to be balanced, and nothing to count.
    """
    kept, ran = narrowed(pool, stages, labeled=labeled, labeled_counts=labeled_counts)
    for remark in kept.remarks:
        warn_user(remark)
    return kept.rows, kept.scores, ran


def narrowed(
    pool: Pool,
    stages: DetectionSampling | Sequence[DetectionSampling],
    *,
    labeled: Pool | None = None,
    labeled_counts: Mapping[int, float] | None = None,
) -> tuple[Kept, tuple[DetectionSampling, ...]]:
    """What `run_stages` chooses, with remarks in place of warnings; and the stages."""
    ran = checked_stages(stages)
    if len(pool) == 0:
        raise InvalidInputError("`pool` must hold at least one frame to choose from; got none")
    check_apart(pool.frame_ids, labeled)
    counts = counts_for(ran, labeled=labeled, labeled_counts=labeled_counts)
    return narrow(Kept.everything(pool, labeled), ran, counts), ran


def narrow(kept: Kept, stages: Sequence[DetectionSampling], counts: Mapping[int, float] | None) -> Kept:
    """Run checked stages, one after another, on what was kept before; `counts` are the annotated objects by label."""
    for stage in stages:
        kept = _run_stage(kept, with_known_weights(stage, kept.pool, counts))
    return kept


def _run_stage(kept: Kept, stage: DetectionSampling) -> Kept:
    pool, strategy = kept.pool, find_strategy(stage.selection_strategy)
    new_spacing = None
    if stage.min_distance is not None:
        new_spacing = partial(Spacing, pool, stage.min_distance, labeled=kept.labeled)
    scores, descending = kept.scores, kept.descending
    if strategy.is_diversity:
        chosen = _diverse_choice(kept, stage, strategy, new_spacing)
    else:
        scored = score_frames(pool, stage)
        if strategy.scores_frames:
            scores, descending = scored.scores, stage.descending
        chosen = ranked_choice(scored, stage, new_spacing=new_spacing)
    return replace(
        kept,
        rows=kept.rows[chosen.rows],
        is_whole=False,
        scores=chosen.scores_from(scores),
        descending=descending,
        remarks=kept.remarks + chosen.remarks,
    )


def _diverse_choice(
    kept: Kept, stage: DetectionSampling, strategy: Strategy, new_spacing: Callable[[], Spacing] | None
) -> Chosen:
    pool = kept.pool
    check_labels(pool, stage)
    apart = SetApart.of(pool.is_empty, pool.frame_ids, stage)
    competing = torch.arange(len(pool), device=pool.device) if apart.competing is None else apart.competing
    by_id, passed = rows_by_id(pool.frame_ids, competing), competing[:0]
    if new_spacing is not None:
        by_id, passed = _thinned(by_id, kept.weights(), new_spacing())
    first = _first_of_diversity(kept, stage, strategy, by_id, passed)
    costs, shown = bounds_of(pool, stage)
    return bounded_choice(first, apart, stage, costs=costs, shown=shown, new_spacing=new_spacing)


def _thinned(by_id: Tensor, weights: Tensor | None, spacing: Spacing) -> tuple[Tensor, Tensor]:
    """Those of the rows that keep a distance, the most informative first to be asked; and those passed over."""
    order = by_id if weights is None else by_id[(-weights[by_id]).argsort(stable=True)]
    far = torch.tensor(list(spacing.pass_over(order)), dtype=torch.int64, device=by_id.device)
    return by_id[torch.isin(by_id, far)], order[~torch.isin(order, far)]


def _first_of_diversity(
    kept: Kept, stage: DetectionSampling, strategy: Strategy, by_id: Tensor, passed: Tensor
) -> Callable[[int], Tensor]:
    """From a number to so many rows: chosen among `by_id` by diversity, and filled up from those `passed` over."""
    choose = _diversity(kept, stage, strategy, by_id) if len(by_id) else None
    longest = by_id[:0]

    @cache
    def first(n: int) -> Tensor:
        nonlocal longest
        m = min(n, len(by_id))
        if choose is not None and (m > len(longest) or not strategy.greedy):
            longest = by_id[choose(m)] if m else by_id[:0]
        return torch.cat([longest[:m], passed[: n - m]])

    return first


def _diversity(kept: Kept, stage: DetectionSampling, strategy: Strategy, by_id: Tensor) -> Callable[[int], Tensor]:
    """The diversity strategy of the stage: from a number to so many positions in `by_id`."""
    if strategy.function is None:
        raise InvalidInputError(f"{strategy.name!r} has no function to choose frames with")
    frames, weights = kept.pool.take(by_id), kept.weights()
    weights = None if weights is None else weights[by_id]
    if strategy.sees == "boxes":
        return partial(strategy.function, frames, seed=stage.seed, labeled=kept.labeled, weights=weights)
    choose = strategy.function
    if strategy.takes_clusters:
        choose = partial(choose, num_of_clusters=stage.num_of_clusters)
    descriptors, labeled = descriptors_beside(frames, kept.labeled)
    return partial(choose, descriptors, seed=stage.seed, labeled=labeled, weights=weights)
