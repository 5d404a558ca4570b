"""`typicality`: the most typical frame of each cluster that has no label yet."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.strategies.clustering import rows_by_turns
from cval_torch.strategies.kmeans import kmeans
from cval_torch.strategies.nearest import squared_distances
from cval_torch.strategies.points import Joined, Points

NEIGHBOURS = 20
MOST_CLUSTERS = 500
# In a larger cluster neighbours are looked for among so many of its members, at least the fewest.
LARGE_CLUSTER = 4096
FEWEST_NEIGHBOURS = 5


def typicality(
    embeddings: Points, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """TypiClust (Hacohen, Dekel and Weinshall 2022, arXiv 2202.02794): for small budgets, dense regions first.

    The frames and what is labeled are put into as many clusters as will be labeled, 500 at most. Clusters with the
    fewest labeled frames come first, of those the largest, and each gives its most typical frame: the one whose 20
    nearest neighbours in the cluster are nearest, on the mean.

    In a cluster of M > 4096 members neighbours are looked for among 4096 of them, drawn at random. One of these stands
    for M / 4096 members, so fewer are taken: `20 * 4096 / M`, but not below 5. Their mean distance estimates that to
    the nearest 20 members, or from 16,384 members on to the nearest `5 M / 4096`. Means are compared within their
    cluster only. So no more than `4096 N` pairs of frames are looked at. Distances in such a cluster are worked out by
    expanded squares about its sample's mean, where those below half a percent of the way to it count as 0.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: of the k-means start, and of the members drawn of large clusters.
        labeled: (L, D) what is annotated already.
        weights: not used.

    Returns:
        (n,) int64 distinct rows, in rank order.
    """
    known = 0 if labeled is None else len(labeled)
    points = embeddings if labeled is None else Joined(embeddings, labeled)
    found = kmeans(points, min(n + known, MOST_CLUSTERS, len(points)), seed=seed)
    labels = found.labels[: len(embeddings)]
    typical = torch.empty(len(embeddings), device=embeddings.device)
    generator = torch.Generator().manual_seed(seed)
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().squeeze(1)
        if len(members) > LARGE_CLUSTER:
            typical[members] = -sampled_mean_distance(embeddings, members, NEIGHBOURS, generator)
        else:
            typical[members] = -mean_distance(embeddings[members].float(), NEIGHBOURS)
    order = (-typical).argsort(stable=True)
    held = torch.bincount(found.labels[len(embeddings) :], minlength=len(found.centres))
    # a turn's rank is by labeled frames, then by size: one number, since a size is below len(points) + 1
    sizes = torch.bincount(labels, minlength=len(found.centres))
    value = sizes - held * (len(points) + 1)
    return rows_by_turns(labels, order, n, values=value[labels])


def mean_distance(points: Tensor, neighbours: int) -> Tensor:
    """(M,) the mean distance of each of (M, D) points to its nearest others, at most `neighbours`; 0 if alone."""
    count = min(neighbours, len(points) - 1)
    if count == 0:
        return torch.zeros(len(points), device=points.device)
    means = []
    step = max(2**20 // len(points), 1)
    for begin in range(0, len(points), step):
        block = points[begin : begin + step]
        distances = torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist")
        distances[torch.arange(len(block)), torch.arange(begin, begin + len(block))] = torch.inf
        means.append(distances.topk(count, dim=1, largest=False).values.mean(1))
    return torch.cat(means)


def sampled_mean_distance(embeddings: Points, members: Tensor, neighbours: int, generator: torch.Generator) -> Tensor:
    """(M,) an estimate of the mean distance of each of (M,) int64 rows to its nearest others among them.

    `LARGE_CLUSTER` of them, fewer than M, are drawn and compared with. See `typicality` for how many are near.
    """
    drawn = torch.randperm(len(members), generator=generator)[:LARGE_CLUSTER].sort().values.to(members.device)
    count = max(round(neighbours * len(drawn) / len(members)), FEWEST_NEIGHBOURS)
    others = embeddings[members[drawn]].float()
    middle = others.mean(0)
    others -= middle
    means = torch.empty(len(members), device=members.device)
    for places in torch.split(torch.arange(len(members), device=members.device), max(2**20 // len(drawn), 1)):
        distances = squared_distances(embeddings[members[places]].float() - middle, others)
        distances.masked_fill_(places[:, None] == drawn, torch.inf)  # not to itself
        means[places] = distances.topk(count, dim=1, largest=False).values.sqrt_().mean(1)
    return means
