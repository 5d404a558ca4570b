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

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from cval_torch.class_weights import counts_for, with_known_weights
from cval_torch.constraints import RankedRows, check_columns, filled, warn_of_choice
from cval_torch.costs import estimated_boxes, largest_fitting, within
from cval_torch.diversity import CLUSTERED, DIVERSITIES, EMBEDDED, GREEDY, IN_PROCESS, POOL_DIVERSITIES
from cval_torch.diversity.descriptor import descriptors_beside
from cval_torch.diversity.spacing import Spacing
from cval_torch.errors import InvalidInputError
from cval_torch.pool import Pool
from cval_torch.ranking import best_rows, check_weights, stage_name
from cval_torch.scores import UNCERTAINTIES
from cval_torch.wire import DetectionSampling

KNOWN_STRATEGIES = (*UNCERTAINTIES, "probability", *DIVERSITIES, *POOL_DIVERSITIES, "random")
"""The names that a stage may have in process."""

SERVED_STRATEGIES = tuple(name for name in KNOWN_STRATEGIES if name not in IN_PROCESS)
"""Those that a server of one's own has too."""


def run_stages(
    pool: Pool,
    stages: DetectionSampling | Sequence[DetectionSampling],
    *,
    labeled: Pool | None = None,
    labeled_counts: Mapping[int, float] | None = None,
) -> tuple[Tensor, Tensor, tuple[DetectionSampling, ...]]:
    """Choose frames, stage by stage.

    Args:
        pool: F frames.
        stages: one, or a sequence of one or more. `dataset_id`, which is for the wire, is ignored.
        labeled: frames that are annotated already, extracted by the same model: diversity strategies that can, stay
            away from them, and stages that balance classes count theirs.
        labeled_counts: annotated objects by label, for these stages to count by instead.

    Returns:
        `rows` (n,) int64 of the pool in rank order, on its device; `scores` (n,) float64 of the last stage that
        scored frames, NaN for frames that none scored; the stages.

    Raises:
        InvalidInputError: no frames or no stages; `frames` set on a stage; an unknown strategy; a column missing;
            a frame in both pools; classes to be balanced, and nothing to count.
    """
    ran = checked_stages(stages)
    if len(pool) == 0:
        raise InvalidInputError("`pool` must hold at least one frame to choose from; got none")
    _check_apart(pool, labeled)
    counts = counts_for(ran, labeled=labeled, labeled_counts=labeled_counts)
    unscored = torch.tensor(torch.nan, dtype=torch.float64, device=pool.device).expand(len(pool))
    rows: Tensor | None = None
    kept = _Kept(pool, unscored, descending=True, labeled=labeled)
    for number, stage in enumerate(ran):
        warn_if_too_many(kept.pool, stage, stacklevel=4)
        chosen, scores = _run_stage(kept, with_known_weights(stage, kept.pool, counts))
        warn_of_choice(kept.pool, stage, chosen, labeled=labeled, stacklevel=4)
        rows = chosen if rows is None else rows[chosen]
        if number == len(ran) - 1:
            break
        descending = stage.descending if _scores(stage) else kept.descending
        kept = _Kept(kept.pool.take(chosen), scores, descending=descending, labeled=labeled)
    return rows, scores, ran  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class _Kept:
    """What a stage hands to the next one.

    Attributes:
        pool: the frames that it kept.
        scores: (F,) float64, their scores from the last stage that scored; NaN for frames that none scored.
        descending: whether high scores were that stage's first.
        labeled: what is annotated already.
    """

    pool: Pool
    scores: Tensor
    descending: bool
    labeled: Pool | None

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


def checked_stages(stages: DetectionSampling | Sequence[DetectionSampling]) -> tuple[DetectionSampling, ...]:
    """The stages as a tuple, each of which can be run in process.

    Raises:
        InvalidInputError: no stages, `frames` set on one, a strategy that is not known, or weights of classes with
            one that has no use for them.
    """
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
        check_weights(stage)
        check_quotas(number, stage)
    return ran


def check_quotas(number: int, stage: DetectionSampling) -> None:
    """Raise an `InvalidInputError` if the stage has `class_quotas` that its strategy cannot keep."""
    if stage.class_quotas is not None and stage.selection_strategy in EMBEDDED:
        raise InvalidInputError(
            f"`class_quotas` are for stages that rank, and `random`; got them with {stage.selection_strategy!r} in "
            f"stage {number}: give them to a stage before or after it"
        )


def _run_stage(kept: _Kept, stage: DetectionSampling) -> tuple[Tensor, Tensor]:
    """The chosen rows of `kept.pool` in rank order, and their frame scores, new ones or those handed on."""
    pool = kept.pool
    empty = pool.offsets[1:] == pool.offsets[:-1]
    if not stage.use_null_detections and bool(empty.any()):
        frame_id = pool.frame_ids[int(empty.nonzero()[0])]
        raise InvalidInputError(f"use_null_detections=False, but frame {frame_id!r} has no boxes")
    apart = stage.null_policy != "protocol" and bool(empty.any())
    nulls = empty.nonzero().squeeze(1) if apart else torch.empty(0, dtype=torch.int64, device=pool.device)
    if stage.null_policy == "skip" and len(nulls) == len(pool):
        raise InvalidInputError(
            f"null_policy='skip' leaves nothing to choose from: none of the {len(pool)} frames has boxes"
        )
    among = (~empty).nonzero().squeeze(1) if apart else None
    n = len(pool) if stage.num_of_samples is None else min(stage.num_of_samples, len(pool))
    if stage.constrained:
        rows, scores, filling = _choose_within(kept, stage, n, nulls, among=among)
    else:
        seen, share = _parts(pool, stage, n, nulls)
        rows, scores = _choose(kept, stage, seen, among=among)
        filling = _null_order(pool, stage, nulls)[:share]
    return torch.cat([rows, filling]), torch.cat([scores, scores.new_full((len(filling),), torch.nan)])


def _parts(pool: Pool, stage: DetectionSampling, n: int, nulls: Tensor) -> tuple[int, int]:
    """How many of a choice of `n` are not set apart by the null policy, and how many of those set apart follow."""
    seen = len(pool) - len(nulls)
    share = {
        "sample": (n * len(nulls) + len(pool) // 2) // len(pool),
        "last": max(n - seen, 0),
    }.get(stage.null_policy, 0)
    return min(n - share, seen), share


def _null_order(pool: Pool, stage: DetectionSampling, nulls: Tensor) -> Tensor:
    """The frames that the null policy set apart, in the order in which they join a choice."""
    by_id = nulls[_order_of_ids(pool, nulls)]
    return by_id[_shuffled(len(nulls), stage.seed).to(by_id.device)] if stage.null_policy == "sample" else by_id


def _choose(kept: _Kept, stage: DetectionSampling, n: int, *, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`n` rows, of all or of those `among`, in rank order, and their scores."""
    pool = kept.pool
    if n == 0:
        return torch.empty(0, dtype=torch.int64, device=pool.device), kept.scores[:0]
    if _scores(stage):
        return best_rows(pool, stage, n, among=among)
    by_id = _by_id(pool, among)
    if stage.selection_strategy == "random":
        picked = by_id[_shuffled(len(by_id), stage.seed)[:n].to(by_id.device)]
    else:
        picked = by_id[_diversity(kept, stage, by_id)(n)]
    return picked, kept.scores[picked]


def _choose_within(
    kept: _Kept, stage: DetectionSampling, n: int, nulls: Tensor, *, among: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """At most `n` rows within the constraints of the stage: the chosen ones, their scores, and those of `nulls`."""
    pool = kept.pool
    check_columns(pool, stage)
    scores = kept.scores.clone()

    def ranked(count: int) -> Tensor:
        rows, scores_of_rows = _choose(kept, stage, count, among=among)
        scores[rows] = scores_of_rows
        return rows

    if not _scores(stage) and stage.selection_strategy != "random":
        first = _diverse_rows(kept, stage, among)
    else:
        first = RankedRows(pool, stage, ranked, len(pool) - len(nulls), labeled=kept.labeled).first
    if stage.num_of_boxes is not None:
        budget, costs = stage.num_of_boxes, estimated_boxes(pool)
        n = largest_fitting(
            lambda count: within(costs[first(_parts(pool, stage, count, nulls)[0])], budget),
            n,
            guess=int(min(budget / max(float(costs.mean()), 1e-9), n)),
        )
    seen, share = _parts(pool, stage, n, nulls)
    rows, filling = first(seen), _null_order(pool, stage, nulls)
    if stage.min_distance is not None and share:
        spacing = Spacing(pool, stage.min_distance, labeled=kept.labeled)
        spacing.take(rows)
        filling = filled(spacing, filling, share)
    return rows, scores[rows], filling[:share]


def _diverse_rows(kept: _Kept, stage: DetectionSampling, among: Tensor | None) -> Callable[[int], Tensor]:
    """The choice of so many rows by diversity, among frames thinned to the `min_distance` of the stage."""
    pool = kept.pool
    by_id = _by_id(pool, among)
    passed = by_id[:0]
    if stage.min_distance is not None:
        weights = kept.weights()
        order = by_id if weights is None else by_id[(-weights[by_id]).argsort(stable=True)]
        far = list(Spacing(pool, stage.min_distance, labeled=kept.labeled).pass_over(order))
        is_far = torch.zeros(len(pool), dtype=torch.bool, device=pool.device)
        is_far[far] = True
        by_id, passed = by_id[is_far[by_id]], order[~is_far[order]]
    choose = _diversity(kept, stage, by_id) if len(by_id) else None
    greedy = stage.selection_strategy in GREEDY
    longest = by_id[:0]

    @cache
    def first(n: int) -> Tensor:
        nonlocal longest
        m = min(n, len(by_id))
        if choose is not None and (m > len(longest) or not greedy):
            longest = by_id[choose(m)] if m else by_id[:0]
        return torch.cat([longest[:m], passed[: n - m]])

    return first


def _diversity(kept: _Kept, stage: DetectionSampling, by_id: Tensor) -> Callable[[int], Tensor]:
    """The diversity strategy of the stage: from a number to so many positions in `by_id`."""
    strategy = str(stage.selection_strategy)
    frames, weights = kept.pool.take(by_id), kept.weights()
    weights = None if weights is None else weights[by_id]
    if strategy in POOL_DIVERSITIES:
        return partial(POOL_DIVERSITIES[strategy], frames, seed=stage.seed, labeled=kept.labeled, weights=weights)
    choose = DIVERSITIES[strategy]
    if strategy in CLUSTERED:
        choose = partial(choose, num_of_clusters=stage.num_of_clusters)
    descriptors, labeled = descriptors_beside(frames, kept.labeled)
    return partial(choose, descriptors, seed=stage.seed, labeled=labeled, weights=weights)


def _scores(stage: DetectionSampling) -> bool:
    """Whether the stage gives frames a score, and ranks by it."""
    strategy = stage.selection_strategy
    return callable(strategy) or strategy == "probability" or strategy in UNCERTAINTIES


def _by_id(pool: Pool, among: Tensor | None) -> Tensor:
    """All rows, or those `among`, in the order of their frame ids."""
    rows = torch.arange(len(pool), device=pool.device) if among is None else among
    return rows[_order_of_ids(pool, rows)]


def _order_of_ids(pool: Pool, rows: Tensor) -> Tensor:
    """(len(rows),) positions in `rows`, in the order of their frame ids."""
    ids = [pool.frame_ids[row] for row in rows.tolist()]
    return torch.tensor(sorted(range(len(ids)), key=ids.__getitem__), dtype=torch.int64, device=rows.device)


def _shuffled(n: int, seed: int) -> Tensor:
    """A permutation of `range(n)`, drawn on the CPU so that a GPU gives the same one."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _check_apart(pool: Pool, labeled: Pool | None) -> None:
    both = set() if labeled is None else set(labeled.frame_ids).intersection(pool.frame_ids)
    if both:
        raise InvalidInputError(
            f"`labeled` frames cannot be chosen again: leave them out of `pool`; {min(both)!r} is in both"
        )


def warn_if_too_many(pool: Pool, stage: DetectionSampling, *, stacklevel: int) -> None:
    """Say so if a stage asks for more frames than there are, at the caller `stacklevel` frames up."""
    frames, of = len(pool), "frames there are"
    if stage.null_policy == "skip":
        frames = int((pool.counts > 0).sum())
        of = "frames with boxes, which null_policy='skip' leaves" if frames < len(pool) else of
    if stage.num_of_samples is not None and stage.num_of_samples > frames > 0:
        asked = f"num_of_samples={stage.num_of_samples}"
        warnings.warn(
            f"the stage {stage_name(stage)!r} keeps all {frames} {of}: fewer than {asked}",
            UserWarning,
            stacklevel=stacklevel,
        )
