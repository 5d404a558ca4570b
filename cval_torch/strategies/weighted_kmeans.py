"""`weighted_kmeans`: of each cluster the most informative frame."""

from __future__ import annotations

from torch import Tensor

from cval_torch.strategies.clustering import rows_by_turns
from cval_torch.strategies.kmeans import kmeans_beside
from cval_torch.strategies.points import Points


def weighted_kmeans(
    embeddings: Points, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """k-means whose points pull by how informative they are, and of each cluster the most informative one.

    The clusters keep near-duplicates from being chosen together, which is what an uncertainty alone does to a video;
    the weights keep the choice from typical, well-known frames, which is what clusters alone do. Put it after a stage
    that scores and keeps a few times as many frames (Zhdanov 2019, *Diverse mini-batch Active Learning*, weighs the
    centres alike, and takes the frame nearest to each).

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: of the k-means start.
        labeled: (L, D) what is annotated already; frames nearest to it are chosen last (see `clustering`).
        weights: (N,) non-negative, higher = more informative. Without them, or if all are 0, the frame nearest to the
            centre is taken.

    Returns:
        (n,) int64 distinct rows, the most informative first.
    """
    if weights is not None and not bool((weights > 0).any()):
        weights = None
    found, covered = kmeans_beside(embeddings, n, n, seed=seed, labeled=labeled, weights=weights)
    order = found.distances.argsort(stable=True)
    if weights is not None:
        order = order[(-weights[order]).argsort(stable=True)]
    return rows_by_turns(found.labels, order, n, last=covered, values=weights)
