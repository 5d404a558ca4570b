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
from cval_torch.pool.memory import check_fits
from cval_torch.pool.pool import Pool
from cval_torch.selection.checks import check_apart, checked_stages
from cval_torch.selection.class_weights import counts_for, with_known_weights
from cval_torch.selection.constraints import quotas_by_rarity
from cval_torch.selection.labeled import Labeled, boxes_of, contents_of
from cval_torch.selection.null_policy import SetApart
from cval_torch.selection.order import rows_by_id
from cval_torch.selection.scored import Chosen, bounded_choice, ranked_choice
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.summary import Summary
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.descriptor import Descriptors
from cval_torch.strategies.registry import find_strategy

# Strategies that compare boxes hold their embeddings in the order of ids, and as float32 units.
_COPIES_OF_BOXES = 2


@dataclass(frozen=True, eq=False)
class Kept:
    """What a stage hands to the next one, and the last one to the user.

    Attributes:
        source: the pool that the first stage was given.
        rows: (F,) int64, the rows of it that are kept, in rank order; before the first stage all of them.
        scores: (F,) float64, their scores from the last stage that scored; NaN for frames that none scored.
        descending: whether high scores were that stage's first.
        labeled: what is annotated already.
        labeled_counts: annotated objects by label, where they are known.
        remarks: what the user should know of the choice, of all stages so far.
        is_whole: whether `rows` are all of `source` in its own order.
        vectors: where the frames of `source` lie, where that is known and its embeddings are not there.
        contents: the same for strategies that see these.
    """

    source: Pool
    rows: Tensor
    scores: Tensor
    descending: bool = True
    labeled: Pool | Labeled | None = None
    labeled_counts: Mapping[int, float] | None = None
    remarks: tuple[str, ...] = ()
    is_whole: bool = False
    vectors: Descriptors | None = None
    contents: Contents | None = None

    @classmethod
    def everything(
        cls, pool: Pool, labeled: Pool | Labeled | None, labeled_counts: Mapping[int, float] | None = None
    ) -> Kept:
        """All frames of a pool, before the first stage."""
        unscored = torch.tensor(torch.nan, dtype=torch.float64, device=pool.device).expand(len(pool))
        rows = torch.arange(len(pool), device=pool.device)
        return cls(pool, rows, unscored, labeled=labeled, labeled_counts=labeled_counts, is_whole=True)

    @cached_property
    def pool(self) -> Pool:
        """The F frames that are kept; copied only if another stage looks at them."""
        return self.source if self.is_whole else self.source.take(self.rows)

    def summary(self, stage: DetectionSampling) -> Summary:
        """What a stage reads of the frames that are kept. Raises as `Summary.of` does."""
        vectors = None if self.vectors is None else self.vectors.take(self.rows).copied()
        contents = None if self.contents is None else self.contents.take(self.rows).copied()
        return Summary.of(self.pool, stage, vectors=vectors, contents=contents)

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
    labeled: Pool | Labeled | None = None,
    labeled_counts: Mapping[int, float] | None = None,
) -> tuple[Tensor, Tensor, tuple[DetectionSampling, ...]]:
    """Choose frames, stage by stage, and warn of what the user should know of the choice.

    Args:
        pool: F frames.
        stages: one, or a sequence of one or more.
        labeled: frames that are annotated already, extracted by the same model: diversity strategies that can, stay
            away from them, and stages that balance classes count theirs.
        labeled_counts: annotated objects by label, for all that count objects to count by instead.

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
    labeled: Pool | Labeled | None = None,
    labeled_counts: Mapping[int, float] | None = None,
) -> tuple[Kept, tuple[DetectionSampling, ...]]:
    """What `run_stages` chooses, with remarks in place of warnings; and the stages."""
    ran = checked_stages(stages)
    if len(pool) == 0:
        raise InvalidInputError("`pool` must hold at least one frame to choose from; got none")
    check_apart(pool.frame_ids, labeled)
    counts = counts_for(ran, labeled=labeled, labeled_counts=labeled_counts)
    return narrow(Kept.everything(pool, labeled, labeled_counts), ran, counts), ran


def narrow(kept: Kept, stages: Sequence[DetectionSampling], counts: Mapping[int, float] | None) -> Kept:
    """Run checked stages, one after another, on what was kept before; `counts` are the annotated objects by label."""
    for stage in stages:
        kept = _run_stage(kept, with_known_weights(stage, kept.pool, counts))
    return kept


def _run_stage(kept: Kept, stage: DetectionSampling) -> Kept:
    summary = kept.summary(stage)
    chosen = choose_among(
        summary, stage, labeled=kept.labeled, labeled_counts=kept.labeled_counts, weights=kept.weights()
    )
    scores, descending = kept.scores, kept.descending
    if find_strategy(stage.selection_strategy).scores_frames:
        scores, descending = summary.scored.scores, stage.descending
    return replace(
        kept,
        rows=kept.rows[chosen.rows],
        is_whole=False,
        scores=chosen.scores_from(scores),
        descending=descending,
        remarks=kept.remarks + chosen.remarks,
    )


def choose_among(
    summary: Summary,
    stage: DetectionSampling,
    *,
    labeled: Pool | Labeled | None = None,
    labeled_counts: Mapping[int, float] | None = None,
    weights: Tensor | None = None,
) -> Chosen:
    """What a stage chooses.

    Args:
        summary: of F frames, made for this stage.
        stage: the stage, checked.
        labeled: what is annotated already.
        labeled_counts: annotated objects by label, where they are known.
        weights: (F,) non-negative, how informative frames are by an earlier stage; None if there was none.

    Raises:
        InvalidInputError: see `SetApart.of`, and the strategies.
    """
    scored, strategy = summary.scored, find_strategy(stage.selection_strategy)
    new_spacing = summary.spacing(stage, labeled)
    if not strategy.is_diversity:
        return ranked_choice(scored, stage, new_spacing=new_spacing)
    apart = SetApart.of(scored.is_empty, scored.frame_ids, stage)
    everything = torch.arange(len(scored), device=scored.is_empty.device)
    competing = everything if apart.competing is None else apart.competing
    by_id, passed = rows_by_id(scored.frame_ids, competing), competing[:0]
    if new_spacing is not None:
        by_id, passed = _thinned(by_id, weights, new_spacing())
    choose = None
    if len(by_id):
        by_id_weights = None if weights is None else weights[by_id]
        choose = _diversity(summary, stage, by_id, labeled=labeled, counts=labeled_counts, weights=by_id_weights)
    first = _first_of_diversity(choose, by_id, passed, greedy=strategy.greedy)
    return bounded_choice(first, apart, stage, costs=scored.costs, shown=scored.shown, new_spacing=new_spacing)


def _thinned(by_id: Tensor, weights: Tensor | None, spacing: Spacing) -> tuple[Tensor, Tensor]:
    """Those of the rows that keep a distance, the most informative first to be asked; and those passed over."""
    order = by_id if weights is None else by_id[(-weights[by_id]).argsort(stable=True)]
    far = torch.tensor(list(spacing.pass_over(order)), dtype=torch.int64, device=by_id.device)
    return by_id[torch.isin(by_id, far)], order[~torch.isin(order, far)]


def _first_of_diversity(
    choose: Callable[[int], Tensor] | None, by_id: Tensor, passed: Tensor, *, greedy: bool
) -> Callable[[int], Tensor]:
    """From a number to so many rows: chosen among `by_id` by diversity, and filled up from those `passed` over."""
    longest = by_id[:0]

    @cache
    def first(n: int) -> Tensor:
        nonlocal longest
        m = min(n, len(by_id))
        if choose is not None and (m > len(longest) or not greedy):
            longest = by_id[choose(m)] if m else by_id[:0]
        return torch.cat([longest[:m], passed[: n - m]])

    return first


def _diversity(
    summary: Summary,
    stage: DetectionSampling,
    by_id: Tensor,
    *,
    labeled: Pool | Labeled | None,
    counts: Mapping[int, float] | None,
    weights: Tensor | None,
) -> Callable[[int], Tensor]:
    """The diversity strategy of the stage: from a number to so many positions in `by_id`."""
    strategy = find_strategy(stage.selection_strategy)
    choose = strategy.function
    if choose is None:
        raise InvalidInputError(f"{strategy.name!r} has no function to choose frames with")
    if strategy.takes_clusters:
        choose = partial(choose, num_of_clusters=stage.num_of_clusters)
    if summary.contents is not None:
        known = contents_of(labeled)
        choose = partial(choose, summary.contents.take(by_id), labeled=known, labeled_counts=counts)
        if strategy.takes_quotas and stage.class_quotas:
            found = quotas_by_rarity(summary.scored.shown, stage.class_quotas, by_id)
            choose = partial(choose, quotas=[(shows[by_id], quota) for shows, quota in found])
        return partial(choose, seed=stage.seed, weights=weights)
    if strategy.sees == "boxes" and summary.pool is not None:
        _check_boxes_fit(summary.pool, strategy.name)
        frames = boxes_of(labeled)
        return partial(choose, summary.pool.take(by_id), seed=stage.seed, labeled=frames, weights=weights)
    ours, theirs = summary.described_beside(labeled)
    around = None if theirs is None else theirs[:]
    points = ours.take(by_id) if strategy.takes_points else ours.take(by_id)[:]
    return partial(choose, points, seed=stage.seed, labeled=around, weights=weights)


def _check_boxes_fit(pool: Pool, name: str) -> None:
    """Raise a `NotEnoughMemoryError` if the embeddings of all boxes, in float32, are too much to compare them."""
    rows, width = (0, 0) if pool.box_embeddings is None else pool.box_embeddings.shape
    if pool.device.type == "cpu":
        check_fits(
            _COPIES_OF_BOXES * 4 * width * rows,
            what=f"{name!r}, which compares {rows} boxes of {len(pool)} frames,",
            remedy="Put a stage before it that scores frames, such as `entropy`, and keeps a few times as many; "
            "or compare only the best boxes of a frame, by extract(top_boxes=...)",
        )
