"""The best boxes of each frame by a naive loop, and pools that have embeddings of these only."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.pool.pool import Pool

OF_BOXES = ("boxes", "labels", "scores", "probabilities", "box_embeddings")


def best_rows(pool: Pool, k: int) -> list[int]:
    """Of each frame the k boxes of the highest score, of equal ones the earlier, in the order of the boxes."""
    assert pool.scores is not None
    scores, rows = pool.scores.tolist(), []
    for begin, end in zip(pool.offsets.tolist(), pool.offsets.tolist()[1:], strict=False):
        ranked = sorted(range(begin, end), key=lambda box: (-scores[box], box))
        rows += sorted(ranked[:k])
    return rows


def marks_of(pool: Pool, rows: list[int]) -> Tensor:
    return torch.tensor([box in set(rows) for box in range(pool.num_boxes)], dtype=torch.bool)


def embedding_best(pool: Pool, k: int) -> Pool:
    """The same pool with embeddings of the best boxes only."""
    rows = best_rows(pool, k)
    assert pool.box_embeddings is not None
    return pool.replace(box_embeddings=pool.box_embeddings[rows], embedded=marks_of(pool, rows))


def of_best(pool: Pool, k: int) -> Pool:
    """A pool that has no other boxes than the best ones."""
    rows = best_rows(pool, k)
    counts = [
        sum(begin <= row < end for row in rows) for begin, end in zip(pool.offsets, pool.offsets[1:], strict=False)
    ]
    columns = {name: column[rows] for name, column in pool.columns() if name in OF_BOXES}
    return pool.replace(offsets=torch.tensor([0, *counts]).cumsum(0), **columns)
