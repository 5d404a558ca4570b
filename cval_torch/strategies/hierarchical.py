"""`hierarchical`: Ward's agglomerative clustering, and a few frames at random from each cluster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cval_torch.strategies.clustering import rows_by_turns
from cval_torch.strategies.kmeans import kmeans
from cval_torch.strategies.points import Joined, Points
from cval_torch.strategies.silhouette import candidate_counts, silhouette_score

# Up to here every pair of points is looked at: a float64 matrix of 128 MiB, and about two seconds of one core.
MOST_POINTS = 4096
# Beyond, points are first gathered around this many k-means centres, which Ward then merges with their sizes.
_GROUPS = 2048
_GROUPING_ITERATIONS = 10
_SILHOUETTE_POINTS = 2048
_BLOCK = 256

Floats = npt.NDArray[np.float64]
Merges = npt.NDArray[np.int64]


def hierarchical(
    embeddings: Points,
    n: int,
    *,
    seed: int,
    labeled: Tensor | None = None,
    weights: Tensor | None = None,
    num_of_clusters: int = -1,
) -> Tensor:
    """Cut Ward's tree into clusters and draw from them in turn, the largest first.

    Ward's linkage merges the two clusters whose union adds least to the squared distances from the mean, so clusters
    are compact. Up to `MOST_POINTS` points the tree is exact; of more, it is the tree of 2048 k-means centres.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: of the draw (and of the k-means, the sample for the silhouette).
        labeled: (L, D) what is annotated already: clustered together with the rest, and clusters that hold any of it
            are drawn from last.
        weights: not used.
        num_of_clusters: k; -1 takes the k with the best silhouette among 2 to 16, and from there in steps of a quarter,
            up to n. Of more than `_SILHOUETTE_POINTS` points a sample is judged.

    Returns:
        (n,) int64 distinct rows: one of each cluster, then another of each, and so on.
    """
    points = embeddings if labeled is None else Joined(embeddings, labeled)
    generator = torch.Generator().manual_seed(seed)
    groups, sizes, centres = _grouped(points, seed)
    merges = ward_merges(centres, sizes)
    if num_of_clusters == -1:
        sample = torch.randperm(len(points), generator=generator)[:_SILHOUETTE_POINTS].sort().values
        k = _best_count(points[sample.to(points.device)], groups[sample.numpy()], merges, most=n)
    else:
        k = min(num_of_clusters, len(centres))
    labels = torch.from_numpy(cut(merges, len(centres), k)[groups]).to(embeddings.device)
    own = labels[: len(embeddings)]
    known = torch.bincount(labels[len(embeddings) :], minlength=k)[own] > 0
    order = torch.randperm(len(embeddings), generator=generator).to(embeddings.device)
    return rows_by_turns(own, order, n, last=known)


def ward_merges(points: Floats, sizes: Floats) -> Merges:
    """Ward's tree by the nearest-neighbour chain (Murtagh 1983): O(N^2) time and memory, float64.

    Args:
        points: (N, D).
        sizes: (N,) how many observations each point stands for.

    Returns:
        (N - 1, 2) the pairs that merge, lowest first; a cluster is called by one of its points.
    """
    count = len(points)
    distances = _ward_distances(points, sizes)
    mass = sizes.astype(np.float64)
    merges: list[tuple[int, int]] = []
    heights: list[float] = []
    alive = np.ones(count, dtype=bool)
    chain: list[int] = []
    while len(merges) < count - 1:
        if not chain:
            chain = [int(alive.argmax())]
        tip = chain[-1]
        nearest = int(distances[tip].argmin())
        # on a tie the last of the chain is as near: going back there is what ends the chain
        if len(chain) > 1 and distances[tip, chain[-2]] <= distances[tip, nearest]:
            nearest = chain[-2]
            kept, gone = min(tip, nearest), max(tip, nearest)
            merges.append((kept, gone))
            heights.append(distances[tip, nearest])
            _merge(distances, mass, alive, kept, gone)
            chain = chain[:-2]
        else:
            chain.append(nearest)
    # chains find merges out of order; of equal heights the first found is a child, never a parent, of the other
    order = np.argsort(np.asarray(heights), kind="stable")
    return np.asarray(merges, dtype=np.int64).reshape(-1, 2)[order]


def cut(merges: Merges, count: int, k: int) -> npt.NDArray[np.int64]:
    """(count,) labels in [0, k) after all but the last k - 1 merges."""
    parent = list(range(count))

    def root(point: int) -> int:
        while parent[point] != point:
            parent[point] = parent[parent[point]]
            point = parent[point]
        return point

    for kept, gone in merges[: count - k].tolist():
        parent[root(gone)] = root(kept)
    roots = np.asarray([root(point) for point in range(count)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _ward_distances(points: Floats, sizes: Floats) -> Floats:
    """(N, N) squared distances times `2 ab / (a + b)` of the sizes; inf on the diagonal."""
    centred = points - points.mean(0)
    squares = (centred**2).sum(1)
    distances: Floats = centred @ centred.T
    distances *= -2
    distances += squares[:, None]
    distances += squares
    np.maximum(distances, 0, out=distances)
    if (sizes != 1).any():
        for begin in range(0, len(sizes), _BLOCK):
            some = sizes[begin : begin + _BLOCK, None]
            distances[begin : begin + _BLOCK] *= 2 * some * sizes / (some + sizes)
    np.fill_diagonal(distances, np.inf)
    return distances


def _merge(
    distances: Floats,
    mass: Floats,
    alive: npt.NDArray[np.bool_],
    kept: int,
    gone: int,
) -> None:
    """Lance and Williams' update for Ward's linkage, in place."""
    a, b, height = mass[kept], mass[gone], distances[kept, gone]
    alive[gone] = False
    row = (mass + a) * distances[kept] + (mass + b) * distances[gone] - mass * height
    row /= mass + a + b
    row[~alive] = np.inf
    row[kept] = np.inf
    distances[kept], distances[:, kept] = row, row
    distances[gone], distances[:, gone] = np.inf, np.inf
    mass[kept] = a + b


def _grouped(points: Points, seed: int) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """The group of each point, and the groups' sizes and centres; each point is one unless there are too many."""
    if len(points) <= MOST_POINTS:
        return np.arange(len(points)), np.ones(len(points)), points[:].double().cpu().numpy()
    found = kmeans(points, _GROUPS, seed=seed, iterations=_GROUPING_ITERATIONS)
    filled, groups = torch.unique(found.labels, return_inverse=True)
    sizes = torch.bincount(groups).double()
    return groups.cpu().numpy(), sizes.cpu().numpy(), found.centres[filled].double().cpu().numpy()


def _best_count(sample: Tensor, groups: npt.NDArray[np.int64], merges: Merges, *, most: int) -> int:
    """The number of clusters with the best silhouette on the sample; of equal ones the smallest."""
    distances = torch.cdist(sample.double(), sample.double()).cpu()
    points = len(merges) + 1
    best, best_score = 1, -torch.inf
    for k in candidate_counts(min(most, points - 1, len(sample) - 1)):
        labels = torch.from_numpy(cut(merges, points, k)[groups])
        if len(torch.bincount(labels).nonzero()) < 2:
            continue
        score = silhouette_score(distances, labels)
        if score > best_score:
            best, best_score = k, score
    return best
