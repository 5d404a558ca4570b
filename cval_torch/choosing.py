"""One choice by many processes, each of which has a share of the frames in memory.

A stage that scores each frame by its own boxes needs no pool in one place: each process scores its share, and what
travels of a frame is its id, its score and whether it has boxes, some thirty bytes; under a budget in boxes or quotas
of classes the scores and labels of its boxes too. The choice is made from these, on rank 0, by the very code that makes
it in one process, and only the frames it keeps bring their boxes and embeddings together, for the stages that follow. A
first stage that must see all frames at once, a diversity strategy, a callable or one with a `min_distance`, has rank 0
gather them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from cval_torch.backends.base import Backend, Selection
from cval_torch.backends.local import LocalBackend
from cval_torch.class_weights import counts_for, with_known_weights
from cval_torch.costs import estimated_boxes
from cval_torch.distributed import Ranks
from cval_torch.pool import Pool, offsets_of
from cval_torch.ranking import frame_scores
from cval_torch.scores import UNCERTAINTIES
from cval_torch.sharing import gather_pools
from cval_torch.wire import CONSTRAINTS, ClassWeights, DetectionSampling


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
    if type(backend) is LocalBackend and stages and _is_by_frame(stages[0]):
        chosen = _by_frame(share, places, stages, backend, ranks)
    else:
        whole = gather_pools(share, places, ranks, to=0)
        chosen = ranks.from_rank_zero(lambda: picked(backend.select(whole, stages), whole))
    selection, pool = chosen
    return replace(selection, stages=tuple(stages)), pool


def picked(selection: Selection, pool: Pool) -> tuple[Selection, Pool]:
    """A selection with its frames for a pool, in a form that travels: no stages, which may hold any callable."""
    chosen = pool.replace(box_embeddings=None, frame_embeddings=None).take(selection.rows)
    return replace(selection, rows=torch.arange(len(selection)), stages=()), chosen


def _is_by_frame(stage: DetectionSampling) -> bool:
    """Whether the stage's score of a frame depends on nothing but that frame's boxes, for certain."""
    if callable(stage.selection_strategy) or callable(stage.bbox_selection_policy) or stage.min_distance is not None:
        return False
    return stage.selection_strategy in {*UNCERTAINTIES, "probability", "random"}


def _by_frame(
    share: Pool, places: Sequence[int], stages: Sequence[DetectionSampling], backend: LocalBackend, ranks: Ranks
) -> tuple[Selection, Pool]:
    first, *others = stages
    first = _with_weights_of_rank_zero(first, share, backend, ranks)

    def sketch() -> Pool:
        """Of each frame its id, its score, and one box if it has any; or, where it matters what they are, all."""
        scores = torch.zeros(len(share), dtype=torch.float64)
        if first.selection_strategy != "random":
            scores = frame_scores(share, first)
        if first.num_of_boxes is not None or first.class_quotas is not None:
            return Pool(
                share.frame_ids,
                share.offsets,
                scores=share.scores,
                labels=share.labels,
                frame_embeddings=scores[:, None],
            )
        return Pool(share.frame_ids, offsets_of((share.counts > 0).long()), frame_embeddings=scores[:, None])

    sketched = gather_pools(ranks.exchange_local(sketch), places, ranks, to=0)

    def choose() -> Selection:
        stage = _by_known(first, sketched.frame_embeddings)
        return replace(backend.select(sketched, stage), stages=())

    selection = ranks.from_rank_zero(choose)
    own_rows = {place: row for row, place in enumerate(places)}
    mine = [(rank, own_rows[place]) for rank, place in enumerate(selection.rows.tolist()) if place in own_rows]
    bringing = share if others else share.replace(box_embeddings=None, frame_embeddings=None)
    kept = gather_pools(bringing.take([row for _, row in mine]), [rank for rank, _ in mine], ranks, to=0)

    def go_on() -> tuple[Selection, Pool]:
        if not others:
            rows, costs = torch.arange(len(kept)), estimated_boxes(kept)
            return replace(selection, rows=rows, indices=kept.indices, estimated_boxes=costs), kept
        all_of_them = {"num_of_samples": len(kept), **dict.fromkeys(CONSTRAINTS)}
        again = _by_known(first, selection.scores[:, None]).model_copy(update=all_of_them)
        if first.selection_strategy == "random":
            return picked(backend.select(kept, others), kept)
        return picked(backend.select(kept, [again, *others]), kept)

    return ranks.from_rank_zero(go_on)


def _with_weights_of_rank_zero(
    stage: DetectionSampling, share: Pool, backend: LocalBackend, ranks: Ranks
) -> DetectionSampling:
    """The stage, with rank 0's class weights: what a process saw in training, or knows to be annotated, may differ."""
    if stage.class_weights is None:
        return stage

    def known() -> tuple[ClassWeights | Literal["balanced"] | None, dict[int, float] | None]:
        return stage.class_weights, counts_for([stage], labeled=backend.labeled, labeled_counts=backend.labeled_counts)

    weights, counts = ranks.from_rank_zero(known)
    return with_known_weights(stage.model_copy(update={"class_weights": weights}), share, counts)


def _by_known(stage: DetectionSampling, scores: Tensor | None) -> DetectionSampling:
    """The same stage, but for the scores of the frames (F, 1), which it takes as known."""
    if stage.selection_strategy == "random" or scores is None:
        return stage

    def known(pool: Pool) -> Tensor:
        return scores[:, 0].nan_to_num()  # a frame set apart by `null_policy` was not scored, nor is it now

    known.__qualname__ = str(stage.selection_strategy)  # what a warning calls it
    direction = "descending" if stage.descending else "ascending"
    return stage.model_copy(
        update={
            "selection_strategy": known,
            "sort_strategy": direction,
            "probs_weights": None,
            "class_weights": None,
        }
    )
