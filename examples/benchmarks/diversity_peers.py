"""What `diversity.py` compares: our strategies, and others' ways to do the same."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cval_torch.strategies import find_strategy
from cval_torch.strategies.kmeans import kmeans

ITERATIONS = 25
NEIGHBOURS = 20


@dataclass(frozen=True, eq=False)
class Problem:
    """What everybody is given: (N, D) float32 embeddings, (N,) positive weights, and how many to choose."""

    points: Tensor
    weights: Tensor
    n: int

    def objective(self, name: str, answer: Tensor) -> float:
        """How good rows (n,) int64, or centres (n, D), are; smaller is better.

        - `radius`: the largest distance of a point to the nearest chosen one;
        - `cost`, `weighted cost`: the sum of squared distances to it;
        - `spread`: the mean distance of the chosen ones to their 20 nearest neighbours.
        """
        centres = self.points[answer] if answer.dtype == torch.int64 else answer
        if name == "spread":
            return float(np.mean([self._nearest(centre, NEIGHBOURS + 1)[1:].mean() for centre in centres]))
        squares = torch.cat([_squares(block, centres).amin(1) for block in torch.split(self.points, 1024)])
        if name == "radius":
            return float(squares.amax().sqrt())
        return float((squares.double() * (self.weights if name == "weighted cost" else 1)).sum())

    def _nearest(self, centre: Tensor, count: int) -> Tensor:
        squares = torch.cat([(block - centre).square().sum(1) for block in torch.split(self.points, 1024)])
        return squares.topk(min(count, len(squares)), largest=False).values.sqrt()


def _squares(block: Tensor, centres: Tensor) -> Tensor:
    lengths = block.square().sum(1)[:, None] + centres.square().sum(1)
    return (lengths - 2 * block @ centres.T).clamp_min_(0)


Choose = Callable[[Problem], Tensor]


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to choose.

    Attributes:
        name: in the table.
        choose: what is timed: rows, or centres.
        needs: the module that it is of, which may not be installed.
        most: points that it can take; of more, both sides take the first so many.
        judged: where `choose` gives rows and the objective is of centres, how to have the centres of the same call.
    """

    name: str
    choose: Choose
    needs: str = "torch"
    most: int | None = None
    judged: Choose | None = None


@dataclass(frozen=True, eq=False)
class Strategy:
    """One of ours and those that it is compared with; `most` to choose are enough."""

    objective: str
    ours: Contender
    peers: tuple[Contender, ...]
    most: int | None = None


def _module(name: str) -> Any:
    return importlib.import_module(name)


def ours(name: str, *, judged: Choose | None = None, **options: bool) -> Contender:
    """A strategy of the package, with the weights if `weights`, and n clusters if `clusters`."""

    def choose(problem: Problem) -> Tensor:
        more: dict[str, Any] = {"num_of_clusters": problem.n} if options.get("clusters") else {}
        weights = problem.weights if options.get("weights") else None
        strategy = find_strategy(name).function
        assert strategy is not None
        return strategy(problem.points, problem.n, seed=0, weights=weights, **more)

    return Contender("ours", choose, judged=judged)


def greedy(points: Tensor, n: int, distances_to: Callable[[list[int]], Tensor]) -> Tensor:
    """The farthest one, again and again, from the one farthest from the mean."""
    chosen = [int((points - points.mean(0)).norm(dim=1).argmax())]
    while len(chosen) < n:
        chosen.append(int(distances_to(chosen).argmax()))
    return torch.tensor(chosen)


def torch_plain(problem: Problem) -> Tensor:
    """All distances to all that are chosen, at every step."""
    points = problem.points
    return greedy(points, problem.n, lambda chosen: torch.cdist(points, points[chosen]).min(1).values)


def torch_incremental(problem: Problem) -> Tensor:
    """The distances to the last choice, and the smaller of those and the ones so far."""
    points = problem.points
    closest = torch.full((len(points),), torch.inf)

    def distances_to(chosen: list[int]) -> Tensor:
        return torch.minimum(closest, torch.cdist(points, points[chosen[-1:]])[:, 0], out=closest)

    return greedy(points, problem.n, distances_to)


def torch_product(problem: Problem) -> Tensor:
    """The same with lengths worked out once, so that a step is a product of the points with the last choice."""
    points = problem.points - problem.points.mean(0)
    lengths = points.square().sum(1)
    closest = torch.full((len(points),), torch.inf)

    def distances_to(chosen: list[int]) -> Tensor:
        step = lengths + lengths[chosen[-1]] - 2 * (points @ points[chosen[-1]])
        return torch.minimum(closest, step, out=closest)

    return greedy(points, problem.n, distances_to)


def core_set(problem: Problem) -> Tensor:
    """scikit-activeml, which begins anywhere."""
    query = _module("skactiveml.pool").CoreSet(random_state=0).query
    rows = query(problem.points.numpy(), np.full(len(problem.points), np.nan), batch_size=problem.n)
    return torch.from_numpy(np.asarray(rows, dtype=np.int64))


def our_centres(problem: Problem, *, weighted: bool) -> Tensor:
    """The centres that ours choose about."""
    return kmeans(problem.points, problem.n, seed=0, weights=problem.weights if weighted else None).centres


def faiss_kmeans(problem: Problem, *, weighted: bool) -> Tensor:
    """As it comes, 25 iterations; and one look for the nearest centres, which the others' labels have cost too."""
    points = problem.points.numpy()
    found = _module("faiss").Kmeans(points.shape[1], problem.n, niter=ITERATIONS, seed=1)
    found.train(points, weights=problem.weights.numpy() if weighted else None)
    found.index.search(points, 1)
    return torch.from_numpy(np.array(found.centroids))


def scikit_learn_kmeans(problem: Problem, *, weighted: bool, **options: Any) -> Tensor:
    """`KMeans` as it comes but for a limit of iterations, or `MiniBatchKMeans`; one start."""
    name = "KMeans" if "max_iter" in options else "MiniBatchKMeans"
    fit = getattr(_module("sklearn.cluster"), name)(problem.n, n_init=1, random_state=0, **options).fit
    found = fit(problem.points.numpy(), sample_weight=problem.weights.numpy() if weighted else None)
    return torch.from_numpy(np.asarray(found.cluster_centers_, dtype=np.float32))


def kmeans_peers(*, weighted: bool) -> tuple[Contender, ...]:
    """Of equal k."""
    return (
        Contender(f"faiss Kmeans, {ITERATIONS} iterations", lambda p: faiss_kmeans(p, weighted=weighted), "faiss"),
        Contender(
            f"scikit-learn KMeans, {ITERATIONS} iterations at most",
            lambda p: scikit_learn_kmeans(p, weighted=weighted, max_iter=ITERATIONS),
            "sklearn",
            most=20_000,
        ),
        Contender("scikit-learn MiniBatchKMeans", lambda p: scikit_learn_kmeans(p, weighted=weighted), "sklearn"),
    )


def scikit_learn_plus_plus(problem: Problem) -> Tensor:
    """One draw a step, as ours."""
    draw = _module("sklearn.cluster").kmeans_plusplus
    _, rows = draw(problem.points.numpy(), problem.n, n_local_trials=1, random_state=0)
    return torch.from_numpy(np.asarray(rows, dtype=np.int64))


def torch_typicality(problem: Problem) -> Tensor:
    """The published recipe: MiniBatchKMeans, and in each cluster the point with the nearest 20 neighbours."""
    fit = _module("sklearn.cluster").MiniBatchKMeans(problem.n, batch_size=5000, n_init=1, random_state=0).fit
    labels = torch.from_numpy(fit(problem.points.numpy()).labels_.astype(np.int64))
    rows = []
    for label in range(problem.n):
        members = (labels == label).nonzero().squeeze(1)
        if len(members) == 0:
            continue
        inside = problem.points[members]
        near = torch.cdist(inside, inside).topk(min(NEIGHBOURS + 1, len(members)), largest=False).values
        rows.append(int(members[near.mean(1).argmin()]))
    return torch.tensor(rows)


def similarities(problem: Problem) -> Tensor:
    """(N, N) float64, what ours maximises: a squared diameter less the squared distance."""
    points = problem.points.double() - problem.points.double().mean(0)
    return 4 * points.square().sum(1).amax() - _squares(points, points)


def torch_facility(problem: Problem) -> Tensor:
    """Every gain at every step, of the matrix of all pairs."""
    pairs = similarities(problem)
    best = torch.zeros(len(pairs), dtype=torch.float64)
    rows = []
    for _ in range(problem.n):
        gains = torch.cat([(block - best).clamp_min_(0).sum(1) for block in torch.split(pairs, 256)])
        rows.append(int(gains.argmax()))
        best = torch.maximum(best, pairs[rows[-1]])
    return torch.tensor(rows)


def apricot_facility(problem: Problem) -> Tensor:
    """The lazy greedy of apricot, on the same matrix."""
    selection = _module("apricot").FacilityLocationSelection
    found = selection(problem.n, metric="precomputed", optimizer="lazy").fit(similarities(problem).numpy())
    return torch.from_numpy(np.asarray(found.ranking, dtype=np.int64))


def one_of_each(labels: Any) -> Tensor:
    """A row at random of each cluster, as ours."""
    order = np.random.default_rng(0).permutation(len(labels))
    _, first = np.unique(np.asarray(labels)[order], return_index=True)
    return torch.from_numpy(order[first].astype(np.int64))


def scipy_ward(problem: Problem) -> Tensor:
    """Ward's tree of all points, cut."""
    hierarchy = _module("scipy.cluster.hierarchy")
    return one_of_each(hierarchy.fcluster(hierarchy.linkage(problem.points.numpy(), "ward"), problem.n, "maxclust"))


def scikit_learn_ward(problem: Problem) -> Tensor:
    """Ward's tree of all points, cut."""
    cluster = _module("sklearn.cluster").AgglomerativeClustering
    return one_of_each(cluster(problem.n, linkage="ward").fit_predict(problem.points.numpy()))


STRATEGIES = {
    "k_center": Strategy(
        "radius",
        ours("k_center"),
        (
            Contender("torch, a matrix-vector product a step", torch_product),
            Contender("naive torch, the last choice's distances", torch_incremental, most=20_000),
            Contender("naive torch, all distances again", torch_plain, most=10_000),
            Contender("scikit-activeml CoreSet", core_set, "skactiveml"),
        ),
    ),
    "weighted_kmeans": Strategy(
        "weighted cost",
        ours("weighted_kmeans", weights=True, judged=lambda p: our_centres(p, weighted=True)),
        kmeans_peers(weighted=True),
    ),
    "clustering": Strategy(
        "cost",
        ours("clustering", judged=lambda p: our_centres(p, weighted=False)),
        kmeans_peers(weighted=False),
    ),
    "kmeans_plus_plus": Strategy(
        "cost",
        ours("kmeans_plus_plus"),
        (Contender("scikit-learn kmeans_plusplus", scikit_learn_plus_plus, "sklearn"),),
    ),
    "facility_location": Strategy(
        "cost",
        ours("facility_location"),
        (
            Contender("apricot, lazy", apricot_facility, "apricot", most=5000),
            Contender("naive torch, all pairs", torch_facility, most=5000),
        ),
    ),
    "hierarchical": Strategy(
        "cost",
        ours("hierarchical", clusters=True),
        (
            Contender("scipy linkage, ward", scipy_ward, "scipy", most=4000),
            Contender("scikit-learn AgglomerativeClustering", scikit_learn_ward, "sklearn", most=10_000),
        ),
    ),
    "typicality": Strategy(
        "spread",
        ours("typicality"),
        (Contender("scikit-learn MiniBatchKMeans, torch.cdist", torch_typicality, "sklearn"),),
        most=500,
    ),
}
