"""The silhouette of a partition (Rousseeuw 1987): how much nearer each point is to its own cluster than to another."""

from __future__ import annotations

import torch
from torch import Tensor


def silhouette_score(distances: Tensor, labels: Tensor) -> float:
    """The mean over points of `(b - a) / max(a, b)`; 0 for a point that is a cluster by itself.

    `a` is a point's mean distance to the others of its cluster, `b` the least of its mean distances to another cluster.

    Args:
        distances: (N, N) symmetric, 0 on the diagonal.
        labels: (N,) int64, at least two distinct values.

    Returns:
        In [-1, 1], higher = better separated.
    """
    _, dense = torch.unique(labels, return_inverse=True)
    sizes = torch.bincount(dense)
    members = torch.nn.functional.one_hot(dense).to(distances)
    sums = distances @ members
    own = sums.gather(1, dense[:, None]).squeeze(1) / (sizes[dense] - 1).clamp_min(1)
    others = (sums / sizes).scatter_(1, dense[:, None], torch.inf).amin(1)
    widths = (others - own) / torch.maximum(own, others).clamp_min(torch.finfo(distances.dtype).tiny)
    return float(widths.masked_fill_(sizes[dense] == 1, 0).mean())


def candidate_counts(most: int) -> list[int]:
    """Numbers of clusters to try: each from 2 to 16, then each about a quarter more, up to `most`.

    >>> candidate_counts(30)
    [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 25]
    """
    counts = list(range(2, min(most, 16) + 1))
    count = 20
    while count <= most:
        counts.append(count)
        count += count // 4
    return counts
