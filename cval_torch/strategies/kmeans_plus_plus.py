"""`kmeans_plus_plus`: a draw that prefers frames far apart and uncertain."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.strategies.k_center import first_greatest
from cval_torch.strategies.kmeans import SAME_POINT
from cval_torch.strategies.points import Points, blocks_of

_BLOCK = 4096


def kmeans_plus_plus(
    embeddings: Points, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
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
    scales = torch.ones(len(embeddings), device=embeddings.device)
    if weights is not None:
        scales = (weights / weights.amax().clamp_min(torch.finfo(torch.float64).tiny)).to(scales)
    lengths = torch.cat([block.float().square().sum(1) for _, block in blocks_of(embeddings, _BLOCK)]) * scales.square()
    draws = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[int] = []
    closest = lengths
    for draw in draws:
        mass = closest.double().cumsum(0)
        if chosen and float(mass[-1]) <= 0:
            break
        row = int(torch.searchsorted(mass, mass[-1:] * draw, right=True).clamp_max_(len(mass) - 1))
        row = row if chosen else first_greatest(lengths)
        left = _distances_to(row, embeddings, scales, lengths)
        closest = torch.minimum(closest, left) if chosen else left
        closest[row] = 0
        chosen.append(row)
    if len(chosen) < n:
        left = torch.ones(len(embeddings), dtype=torch.bool)
        left[chosen] = False
        chosen += left.nonzero().squeeze(1)[: n - len(chosen)].tolist()
    return torch.tensor(chosen, dtype=torch.int64, device=embeddings.device)


def _distances_to(row: int, embeddings: Points, scales: Tensor, lengths: Tensor) -> Tensor:
    """(N,) squared distances of all scaled rows to that one; 0 where rounding cannot tell them apart."""
    end = embeddings[row : row + 1][0].float() * scales[row]
    dots = torch.cat([block.float() @ end for _, block in blocks_of(embeddings, _BLOCK)]) * scales
    both = lengths + lengths[row]
    return torch.where(both - 2 * dots <= SAME_POINT[dots.dtype] * both, 0, both - 2 * dots)
