"""k-means in torch: seeded, chunked, and the same again for the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Distances are worked on in blocks of rows, so that memory is this many numbers, not N x k.
_BLOCK_ELEMENTS = 2**22
# Squared distances below this share of the squared lengths are rounding (expanded square): the same point.
_SAME_POINT = {torch.float32: 1e-5, torch.float64: 1e-12}
# k-means++ looks at no more than this many rows (or 20 a cluster): its cost is rows x k, as Lloyd's of one iteration.
_SEEDING_ROWS = 20_000


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
    points: Tensor,
    k: int,
    *,
    seed: int,
    fixed: Tensor | None = None,
    weights: Tensor | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Clusters:
    """Lloyd's k-means from a greedy k-means++ start (Arthur and Vassilvitskii 2007), in float32.

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
    middle = points.double().mean(0).float()  # about the origin, expanded squares keep their digits
    rows = points.float() - middle
    held = rows[:0] if fixed is None else fixed.float() - middle
    pull = torch.ones(len(rows), device=rows.device) if weights is None else weights.to(rows)
    centres = torch.cat([held, _start(rows, k, held, pull, seed)])
    labels, distances = _assign(rows, centres)
    inertia = float((distances.double() * pull).sum())
    for _ in range(iterations):
        moved = _move(rows, centres, labels, distances, pull, held=len(held))
        new_labels, new_distances = _assign(rows, moved)
        new_inertia = float((new_distances.double() * pull).sum())
        if new_inertia >= inertia:
            break
        settled = inertia - new_inertia <= tolerance * inertia
        centres, labels, distances, inertia = moved, new_labels, new_distances, new_inertia
        if settled:
            break
    return Clusters(centres + middle, labels, _exact_distances(rows, centres, labels))


def kmeans_beside(
    points: Tensor, k: int, n: int, *, seed: int, labeled: Tensor | None, weights: Tensor | None = None
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


def mean_of(points: Tensor) -> Tensor:
    """(D,) float64, the mean of (N, D) points, without a copy of them."""
    total = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    for block in torch.split(points, max(_BLOCK_ELEMENTS // max(points.shape[1], 1), 1)):
        total += block.sum(0, dtype=torch.float64)
    return total / len(points)


def squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """(N, k) squared distances in their precision, exactly 0 where rounding cannot tell two points apart.

    Points should lie about the origin: expanded squares lose the digits that all of them share.
    """
    lengths = (rows * rows).sum(1)[:, None] + (centres * centres).sum(1)
    distances = torch.addmm(lengths, rows, centres.T, alpha=-2)
    return distances.masked_fill_(distances <= _SAME_POINT[rows.dtype] * lengths, 0)


def _start(rows: Tensor, k: int, held: Tensor, pull: Tensor, seed: int) -> Tensor:
    """Greedy k-means++: of a few rows drawn by squared distance, keep the one that lowers the inertia most."""
    generator = torch.Generator().manual_seed(seed)
    limit = max(_SEEDING_ROWS, 20 * k)
    if len(rows) > limit:
        sample = torch.randperm(len(rows), generator=generator)[:limit].sort().values.to(rows.device)
        rows, pull = rows[sample], pull[sample]
    trials = 2 + int(math.log(k))
    closest = torch.full((len(rows),), torch.inf, device=rows.device)
    for begin in range(0, len(held), 256):
        closest = torch.minimum(closest, squared_distances(rows, held[begin : begin + 256]).amin(1))
    chosen: list[int] = []
    for _ in range(min(k, len(rows))):
        mass = (pull if not len(held) and not chosen else closest * pull).double().cumsum(0)
        if float(mass[-1]) <= 0:  # every row with a pull is a centre already
            break
        draws = torch.rand(trials, dtype=torch.float64, generator=generator).to(rows.device) * mass[-1]
        candidates = torch.searchsorted(mass, draws, right=True).clamp_max_(len(rows) - 1)
        left = torch.minimum(closest[:, None], squared_distances(rows, rows[candidates]))
        best = int((left.double() * pull[:, None]).sum(0).argmin())
        chosen.append(int(candidates[best]))
        closest = left[:, best].contiguous()
        closest[chosen[-1]] = 0
    return rows[torch.tensor(chosen, dtype=torch.int64, device=rows.device)]


def _assign(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each row, and the squared distance to it."""
    squares = (centres * centres).sum(1)
    labels, nearest = [], []
    for block in torch.split(rows, max(_BLOCK_ELEMENTS // len(centres), 1)):
        least, index = torch.addmm(squares, block, centres.T, alpha=-2).min(1)
        labels.append(index)
        nearest.append((least + (block * block).sum(1)).clamp_min_(0))
    return torch.cat(labels), torch.cat(nearest)


def _move(rows: Tensor, centres: Tensor, labels: Tensor, distances: Tensor, pull: Tensor, *, held: int) -> Tensor:
    """Every free centre to the mean of its points; one without points to the point farthest from its own centre."""
    mass = _sum_by_label(pull[:, None], labels, len(centres))[:, 0]
    sums = _sum_by_label(rows * pull[:, None], labels, len(centres))
    moved = torch.where(mass[:, None] > 0, sums / mass[:, None].clamp_min(torch.finfo(rows.dtype).tiny), centres)
    moved[:held] = centres[:held]
    vacant = (torch.bincount(labels, minlength=len(centres)) == 0).nonzero().squeeze(1)
    vacant = vacant[vacant >= held]
    if len(vacant):
        farthest = (distances * pull).topk(min(len(vacant), len(rows))).indices
        moved[vacant[: len(farthest)]] = rows[farthest]
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


def _exact_distances(rows: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """Squared distances by differences, which rank near points rightly where an expanded square rounds."""
    step = max(_BLOCK_ELEMENTS // max(rows.shape[1], 1), 1)
    return torch.cat(
        [
            (block - centres[label]).square_().sum(1)
            for block, label in zip(torch.split(rows, step), torch.split(labels, step), strict=True)
        ]
    )
