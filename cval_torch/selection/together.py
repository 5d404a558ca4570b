"""One choice by many processes, each of which has a share of the frames in memory.

A stage that scores each frame by its own boxes needs no pool in one place: each process scores its share, and what
travels of a frame is what `Scored` holds of it, some thirty bytes. The choice is made from these, on rank 0, by the
code that makes it in one process. Only the frames that it keeps bring their boxes and embeddings together, for the
stages that follow. Where the first stage must see all frames at once (a diversity strategy, a callable, or one with a
`min_distance`), rank 0 gathers them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch

from cval_torch.errors import warn_user
from cval_torch.pool.gathering import gather_pools
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.backend import Backend, Selection
from cval_torch.selection.checks import check_apart, checked_stages
from cval_torch.selection.class_weights import counts_for, with_known_weights
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.scored import Chosen, Scored, ranked_choice, score_frames
from cval_torch.selection.stage import ClassWeights, DetectionSampling
from cval_torch.selection.stages import Kept, narrow
from cval_torch.strategies.registry import find_strategy


def choose_together(
    share: Pool, places: Sequence[int], stages: Sequence[DetectionSampling], backend: Backend, ranks: Ranks
) -> tuple[Selection, Pool]:
    """Choose from the frames of all processes, as one process would that had them all; every process must call this.

    Args:
        share: this process's frames; all processes have the same columns.
        places: for each of them its row in the whole.
        stages: one or more.
        backend: what chooses, on rank 0.
        ranks: the processes.

    Returns:
        In every process the selection, whose rows are those of the pool beside it: the chosen frames in rank order,
        without embeddings.

    Raises:
        Exception: whatever the choice raised, on rank 0.
        RankError: on the others.
    """
    if type(backend) is LocalBackend and stages and _scores_each_frame(stages[0]):
        chosen = _from_scores(share, places, stages, backend, ranks)
    else:
        whole = gather_pools(share, places, ranks, to=0)
        chosen = ranks.from_rank_zero(lambda: picked(backend.select(whole, stages), whole))
    selection, pool = chosen
    return replace(selection, stages=tuple(stages)), pool


def picked(selection: Selection, pool: Pool) -> tuple[Selection, Pool]:
    """A selection with its frames for a pool, in a form that travels: no stages, which may hold any callable."""
    chosen = pool.replace(box_embeddings=None, frame_embeddings=None).take(selection.rows)
    return replace(selection, rows=torch.arange(len(selection)), stages=()), chosen


def _scores_each_frame(stage: DetectionSampling) -> bool:
    """Whether the stage's score of a frame depends on nothing but that frame's boxes, for certain."""
    if callable(stage.selection_strategy) or callable(stage.bbox_selection_policy) or stage.min_distance is not None:
        return False
    strategy = find_strategy(stage.selection_strategy)
    return strategy.scores_boxes or strategy.sees == "nothing"


def _from_scores(
    share: Pool, places: Sequence[int], stages: Sequence[DetectionSampling], backend: LocalBackend, ranks: Ranks
) -> tuple[Selection, Pool]:
    first, *others = ranks.exchange_local(lambda: checked_stages(stages))
    first = _with_weights_of_rank_zero(first, share, backend, ranks)
    scored = ranks.exchange_local(lambda: score_frames(share, first))
    whole = _gathered(scored, places, ranks)

    def choose() -> Chosen:
        check_apart(whole.frame_ids, backend.labeled)
        return ranked_choice(whole, first)

    chosen = ranks.from_rank_zero(choose)
    own_rows = {place: row for row, place in enumerate(places)}
    mine = [(rank, own_rows[place]) for rank, place in enumerate(chosen.rows.tolist()) if place in own_rows]
    bringing = share if others else share.replace(box_embeddings=None, frame_embeddings=None)
    pool = gather_pools(bringing.take([row for _, row in mine]), [rank for rank, _ in mine], ranks, to=0)

    def go_on() -> tuple[Selection, Pool]:
        kept = replace(
            Kept.everything(pool, backend.labeled),
            scores=chosen.scores_from(whole.scores),
            descending=first.descending or find_strategy(first.selection_strategy).sees == "nothing",
            remarks=chosen.remarks,
        )
        kept = narrow(kept, others, _counts_for(others, backend))
        for remark in kept.remarks:
            warn_user(remark)
        return picked(Selection.of(pool, kept.rows, kept.scores, (), remarks=kept.remarks), pool)

    return ranks.from_rank_zero(go_on)


def _gathered(scored: Scored, places: Sequence[int], ranks: Ranks) -> Scored:
    """The frames of all processes in the order of the whole, on rank 0; on the others this process's own."""
    parts = ranks.exchange(lambda: (scored, list(places)))
    if ranks.rank != 0:
        return scored
    order = torch.tensor([place for _, own in parts for place in own], dtype=torch.int64)
    return Scored.cat([part for part, _ in parts]).take(order.argsort())


def _with_weights_of_rank_zero(
    stage: DetectionSampling, share: Pool, backend: LocalBackend, ranks: Ranks
) -> DetectionSampling:
    """The stage, with rank 0's class weights: what a process saw in training, or knows to be annotated, may differ."""
    if stage.class_weights is None:
        return stage

    def known() -> tuple[ClassWeights | Literal["balanced"] | None, Mapping[int, float] | None]:
        return stage.class_weights, _counts_for([stage], backend)

    weights, counts = ranks.from_rank_zero(known)
    return with_known_weights(stage.model_copy(update={"class_weights": weights}), share, counts)


def _counts_for(stages: Sequence[DetectionSampling], backend: LocalBackend) -> dict[int, float] | None:
    return counts_for(stages, labeled=backend.labeled, labeled_counts=backend.labeled_counts)
