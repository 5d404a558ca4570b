"""`clustering`: the frames at the centres of k-means clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.strategies.kmeans import kmeans_beside
from cval_torch.strategies.points import Points


def clustering(
    embeddings: Points,
    n: int,
    *,
    seed: int,
    labeled: Tensor | None = None,
    weights: Tensor | None = None,
    num_of_clusters: int = -1,
) -> Tensor:
    """k-means, and of each cluster the frame nearest to its centre; the largest cluster first.

    So the first choices stand for the most frames. With fewer clusters than frames asked for, every cluster gives its
    nearest frame, then every cluster its second nearest, and so on. Copies of one point never share out two clusters,
    so duplicates come last.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: of the k-means start.
        labeled: (L, D) what is annotated already: up to n clusters of it keep their centres while the new ones find
            theirs, and the frames nearest to those are chosen last.
        weights: not used.
        num_of_clusters: k; -1 is n, one frame a cluster.

    Returns:
        (n,) int64 distinct rows, in rank order.
    """
    k = min(n if num_of_clusters == -1 else num_of_clusters, len(embeddings))
    found, covered = kmeans_beside(embeddings, k, n, seed=seed, labeled=labeled)
    nearest_first = found.distances.argsort(stable=True)
    return rows_by_turns(found.labels, nearest_first, n, last=covered)


def rows_by_turns(
    labels: Tensor, order: Tensor, n: int, *, last: Tensor | None = None, values: Tensor | None = None
) -> Tensor:
    """Take one row of each cluster in turn, the largest cluster first, until there are n.

    Args:
        labels: (N,) int64 cluster of each row.
        order: (N,) a permutation of the rows: within a cluster, the earlier is taken first.
        n: rows to take.
        last: (N,) bool, rows to take only when the others have run out.
        values: (N,) then the rows of one turn follow by their values, high ones first, and not by cluster size.

    Returns:
        (n,) int64. Clusters of one size follow one another by the row that they give first.
    """
    sizes = torch.bincount(labels)
    by_cluster = order[labels[order].argsort(stable=True)]
    begins = sizes.cumsum(0) - sizes
    turn = torch.empty_like(labels)
    turn[by_cluster] = torch.arange(len(labels), device=labels.device) - begins[labels[by_cluster]]
    first_rows = torch.zeros_like(sizes)
    firsts = by_cluster[begins[sizes > 0]]
    first_rows[labels[firsts]] = firsts
    # stable sorts, the least important key first
    rows = first_rows[labels].argsort(stable=True)
    keys = sizes[labels] if values is None else values
    rows = rows[(-keys[rows]).argsort(stable=True)]
    rows = rows[turn[rows].argsort(stable=True)]
    if last is not None:
        rows = rows[last[rows].to(torch.int8).argsort(stable=True)]
    return rows[:n]
