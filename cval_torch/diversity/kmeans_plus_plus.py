"""`kmeans_plus_plus`: a draw that prefers frames far apart and uncertain."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.diversity.k_center import first_greatest
from cval_torch.diversity.kmeans import squared_distances


def kmeans_plus_plus(
    embeddings: Tensor, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """k-means++ draws on embeddings scaled by uncertainty, after BADGE (Ash et al. 2020, arXiv 1906.03671).

    BADGE draws among hallucinated gradients, whose length is the model's doubt and whose direction is what it sees.
    Scaled embeddings are such vectors: a frame without doubt is at the origin, where nothing is far from anything.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: of the draws.
        labeled: not used: nobody is in doubt of a labeled frame, which so is at the origin.
        weights: (N,) non-negative, the doubts; None is 1.

    Returns:
        (n,) int64 distinct rows: the longest vector, and then as drawn, each in proportion to its squared distance to
        the nearest one chosen. Where none is left that is distinct, the rest by row.
    """
    rows = embeddings.float()
    if weights is not None:
        rows = rows * (weights / weights.amax().clamp_min(torch.finfo(torch.float64).tiny)).float()[:, None]
    draws = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [first_greatest((rows * rows).sum(1))]
    closest = squared_distances(rows, rows[chosen]).squeeze(1)
    for draw in draws[1:]:
        mass = closest.double().cumsum(0)
        if float(mass[-1]) <= 0:
            break
        row = int(torch.searchsorted(mass, mass[-1:] * draw, right=True).clamp_max_(len(rows) - 1))
        chosen.append(row)
        closest = torch.minimum(closest, squared_distances(rows, rows[row : row + 1]).squeeze(1))
        closest[row] = 0
    if len(chosen) < n:
        left = torch.ones(len(rows), dtype=torch.bool)
        left[chosen] = False
        chosen += left.nonzero().squeeze(1)[: n - len(chosen)].tolist()
    return torch.tensor(chosen, dtype=torch.int64, device=embeddings.device)
