"""`facility_location`: frames near which every other frame has something like it."""

from __future__ import annotations

import heapq

import torch
from torch import Tensor

from cval_torch.diversity.kmeans import squared_distances

_BLOCK_ELEMENTS = 2**22


def facility_location(
    embeddings: Tensor, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Greedy maximisation of the facility location function, lazily (Minoux 1978), without an N x N matrix.

    The cost of a frame is its squared distance to the nearest chosen or labeled one, at most the squared diameter of
    the pool (as if one such had been chosen). Each choice lowers the weighted sum of costs most; greedy comes within
    `1 - 1/e` of the best. Unlike k-centre it serves the many, and leaves outliers.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: not used.
        labeled: (L, D) what is annotated already, as good as chosen.
        weights: (N,) non-negative, how much each frame's cost counts; None is 1.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally good ones by row. Time is N^2 D at first, and N D for
        each gain that is looked at again.
    """
    middle = embeddings.double().mean(0).float()
    rows = embeddings.float() - middle
    pull = torch.ones(len(rows), device=rows.device) if weights is None else weights.to(rows)
    cost = torch.full((len(rows),), 4 * float((rows * rows).sum(1).amax()), device=rows.device)
    if labeled is not None:
        for block in torch.split(labeled.float() - middle, 256):
            cost = torch.minimum(cost, squared_distances(rows, block).amin(1)) if len(block) else cost
    step = max(_BLOCK_ELEMENTS // len(rows), 1)
    gains = torch.cat([_gains(rows, block, cost, pull) for block in torch.split(rows, step)])
    queue = [(-gain, row) for row, gain in enumerate(gains.tolist())]
    heapq.heapify(queue)
    chosen: list[int] = []
    fresh: dict[int, int] = {}  # at which choice the gain of a row was last worked out
    while len(chosen) < n:
        _, row = heapq.heappop(queue)
        if fresh.get(row, 0) == len(chosen):
            chosen.append(row)
            cost = torch.minimum(cost, squared_distances(rows, rows[row : row + 1]).squeeze(1))
            continue
        # gains only fall: the top of the queue, worked out anew and still the top, is the best
        gain = float(_gains(rows, rows[row : row + 1], cost, pull)[0])
        fresh[row] = len(chosen)
        heapq.heappush(queue, (-gain, row))
    return torch.tensor(chosen, dtype=torch.int64, device=embeddings.device)


def _gains(rows: Tensor, candidates: Tensor, cost: Tensor, pull: Tensor) -> Tensor:
    """(c,) float64, by how much each candidate would lower the weighted sum of costs."""
    saved = (cost[:, None] - squared_distances(rows, candidates)).clamp_min_(0)
    return (saved * pull[:, None]).double().sum(0)
