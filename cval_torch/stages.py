"""Stages: fold a list of `DetectionSampling` over a `Pool`, each choosing among the frames that the last one kept.

Scores live in float64, ties go to the smaller frame id, and everything random starts from frames in the order of
their ids: the choice is the same whatever the order in which a loader brought the frames.

What one stage hands to the next is the frames, and the last frame scores, which a later diversity stage may use as
weights. The rank of the result is the last stage's own: by score for a scoring stage, by the method's order for a
diversity stage. So after `entropy` to 2000 and `clustering` to 200, the first frame is the most typical one of the
largest cluster, and `scores` still tells its entropy.
"""

from __future__ import annotations

import heapq
import itertools
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool import Pool
from cval_torch.reduce import REDUCTIONS
from cval_torch.scores import UNCERTAINTIES, class_distribution, distribution_weights, doubt, entropy
from cval_torch.wire import DetectionSampling

# Elements of a column that are worked on at a time: small enough to stay in a CPU's cache, large enough for the
# cost of a call not to matter. A GPU wants more.
_CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**25}


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


def frame_scores(pool: Pool, stage: DetectionSampling) -> Tensor:
    """One score a frame, from its boxes' uncertainties and the stage's `bbox_selection_policy`.

    A frame without boxes counts as one box of score 0.5 (`probability`: 0), whatever the pool's columns.

    Args:
        pool: F frames; needs `probabilities` or `scores` (`probability`: `scores`), unless no frame has boxes.
        stage: its strategy must be an uncertainty or a callable `Pool -> (F,)`, which scores frames by itself.

    Returns:
        (F,) float64. For a name without `probs_weights`, boxes lie in [0, 1] (see `scores`), higher = more
        uncertain, but `probability` is the confidence: higher = surer.

    Raises:
        InvalidInputError: a missing column; `probs_weights` where they mean nothing or of a wrong length; a
            callable's result of a wrong shape or not finite.
    """
    if callable(stage.selection_strategy):
        return _checked(stage.selection_strategy(pool), pool, stage.selection_strategy, "selection_strategy")
    strategy = stage.selection_strategy
    _check_can_score(pool, stage)
    null_score = 0.0 if strategy == "probability" else 1.0
    policy = stage.bbox_selection_policy or "max"
    counts = pool.counts
    if callable(policy):
        boxes = [_box_scores(pool, begin, end, stage) for begin, end in _chunks(pool)]
        values, offsets = _with_null_boxes(torch.cat(boxes).double(), counts, null_score)
        return _checked(policy(values, offsets), pool, policy, "bbox_selection_policy")
    reduced = torch.empty(len(pool), dtype=torch.float64, device=pool.device)
    # the uncertainty of a confidence is a rising function of `doubt`: under min and max it waits for the frames
    late = policy in ("min", "max") and pool.probabilities is None and strategy in UNCERTAINTIES
    for begin, end in _chunks(pool):
        offsets = pool.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        boxes_of_chunk = (
            doubt(pool.scores[first:last]) if late and pool.scores is not None else _box_scores(pool, begin, end, stage)
        )
        reduced[begin:end] = REDUCTIONS[policy](boxes_of_chunk, offsets - first)
    if late:
        reduced = UNCERTAINTIES[strategy](reduced)
    return reduced.masked_fill_(counts == 0, null_score)


def rank_rows(scores: Tensor, frame_ids: Sequence[str], n: int, *, descending: bool) -> list[int]:
    """The `n` first rows by score, ties by frame id, in rank order.

    Only the n chosen are sorted, and ids are compared only among ties.

    Args:
        scores: (F,) finite.
        frame_ids: F ids.
        n: at most F.
        descending: whether high scores come first.
    """
    keys = -scores if descending else scores
    if n < len(keys):
        threshold = keys.kthvalue(n).values if n > 0 else keys.new_tensor(-torch.inf)
        chosen = (keys < threshold).nonzero().squeeze(1).tolist()
        tied = (keys == threshold).nonzero().squeeze(1).tolist()
        chosen += heapq.nsmallest(n - len(chosen), tied, key=frame_ids.__getitem__)
    else:
        chosen = list(range(len(keys)))
    key_of = dict(zip(chosen, keys[torch.tensor(chosen, dtype=torch.int64, device=keys.device)].tolist(), strict=True))
    return sorted(chosen, key=lambda row: (key_of[row], frame_ids[row]))


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
    return strategy if isinstance(strategy, str) else _callable_name(strategy)


def _callable_name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _check_can_score(pool: Pool, stage: DetectionSampling) -> None:
    strategy = stage.selection_strategy
    if stage.probs_weights is not None and strategy != "entropy":
        raise InvalidInputError(f"`probs_weights` weigh the terms of the `entropy`; got them with {strategy!r}")
    if pool.num_boxes == 0:
        return
    if strategy == "probability" and pool.scores is None:
        raise InvalidInputError(
            "`probability` needs the column `scores`, which extract() and payloads with `score` give"
        )
    if pool.probabilities is None and pool.scores is None:
        raise InvalidInputError(
            f"{strategy!r} needs the column `probabilities` or `scores`: extract() gives both, a payload one of them"
        )
    if pool.probabilities is None and stage.probs_weights is not None:
        raise InvalidInputError(
            "`probs_weights` need the column `probabilities`: extract(..., probabilities=True), or a payload's"
        )


def _box_scores(pool: Pool, begin: int, end: int, stage: DetectionSampling) -> Tensor:
    """(b,) scores of the boxes of the frames `begin:end`."""
    first, last = int(pool.offsets[begin]), int(pool.offsets[end])
    strategy = str(stage.selection_strategy)
    if strategy == "probability" or pool.probabilities is None or pool.activation is None:
        if pool.scores is None:
            return torch.empty(0, device=pool.device)
        scores = pool.scores[first:last]
        return scores if strategy == "probability" else UNCERTAINTIES[strategy](scores)
    probabilities = pool.probabilities[first:last]
    distribution = class_distribution(probabilities, pool.activation)
    if stage.probs_weights is None:
        return UNCERTAINTIES[strategy](distribution)
    weights = distribution_weights(stage.probs_weights, probabilities.shape[1], pool.activation)
    return entropy(distribution, weights=torch.tensor(weights, device=pool.device))


def _chunks(pool: Pool) -> Iterator[tuple[int, int]]:
    """Ranges of frames that together are the pool, with a bounded number of box numbers each, or of one frame."""
    width = 1 if pool.probabilities is None else max(pool.probabilities.shape[1], 1)
    elements = _CHUNK_ELEMENTS["cpu" if pool.device.type == "cpu" else "cuda"]
    boxes = max(elements // width, 1)
    targets = torch.tensor(range(boxes, pool.num_boxes, boxes), dtype=torch.int64, device=pool.device)
    holding = torch.searchsorted(pool.offsets, targets, right=True).sub_(1)  # the frame that holds each target box
    cuts = sorted({*holding.clamp_min_(1).tolist(), 0, len(pool)})
    yield from itertools.pairwise(cuts)


def _with_null_boxes(values: Tensor, counts: Tensor, null_score: float) -> tuple[Tensor, Tensor]:
    """Give each frame without boxes one box of `null_score`, so that a policy never meets an empty frame."""
    offsets = torch.cat([counts.new_zeros(1), counts.clamp_min(1).cumsum(0)])
    filled = values.new_full((int(offsets[-1]),), null_score)
    filled[(counts > 0).repeat_interleave(counts.clamp_min(1))] = values
    return filled, offsets


def _checked(result: object, pool: Pool, function: object, field: str) -> Tensor:
    """What a user's callable returned, as (F,) float64."""
    name = f"the {field} {_callable_name(function)!r}"
    try:
        scores = torch.as_tensor(result, dtype=torch.float64, device=pool.device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{name} must return (F,) numbers; got {type(result).__name__}") from error
    if scores.shape != (len(pool),):
        raise InvalidInputError(f"{name} must return (F,) with F={len(pool)} frames; got {tuple(scores.shape)}")
    bad = (~scores.isfinite()).nonzero()
    if len(bad):
        row = int(bad[0])
        raise InvalidInputError(
            f"{name} must return finite numbers; got {scores[row].item()} for {pool.frame_ids[row]!r}"
        )
    return scores
