"""`k_center`: the farthest frame, again and again."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.diversity.kmeans import squared_distances


def k_center(
    embeddings: Tensor, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Greedy k-centre, or core-set selection (Gonzalez 1985; Sener and Savarese 2018, arXiv 1708.00489).

    Each choice is the frame farthest from everything labeled and chosen: the largest distance of any frame to its
    nearest chosen one ends within twice the least possible. Reaches for outliers by design. Exact, in memory of N
    numbers beside the embeddings.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: not used: without labeled frames the first choice is the frame farthest from the mean.
        labeled: (L, D) what is annotated already, as good as chosen.
        weights: not used.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally far ones by row.
    """
    middle = embeddings.double().mean(0).float()
    rows = embeddings.float() - middle
    if labeled is None or len(labeled) == 0:
        closest = (rows * rows).sum(1)
        nearest_is_chosen = False
    else:
        closest = torch.full((len(rows),), torch.inf, device=rows.device)
        for block in torch.split(labeled.float() - middle, 256):
            closest = torch.minimum(closest, squared_distances(rows, block).amin(1))
        nearest_is_chosen = True
    chosen = torch.empty(n, dtype=torch.int64, device=rows.device)
    for turn in range(n):
        row = first_greatest(closest)
        chosen[turn] = row
        left = squared_distances(rows, rows[row : row + 1]).squeeze(1)
        closest = torch.minimum(closest, left) if turn or nearest_is_chosen else left
        closest[chosen[: turn + 1]] = -1  # never again, though copies of it are at 0
    return chosen


def first_greatest(values: Tensor) -> int:
    """The first place of the greatest value: `argmax` may name any of several."""
    return int((values == values.amax()).nonzero()[0])
