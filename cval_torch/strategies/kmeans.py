"""k-means in torch: seeded, chunked, and the same again for the same rows, in one process or in several."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.strategies.exact_sums import FixedPoint
from cval_torch.strategies.nearest import (
    closest_of,
    distances_to_own,
    expanded_distances,
    nearest_centres,
    squared_distances,
)
from cval_torch.strategies.parts import Part, workers_of
from cval_torch.strategies.points import Points, blocks_of

# Distances are worked on in blocks of rows, so that memory is this many numbers, not N x k.
_BLOCK_ELEMENTS = 2**20
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
    lead = _Lead(points, weights)
    held = lead.middle[None][:0] if fixed is None else fixed.float() - lead.middle
    centres = torch.cat([held, lead.start(k, held, seed)])
    now = lead.assign(centres)
    for _ in range(iterations):
        moved = lead.move(centres, now, held=len(held))
        new = lead.assign(moved)
        if new.inertia >= now.inertia:
            lead.share.each(_Share.step_back)
            break
        settled = now.inertia - new.inertia <= tolerance * now.inertia
        centres, now = moved, new
        if settled:
            break
    labels, distances = lead.share.column(_Share.own_labels), lead.share.column(_Share.own_distances, centres)
    return Clusters(centres + lead.middle, labels, distances)


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
    sums = workers_of(points, _added).each(_itself)
    return torch.stack([each.to(points.device) for each in sums]).sum(0) / len(points)


def _added(part: Part) -> Tensor:
    total = torch.zeros(part.points.shape[1], dtype=torch.float64, device=part.points.device)
    for _, block in blocks_of(part.points):
        total += block.sum(0, dtype=torch.float64)
    return total


def _itself(value: Tensor) -> Tensor:
    return value


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


class _Share:
    """The points of one process, and the nearest centre of each.

    Args:
        part: the points.
        middle: (D,) float32, where the origin is to be.
        weights: (N,) of all points.
    """

    def __init__(self, part: Part, middle: Tensor, weights: Tensor | None) -> None:
        self.cloud = Cloud(part.points, middle, None if weights is None else weights.to(middle.device)[part.rows])
        self.rows, self.total, self.weighted = part.rows, part.total, weights is not None
        self.labels = torch.full((len(self.cloud),), -1, dtype=torch.int64, device=middle.device)
        self.before = self.labels
        self.closest = torch.ones_like(self.cloud.pull)  # before there is anything to be far from
        self.fixed_point = FixedPoint(1.0, 0)

    def largest(self) -> float:
        """What is not exceeded by a pull, nor by a pull times a coordinate or squared length of its point."""
        found = float(self.cloud.pull.amax()) if len(self.cloud) else 0.0
        for rows, block in self.cloud.blocks(1):
            reach = torch.maximum(block.abs().amax(1), (block * block).sum(1))
            found = max(found, float((reach * self.cloud.pull[rows]).amax()))
        return found

    def prepare(self, fixed_point: FixedPoint) -> None:
        """Learn how sums are written that others add to."""
        self.fixed_point = fixed_point

    def energy(self) -> Tensor:
        """Words of one sum, of the squared lengths of the points, times their pulls."""
        words = self._zeros(1, 1)
        for rows, block in self.cloud.blocks(1):
            squares = (block * block).sum(1) * self.cloud.pull[rows]
            self.fixed_point.add(words, squares[:, None], torch.zeros_like(self.labels[rows]))
        return words

    def begin(self, held: Tensor) -> None:
        """Look at the distances to centres that are there already."""
        if len(held):
            _, self.closest = self._nearest(held)

    def draw(self, count: int, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The greatest keys of a draw in proportion to mass, at most `count`, and their rows.

        The generator draws for all points in every process. Its new state comes last.
        """
        generator = torch.Generator()
        generator.set_state(state)
        draws = torch.empty(self.total, dtype=torch.float64).exponential_(generator=generator).clamp_min_(1e-300)
        mass = self.closest * self.cloud.pull
        keys = mass / draws[self.rows.cpu()].to(mass.device)
        best = keys.topk(min(count, int((mass > 0).sum()))).indices
        return keys[best].cpu(), self.rows[best].cpu(), generator.get_state()

    def compare(self, new: Tensor, known: int, first: bool) -> None:
        """Look at the distances to new candidates, before which there were `known`."""
        labels, distances = self._nearest(new)
        nearer = torch.ones_like(labels, dtype=torch.bool) if first else distances < self.closest
        self.labels = torch.where(nearer, labels + known, self.labels)
        self.closest = torch.where(nearer, distances, self.closest)

    def candidate_mass(self, candidates: int) -> Tensor:
        """Words of what the points nearest to each candidate pull."""
        near = self.labels >= 0
        words = self._zeros(candidates, 1)
        self.fixed_point.add(words, self.cloud.pull[near, None], self.labels[near])
        return words

    def assign(self, centres: Tensor) -> Tensor:
        """Of each centre words of the sum and of the mass of its points, and how many these are."""
        self.before, self.labels = self.labels, torch.empty_like(self.labels)
        squares = (centres * centres).sum(1)
        words, mass = self._zeros(*centres.shape), self._zeros(len(centres), 1)
        for rows, block in self.cloud.blocks(len(centres)):
            self.labels[rows] = nearest_centres(block, centres, squares)
            pulled = block.mul_(self.cloud.pull[rows, None]) if self.weighted else block
            self.fixed_point.add(words, pulled, self.labels[rows])
        self.fixed_point.add(mass, self.cloud.pull[:, None], self.labels)
        numbers = torch.bincount(self.labels, minlength=len(centres)).double()
        return torch.cat([words, mass, numbers[None, :, None].expand(len(words), -1, 1)], 2)

    def step_back(self) -> None:
        """Take the centres that points had before the last time."""
        self.labels = self.before

    def farthest(self, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """What the points cost that are farthest from their centres, and their rows; at most `count`."""
        costs = self.own_distances(centres) * self.cloud.pull
        first = costs.argsort(descending=True, stable=True)[:count]
        return costs[first].cpu(), self.rows[first].cpu()

    def own_labels(self) -> Tensor:
        """(n,) int64."""
        return self.labels

    def own_distances(self, centres: Tensor) -> Tensor:
        """(n,) squared distances to the own centre, by differences."""
        distances = torch.empty_like(self.cloud.pull)
        for rows, block in self.cloud.blocks(1):
            distances[rows] = (block - centres[self.labels[rows]]).square_().sum(1)
        return distances

    def _zeros(self, sums: int, width: int) -> Tensor:
        return self.fixed_point.zeros(sums, width, device=self.cloud.middle.device)

    def _nearest(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        labels, distances = torch.empty_like(self.labels), torch.empty_like(self.cloud.pull)
        squares = (centres * centres).sum(1)
        for rows, block in self.cloud.blocks(len(centres)):
            labels[rows] = nearest_centres(block, centres, squares)
            distances[rows] = distances_to_own(block, centres, squares, labels[rows])
        return labels, distances


@dataclass(frozen=True, eq=False)
class _Assignment:
    """Of each centre the sum, the mass and the number of its points, and the inertia."""

    sums: Tensor
    mass: Tensor
    numbers: Tensor
    inertia: float


class _Lead:
    """What moves the centres, and has the shares do what takes long."""

    def __init__(self, points: Points, weights: Tensor | None) -> None:
        self.points, self.middle = points, mean_of(points).float()
        self.share = workers_of(points, _Share, self.middle, weights)
        self.fixed_point = FixedPoint(max(self.share.each(_Share.largest)), len(points), fine=weights is not None)
        self.share.each(_Share.prepare, self.fixed_point)
        self.energy = float(self.fixed_point.value(self.share.total(_Share.energy)))

    def start(self, k: int, held: Tensor, seed: int) -> Tensor:
        """Up to k distinct points, by k-means||: candidates drawn by squared distance, many at a time; the best.

        A candidate weighs what the points nearest to it pull.
        """
        generator = torch.Generator().manual_seed(seed)
        self.share.each(_Share.begin, held)
        drawn = held[:0]
        enough = max(2 * k, _LEAST_CANDIDATES)
        batch = min(enough // 5 + 1, 1024)
        count = batch if len(held) else 1
        while len(drawn) < enough:
            # the greatest keys are a draw without replacement, in proportion to the masses
            answers = self.share.each(_Share.draw, count, generator.get_state())
            generator.set_state(answers[0][2])
            best = _greatest([answer[:2] for answer in answers], count)
            if len(best) == 0:  # every point with a pull is a candidate already
                break
            new = self._points(best)
            copies = (squared_distances(new, new) == 0).tril(-1).any(1)
            new = new[~copies]
            self.share.each(_Share.compare, new, len(drawn), not len(drawn) and not len(held))
            drawn = torch.cat([drawn, new])
            count = batch
        pull = self.fixed_point.value(self.share.total(_Share.candidate_mass, len(drawn)))[:, 0].float()
        return _best_candidates(drawn, pull, k, held, generator)

    def assign(self, centres: Tensor) -> _Assignment:
        """One pass over the points."""
        words = self.share.total(_Share.assign, centres)
        found = self.fixed_point.value(words[:, :, :-1])
        sums, mass, places = found[:, :-1], found[:, -1], centres.double()
        inertia = self.energy + float((mass * (places * places).sum(1) - 2 * (sums * places).sum(1)).sum())
        return _Assignment(sums, mass, words[0, :, -1], inertia)

    def move(self, centres: Tensor, now: _Assignment, *, held: int) -> Tensor:
        """Every free centre to the mean of its points; one without points to the point farthest from its own centre."""
        mass = now.mass[:, None]
        moved = torch.where(mass > 0, now.sums / mass.clamp_min(torch.finfo(mass.dtype).tiny), centres).float()
        moved[:held] = centres[:held]
        vacant = (now.numbers == 0).nonzero().squeeze(1)
        vacant = vacant[vacant >= held]
        if len(vacant):
            farthest = _greatest(self.share.each(_Share.farthest, centres, len(vacant)), len(vacant))
            moved[vacant[: len(farthest)]] = self._points(farthest)
        return moved

    def _points(self, rows: Tensor) -> Tensor:
        return self.points[rows.to(self.points.device)].float() - self.middle


def _greatest(answers: list[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """The rows of the greatest of some values, at most `count`; of equal ones the first."""
    values, rows = (torch.cat(column) for column in zip(*answers, strict=True))
    order = rows.argsort()
    return rows[order[values[order].argsort(descending=True, stable=True)][:count]]


def _best_candidates(rows: Tensor, pull: Tensor, k: int, held: Tensor, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: of a few rows drawn by squared distance, keep the one that lowers the inertia most."""
    trials = 2 + int(math.log(k))
    squares = (rows * rows).sum(1)
    closest = torch.full((len(rows),), torch.inf, device=rows.device)
    closest = closest_of(rows, squares, held, closest)
    chosen: list[int] = []
    for _ in range(min(k, len(rows))):
        mass = (pull if not len(held) and not chosen else closest * pull).cumsum(0, dtype=torch.float64)
        if float(mass[-1]) <= 0:
            break
        draws = torch.rand(trials, dtype=torch.float64, generator=generator).to(rows.device) * mass[-1]
        candidates = torch.searchsorted(mass, draws, right=True).clamp_max_(len(rows) - 1)
        left = torch.minimum(closest, expanded_distances(rows[candidates], squares[candidates], rows, squares))
        best = int((left @ pull).argmin())
        chosen.append(int(candidates[best]))
        closest = left[best].clone()
        closest[chosen[-1]] = 0
    return rows[torch.tensor(chosen, dtype=torch.int64, device=rows.device)]
