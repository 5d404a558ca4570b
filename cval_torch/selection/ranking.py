"""From the boxes of a pool to scores of its frames, and from scores to ranks.

Frame scores are float64, whatever the columns are, and a frame's score depends on its own boxes alone. Work goes
through the pool in bounded chunks: a million frames need little more memory than their columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, callable_name
from cval_torch.pool.offsets import chunks, offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.selection.checks import check_weights
from cval_torch.selection.class_weights import box_weights, counts_missing
from cval_torch.selection.shortlist import kth_smallest
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.columns import check_columns, columns_needed
from cval_torch.strategies.reduce import REDUCTIONS
from cval_torch.strategies.registry import find_strategy
from cval_torch.strategies.scores import box_evidence, class_distribution, distribution_weights, doubt, entropy

# Elements of a column that are worked on at a time: small enough to stay in a CPU's cache, large enough for the
# cost of a call not to matter. A GPU wants more.
_CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**25}


def frame_scores(pool: Pool, stage: DetectionSampling) -> Tensor:
    """One score a frame, from its boxes' uncertainties and the stage's `bbox_selection_policy`.

    A frame without boxes counts as one box of score 0.5 (`probability`: 0), whatever the pool's columns.

    Args:
        pool: F frames; needs `probabilities` or `scores` (`probability`: `scores`), unless no frame has boxes.
        stage: its strategy must be an uncertainty or a callable `Pool -> (F,)`, which scores frames by itself.

    Returns:
        (F,) float64. For a name without weights, boxes lie in [0, 1] (see `scores`), higher = more
        uncertain, but `probability` is the confidence: higher = surer.

    Raises:
        InvalidInputError: a missing column; `probs_weights` or `class_weights` where they mean nothing, of a wrong
            length, or not numbers yet; a callable's result of a wrong shape or not finite.
    """
    check_weights(stage)
    if callable(stage.selection_strategy):
        function = stage.selection_strategy
        return _checked(function(pool.only(columns_needed(function))), pool, function, "selection_strategy")
    strategy = find_strategy(stage.selection_strategy)
    check_can_score(pool, stage)
    policy = stage.bbox_selection_policy or "max"
    counts = pool.counts
    if callable(policy):
        boxes = [_box_scores(pool, begin, end, stage) for begin, end in _chunks(pool)]
        values, offsets = _with_null_boxes(torch.cat(boxes).double(), counts, null_score(stage))
        return _checked(policy(values, offsets), pool, policy, "bbox_selection_policy")
    reduced = torch.empty(len(pool), dtype=torch.float64, device=pool.device)
    # the uncertainty of a confidence is a rising function of `doubt`: under min and max it waits for the frames
    late = policy in ("min", "max") and pool.probabilities is None and strategy.sees == "distributions"
    late = late and stage.class_weights is None
    for begin, end in _chunks(pool):
        offsets = pool.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        boxes_of_chunk = (
            doubt(pool.scores[first:last]) if late and pool.scores is not None else _box_scores(pool, begin, end, stage)
        )
        reduced[begin:end] = REDUCTIONS[policy](boxes_of_chunk, offsets - first)
    if late:
        reduced = strategy.box_scores(reduced)
    return reduced.masked_fill_(counts == 0, null_score(stage))


def rank_rows(scores: Tensor, frame_ids: Sequence[str], n: int, *, descending: bool) -> list[int]:
    """The `n` first rows by score, ties by frame id, in rank order.

    Only the n chosen are sorted, and ids are looked at only among ties.

    Args:
        scores: (F,) finite.
        frame_ids: F ids.
        n: 1 to F.
        descending: whether high scores come first.
    """
    return rank_some(torch.arange(len(scores), device=scores.device), scores, frame_ids, n, descending=descending)


def rank_some(rows: Tensor, scores: Tensor, frame_ids: Sequence[str], n: int, *, descending: bool) -> list[int]:
    """The same of some rows alone: (M,) int64, n at most M."""
    keys = -scores[rows] if descending else scores[rows]
    if n < len(keys):
        threshold = kth_smallest(keys, n)
        before, tied = rows[keys < threshold], rows[keys == threshold].tolist()
        if len(before) + len(tied) > n:
            ids = [frame_ids[row] for row in tied]
            last = sorted(ids)[n - len(before) - 1]
            tied = [row for row, frame_id in zip(tied, ids, strict=True) if frame_id <= last]
        rows = torch.cat([before, torch.tensor(tied, dtype=torch.int64, device=rows.device)])
    values, order = (-scores[rows] if descending else scores[rows]).sort(stable=True)
    ranked = rows[order].tolist()
    begins = [0, *((values.diff() != 0).nonzero().squeeze(1) + 1).tolist()]
    for begin, end in itertools.pairwise([*begins, n]):
        if end - begin > 1:
            ranked[begin:end] = sorted(ranked[begin:end], key=frame_ids.__getitem__)
    return ranked


def null_score(stage: DetectionSampling) -> float:
    """What a frame without boxes scores, unless the stage's strategy is a callable."""
    return 0.0 if find_strategy(stage.selection_strategy).sees == "confidences" else 1.0


def check_can_score(pool: Pool, stage: DetectionSampling) -> None:
    """Raises InvalidInputError where the pool lacks what the stage's scores are made of, or weights are no numbers."""
    strategy = find_strategy(stage.selection_strategy)
    if stage.class_weights == "balanced":
        raise counts_missing()
    check_columns(pool, strategy.needs, strategy.name)
    if pool.num_boxes and pool.probabilities is None and stage.probs_weights is not None:
        raise InvalidInputError(
            "`probs_weights` need the column `probabilities`: extract(..., probabilities=True), or a payload's"
        )
    if pool.num_boxes and stage.class_weights is not None and pool.labels is None:
        raise InvalidInputError("`class_weights` need the column `labels`, or `category_id` in a payload; got none")


def _box_scores(pool: Pool, begin: int, end: int, stage: DetectionSampling) -> Tensor:
    """(b,) scores of the boxes of the frames `begin:end`, weighed by class."""
    first, last = int(pool.offsets[begin]), int(pool.offsets[end])
    scores = _plain_box_scores(pool, first, last, stage)
    if pool.labels is None or stage.class_weights is None or isinstance(stage.class_weights, str):
        return scores
    return box_weights(pool.labels[first:last], stage.class_weights).mul_(scores)


def _plain_box_scores(pool: Pool, first: int, last: int, stage: DetectionSampling) -> Tensor:
    strategy = find_strategy(stage.selection_strategy)
    if stage.probs_weights is None or pool.probabilities is None or pool.activation is None:
        return strategy.box_scores(box_evidence(pool, first, last, distributions=strategy.reads_probabilities))
    probabilities = pool.probabilities[first:last]
    distribution = class_distribution(probabilities, pool.activation)
    weights = distribution_weights(stage.probs_weights, probabilities.shape[1], pool.activation)
    return entropy(distribution, weights=torch.tensor(weights, device=pool.device))


def _chunks(pool: Pool) -> Iterator[tuple[int, int]]:
    width = 1 if pool.probabilities is None else pool.probabilities.shape[1]
    elements = _CHUNK_ELEMENTS["cpu" if pool.device.type == "cpu" else "cuda"]
    return chunks(pool.offsets, boxes=max(elements // max(width, 1), 1))


def only_scored_columns(pool: Pool, rows: Tensor) -> Pool:
    """The frames at `rows` with no more than what scores are made of: `Pool.take` would copy embeddings too."""
    return pool.only(("scores", "probabilities")).take(rows)


def _with_null_boxes(values: Tensor, counts: Tensor, null: float) -> tuple[Tensor, Tensor]:
    """Give each frame without boxes one box of score `null`, so that a policy never meets an empty frame."""
    offsets = offsets_of(counts.clamp_min(1))
    filled = values.new_full((int(offsets[-1]),), null)
    filled[(counts > 0).repeat_interleave(counts.clamp_min(1))] = values
    return filled, offsets


def _checked(result: object, pool: Pool, function: object, field: str) -> Tensor:
    """What a user's callable returned, as (F,) float64."""
    name = f"the {field} {callable_name(function)!r}"
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
