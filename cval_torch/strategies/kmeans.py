"""k-means in torch: seeded, chunked, and the same again for the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.strategies.points import Points, blocks_of

# Distances are worked on in blocks of rows, so that memory is this many numbers, not N x k.
_BLOCK_ELEMENTS = 2**20
# Squared distances below this share of the squared lengths are rounding (expanded square): the same point.
SAME_POINT = {torch.float32: 1e-5, torch.float64: 1e-12}
# The start draws twice as many candidates as it keeps, which costs as much as two of Lloyd's iterations, or this many.
_LEAST_CANDIDATES = 256


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of N points around k centres.

    Attributes:
        centres: (k, D) float32; k may be smaller than asked for where there are fewer distinct points.
        labels: (N,) int64 in [0, k), the nearest centre.
        distances: (N,) float32, squared, to it.
    """

    centres: Tensor
    labels: Tensor
    distances: Tensor

    @property
    def inertia(self) -> float:
        """What k-means makes small: the sum of the squared distances."""
        return float(self.distances.double().sum())


def kmeans(
    points: Points,
    k: int,
    *,
    seed: int,
    fixed: Tensor | None = None,
    weights: Tensor | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Clusters:
    """Lloyd's k-means in float32, started by k-means|| (Bahmani et al. 2012, arXiv 1203.6402).

    A centre that loses all its points moves to the point farthest from its own centre. Random numbers are drawn on the
    CPU, so that devices differ by rounding only.

    Args:
        points: (N, D) float.
        k: centres to place, at least 1.
        seed: of the start.
        fixed: (m, D) centres that exist already and do not move; they come first, before the k new ones.
        weights: (N,) non-negative, how much each point pulls; None is 1.
        iterations: at most.
        tolerance: stop when the inertia falls by a smaller share than this.

    Returns:
        `m + k` clusters, or fewer where fewer points are distinct from one another and from the fixed centres.
    """
    cloud = Cloud(points, mean_of(points).float(), weights)
    held = cloud.rows([]) if fixed is None else fixed.float() - cloud.middle
    centres = torch.cat([held, _start(cloud, k, held, seed)])
    now = _assign(cloud, centres)
    for _ in range(iterations):
        moved = _move(cloud, centres, now, held=len(held))
        new = _assign(cloud, moved)
        if new.inertia >= now.inertia:
            break
        settled = now.inertia - new.inertia <= tolerance * now.inertia
        centres, now = moved, new
        if settled:
            break
    return Clusters(centres + cloud.middle, now.labels, _exact_distances(cloud, centres, now.labels))


def kmeans_beside(
    points: Points, k: int, n: int, *, seed: int, labeled: Tensor | None, weights: Tensor | None = None
) -> tuple[Clusters, Tensor]:
    """New clusters beside what is labeled, which keeps up to `n` centres of its own.

    Args:
        points: (N, D) float.
        k: clusters to find.
        n: the most centres that the labeled points get.
        seed: of both starts.
        labeled: (L, D), or None.
        weights: (N,) of the points.

    Returns:
        All clusters, and (N,) bool, the points that are nearest to what is labeled.
    """
    fixed = None
    if labeled is not None and len(labeled):
        fixed = kmeans(labeled, min(n, len(labeled)), seed=seed).centres
    found = kmeans(points, k, seed=seed, fixed=fixed, weights=weights)
    return found, found.labels < (0 if fixed is None else len(fixed))


def mean_of(points: Points) -> Tensor:
    """(D,) float64, the mean of (N, D) points, without a copy of them."""
    total = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    for _, block in blocks_of(points):
        total += block.sum(0, dtype=torch.float64)
    return total / len(points)


def squared_distances(rows: Tensor, centres: Tensor, row_squares: Tensor | None = None) -> Tensor:
    """(N, k) squared distances in their precision, exactly 0 where rounding cannot tell two points apart.

    Points should lie about the origin: expanded squares lose the digits that all of them share. `row_squares` are the
    (N,) squared lengths of the rows, for who has them.
    """
    row_squares = (rows * rows).sum(1) if row_squares is None else row_squares
    return _distances(rows, row_squares, centres, (centres * centres).sum(1))


def nearest_of(rows: Tensor, row_squares: Tensor, centres: Tensor, closest: Tensor) -> Tensor:
    """(N,) squared distances of rows to the nearest of (k, D) centres, or `closest` (N,), where that is less."""
    for begin in range(0, len(centres), 256):
        distances = squared_distances(rows, centres[begin : begin + 256], row_squares)
        closest = torch.minimum(closest, distances.amin(1))
    return closest


class Cloud:
    """The points about the origin, where expanded squares keep their digits: in float32, and a block at a time.

    What is worked out of each block belongs in a tensor made before: small ones made between blocks keep the allocator
    from using the place of a block again, and memory grows by all of them.
    """

    def __init__(self, points: Points, middle: Tensor, weights: Tensor | None) -> None:
        self.points, self.middle = points, middle
        self.pull = torch.ones(len(points), device=points.device) if weights is None else weights.to(middle)

    def __len__(self) -> int:
        return len(self.points)

    def rows(self, rows: Tensor | list[int]) -> Tensor:
        """(r, D) float32."""
        return self.points[torch.as_tensor(rows, dtype=torch.int64, device=self.points.device)].float() - self.middle

    def blocks(self, columns: int) -> Iterator[tuple[slice, Tensor]]:
        """All rows in order, so many at a time that as many numbers by `columns` are a block."""
        step = max(_BLOCK_ELEMENTS // max(columns, self.points.shape[1], 1), 1)
        for begin in range(0, len(self), step):
            block = slice(begin, begin + step)
            yield block, self.points[block].float() - self.middle


@dataclass(frozen=True, eq=False)
class _Assignment:
    """Of each point the nearest centre and its squared distance; of each centre the mass and the sum of its points."""

    labels: Tensor
    distances: Tensor
    inertia: float
    mass: Tensor
    sums: Tensor


def _start(cloud: Cloud, k: int, held: Tensor, seed: int) -> Tensor:
    """Up to k distinct points, by k-means||: candidates drawn by squared distance, many at a time; the best of them.

    A candidate weighs what the points nearest to it pull.
    """
    generator = torch.Generator().manual_seed(seed)
    near = torch.full((len(cloud),), -1, dtype=torch.int64, device=cloud.points.device)
    closest = torch.ones_like(cloud.pull)  # before there is anything to be far from
    if len(held):
        closest = _nearest(cloud, held)[1]
    drawn = cloud.rows([])
    enough = max(2 * k, _LEAST_CANDIDATES)
    batch = min(enough // 5 + 1, 1024)
    count = batch if len(held) else 1
    while len(drawn) < enough:
        mass = closest * cloud.pull
        draws = torch.empty(len(cloud), dtype=torch.float64).exponential_(generator=generator).clamp_min_(1e-300)
        keys = mass / draws.to(mass.device)  # the greatest are a draw without replacement, in proportion to the masses
        best = keys.topk(min(count, int((mass > 0).sum()))).indices
        if len(best) == 0:  # every point with a pull is a candidate already
            break
        new = cloud.rows(best)
        copies = (squared_distances(new, new) == 0).tril(-1).any(1)
        new = new[~copies]
        labels, distances = _nearest(cloud, new)
        nearer = distances < closest if len(drawn) or len(held) else torch.ones_like(labels, dtype=torch.bool)
        near = torch.where(nearer, labels + len(drawn), near)
        closest = torch.where(nearer, distances, closest)
        drawn = torch.cat([drawn, new])
        count = batch
    pull = _sum_by_label(cloud.pull[near >= 0, None], near[near >= 0], len(drawn))[:, 0]
    return _best_candidates(drawn, pull, k, held, generator)


def _best_candidates(rows: Tensor, pull: Tensor, k: int, held: Tensor, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: of a few rows drawn by squared distance, keep the one that lowers the inertia most."""
    trials = 2 + int(math.log(k))
    squares = (rows * rows).sum(1)
    closest = torch.full((len(rows),), torch.inf, device=rows.device)
    closest = nearest_of(rows, squares, held, closest)
    chosen: list[int] = []
    for _ in range(min(k, len(rows))):
        mass = (pull if not len(held) and not chosen else closest * pull).cumsum(0, dtype=torch.float64)
        if float(mass[-1]) <= 0:
            break
        draws = torch.rand(trials, dtype=torch.float64, generator=generator).to(rows.device) * mass[-1]
        candidates = torch.searchsorted(mass, draws, right=True).clamp_max_(len(rows) - 1)
        left = torch.minimum(closest, _distances(rows[candidates], squares[candidates], rows, squares))
        best = int((left @ pull).argmin())
        chosen.append(int(candidates[best]))
        closest = left[best].clone()
        closest[chosen[-1]] = 0
    return rows[torch.tensor(chosen, dtype=torch.int64, device=rows.device)]


def _distances(rows: Tensor, row_squares: Tensor, centres: Tensor, centre_squares: Tensor) -> Tensor:
    lengths = row_squares[:, None] + centre_squares
    distances = torch.addmm(lengths, rows, centres.T, alpha=-2)
    return distances.masked_fill_(distances <= SAME_POINT[rows.dtype] * lengths, 0)


def _nearest(cloud: Cloud, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each row, and the squared distance to it."""
    labels = torch.empty(len(cloud), dtype=torch.int64, device=centres.device)
    distances = torch.empty_like(cloud.pull)
    squares = (centres * centres).sum(1)
    for rows, block in cloud.blocks(len(centres)):
        labels[rows], distances[rows] = _nearest_of(block, centres, squares)
    return labels, distances


def _nearest_of(block: Tensor, centres: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    least, labels = torch.addmm(squares, block, centres.T, alpha=-2).min(1)
    own = (block * block).sum(1)
    least += own
    return labels, least.masked_fill_(least <= SAME_POINT[block.dtype] * (own + squares[labels]), 0)


def _assign(cloud: Cloud, centres: Tensor) -> _Assignment:
    """One pass over the points."""
    labels = torch.empty(len(cloud), dtype=torch.int64, device=centres.device)
    distances = torch.empty_like(cloud.pull)
    squares = (centres * centres).sum(1)
    sums = torch.zeros_like(centres)
    for rows, block in cloud.blocks(len(centres)):
        labels[rows], distances[rows] = _nearest_of(block, centres, squares)
        sums += _sum_by_label(block * cloud.pull[rows, None], labels[rows], len(centres))
    mass = _sum_by_label(cloud.pull[:, None], labels, len(centres))[:, 0]
    inertia = float((distances.double() * cloud.pull).sum())
    return _Assignment(labels, distances, inertia, mass, sums)


def _move(cloud: Cloud, centres: Tensor, now: _Assignment, *, held: int) -> Tensor:
    """Every free centre to the mean of its points; one without points to the point farthest from its own centre."""
    mass = now.mass[:, None]
    moved = torch.where(mass > 0, now.sums / mass.clamp_min(torch.finfo(mass.dtype).tiny), centres)
    moved[:held] = centres[:held]
    vacant = (torch.bincount(now.labels, minlength=len(centres)) == 0).nonzero().squeeze(1)
    vacant = vacant[vacant >= held]
    if len(vacant):
        farthest = (now.distances * cloud.pull).topk(min(len(vacant), len(cloud))).indices
        moved[vacant[: len(farthest)]] = cloud.rows(farthest)
    return moved


def _sum_by_label(values: Tensor, labels: Tensor, k: int) -> Tensor:
    """(k, D) sums of rows by label. In order on a CPU; as a product on a GPU, whose additions race otherwise."""
    sums = values.new_zeros(k, values.shape[1])
    if values.device.type == "cpu":
        return sums.index_add_(0, labels, values)
    for begin in range(0, len(values), 2**14):
        block = slice(begin, begin + 2**14)
        sums += torch.nn.functional.one_hot(labels[block], k).to(values).T @ values[block]
    return sums


def _exact_distances(cloud: Cloud, centres: Tensor, labels: Tensor) -> Tensor:
    """Squared distances by differences, which rank near points rightly where an expanded square rounds."""
    distances = torch.empty_like(cloud.pull)
    for rows, block in cloud.blocks(1):
        distances[rows] = (block - centres[labels[rows]]).square_().sum(1)
    return distances
