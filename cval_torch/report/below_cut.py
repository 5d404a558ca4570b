"""The frames that would have been chosen next, and others to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.ranking import rank_some
from cval_torch.selection.stage import BUDGETS, DetectionSampling
from cval_torch.selection.stages import narrowed
from cval_torch.strategies.registry import find_strategy


def next_choices(
    pool: Pool,
    chosen: Sequence[str],
    stages: Sequence[DetectionSampling],
    number: int,
    *,
    labeled: Pool | None,
) -> Tensor | None:
    """The rows that the same stages choose next, if they are asked for more frames.

    The choice is made again, with room for more. It counts only if it begins with the frames that were chosen: then
    the pool and the stages are those of the choice, and the strategy is one whose longer choice begins with the
    shorter one.

    Args:
        pool: F frames that were chosen from.
        chosen: n ids, in rank order.
        stages: the stages that chose them.
        number: of rows wanted, at most.
        labeled: what was annotated before.

    Returns:
        (m,) int64, m at most `number`; None if the choice does not begin with `chosen`, or cannot be made again.
    """
    strategy = find_strategy(stages[-1].selection_strategy)
    if strategy.is_diversity and not strategy.greedy:
        return None
    more = {"num_of_samples": min(len(chosen) + number, len(pool)), **dict.fromkeys(BUDGETS)}
    try:
        kept, _ = narrowed(pool, [*stages[:-1], stages[-1].model_copy(update=more)], labeled=labeled)
    except InvalidInputError:
        return None
    again = [pool.frame_ids[row] for row in kept.rows.tolist()]
    return kept.rows[len(chosen) :] if again[: len(chosen)] == list(chosen) else None


def best_of_rest(pool: Pool, chosen_rows: Tensor, scores: Tensor, number: int, *, descending: bool) -> Tensor:
    """The rows with the best scores that were not chosen, at most `number`, the best first.

    Args:
        pool: F frames.
        chosen_rows: (n,) int64.
        scores: (F,) frame scores; a NaN is no score.
        number: at most.
        descending: whether high scores are the better ones.
    """
    rest = ~scores.isnan()
    rest[chosen_rows] = False
    rows = rest.nonzero().squeeze(1)
    wanted = min(number, len(rows))
    best = rank_some(rows, scores, pool.frame_ids, wanted, descending=descending) if wanted else []
    return torch.tensor(best, dtype=torch.int64)


def some_others(pool: Pool, without: Tensor, number: int, *, seed: int) -> Tensor:
    """A handful of rows at random, by the order of their ids: the order of the pool makes no difference.

    Args:
        pool: F frames.
        without: (m,) int64, rows that are not to be among them.
        number: at most.
        seed: of the draw.
    """
    left = torch.ones(len(pool), dtype=torch.bool)
    left[without] = False
    rows = sorted(left.nonzero().squeeze(1).tolist(), key=pool.frame_ids.__getitem__)
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:number]
    return torch.tensor([rows[place] for place in drawn.tolist()], dtype=torch.int64)
