"""`facility_location`: frames near which every other frame has something like it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor

from cval_torch.strategies.k_center import first_greatest
from cval_torch.strategies.kmeans import Cloud, mean_of
from cval_torch.strategies.nearest import squared_distances
from cval_torch.strategies.points import Points

# Of more rows than this, the costs of a sample are lowered, and each choice is made among rows drawn at random.
EXACT_ROWS = 20_000
# What the draws of candidates may lose of the bound: 1 - 1/e - 0.1.
_EPSILON = 0.1
# The sample has at least so many rows, and from the 129th choice on so many a choice, up to a most.
_FEWEST_SAMPLED = 2048
_SAMPLED_A_CHOICE = 16
_MOST_SAMPLED = 2**16
# Gains are worked out anew for so many candidates at a time; of many candidates, for twice as many each time.
_CANDIDATES = 64
_MOST_CANDIDATES = 4096
_BLOCK_ELEMENTS = 2**18


def facility_location(
    embeddings: Points, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Greedy maximisation of the facility location function, lazily (Minoux 1978), without an N x N matrix.

    The cost of a frame is its squared distance to the nearest chosen or labeled one, at most `c`, the squared diameter
    of the pool or more (as if one such had been chosen). Each choice lowers the weighted sum of costs most; greedy
    comes within `1 - 1/e` of the best. Unlike k-centre it serves the many, and leaves outliers.

    Up to `EXACT_ROWS` rows every pair of frames is looked at, and near ones a few times more: time grows with N^2 D.
    Of more, this is stochastic greedy (Mirzasoleiman et al. 2015, arXiv 1409.7938) on samples:

    - The i-th choice is the best of `N/i ln(1/eps)` rows drawn at random, with eps = 0.1. The paper draws
      `N/n ln(1/eps)` for each of n choices, never more. So its bound holds for every n, and the choice of n rows begins
      with that of fewer: on one sample the expected gain is `1 - 1/e - eps` of the best possible or more.
    - The costs are those of m sampled rows: 2,048, or 16 times n and more, at most 65,536 (and N). A new sample is
      drawn after 128, 256, 512, ... choices. Rows are drawn one from each of m stretches of equal weight, so that the
      sampled sum is unbiased, and its terms are independent. By Hoeffding (1963), the gain of given rows is off by more
      than `t c` times the sum of weights with probability `2 exp(-2 m t^2)` at the most: by 3.6 % with 1 % at 2,048
      rows, by 0.64 % at 65,536. For all sets of n rows at once, `t` is `sqrt((n ln(e N/n) + ln(2/p)) / 2m)` with
      probability `1 - p`. The expected gain on all rows is `1 - 1/e - eps` of the best or more, less four times the
      sum of these deviations over the samples. That is loose.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: of the samples and draws; not used up to `EXACT_ROWS` rows.
        labeled: (L, D) what is annotated already, as good as chosen.
        weights: (N,) non-negative, how much each frame's cost counts; None is 1.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally good ones, in float32, by row. Beyond `EXACT_ROWS` time
        grows with `N D m ln n` at the most. Memory beside the embeddings is some ten numbers a row, a sample, and
        blocks.
    """
    cloud = Cloud(embeddings, mean_of(embeddings).float(), weights)
    if len(cloud) > EXACT_ROWS:
        return _by_samples(cloud, n, labeled, seed)
    everything = torch.arange(len(cloud), device=embeddings.device)
    gains = _Gains(cloud, cloud, _squares(cloud), _centred(labeled, cloud))
    chosen: list[int] = []
    while len(chosen) < n:
        row = gains.best(everything, at_once=_CANDIDATES)
        chosen.append(row)
        gains.choose(row)
    return torch.tensor(chosen, dtype=torch.int64, device=embeddings.device)


def _by_samples(cloud: Cloud, n: int, labeled: Tensor | None, seed: int) -> Tensor:
    """Stochastic greedy on the costs of samples. Nothing that is drawn for a choice depends on `n`."""
    generator = torch.Generator().manual_seed(seed)
    squares, unchosen = _squares(cloud), _Unchosen(len(cloud))
    chosen = torch.empty(n, dtype=torch.int64)
    for count in range(n):
        if _begins_sample(count):
            served = _sample(cloud, _rows_sampled(count, len(cloud)), generator)
            already = (cloud.rows(rows) for rows in _split(chosen[:count]))
            gains = _SampledGains(cloud, served, squares, chain(_centred(labeled, cloud), already))
        rows = unchosen.draw(math.ceil(len(cloud) * -math.log(_EPSILON) / (count + 1)), generator)
        row = gains.best(rows.to(cloud.points.device), at_once=_MOST_CANDIDATES)
        chosen[count] = row
        unchosen.remove(row)
        gains.choose(row)
    return chosen.to(cloud.points.device)


def _begins_sample(count: int) -> bool:
    """Whether a new sample is drawn after so many choices: after 0, 128, 256, 512, ..."""
    return count == 0 or (count.bit_count() == 1 and count * _SAMPLED_A_CHOICE >= _FEWEST_SAMPLED)


def _rows_sampled(count: int, most: int) -> int:
    """How many, for the choices after `count` and before twice as many."""
    return min(max(2 * count * _SAMPLED_A_CHOICE, _FEWEST_SAMPLED), _MOST_SAMPLED, most)


def _sample(cloud: Cloud, size: int, generator: torch.Generator) -> Cloud:
    """One row out of each of `size` stretches of equal weight; how often it was drawn is its weight."""
    weights = cloud.pull.cpu().double()
    if not (weights > 0).any():  # whatever is chosen is as good
        weights = torch.ones_like(weights)
    ends = weights.cumsum(0)
    places = torch.arange(size, dtype=torch.float64) + torch.rand(size, dtype=torch.float64, generator=generator)
    places = torch.minimum(places * (ends[-1] / size), torch.nextafter(ends[-1], ends.new_zeros(())))
    rows, times = torch.unique(torch.searchsorted(ends, places, right=True), return_counts=True)
    return Cloud(cloud.rows(rows), torch.zeros_like(cloud.middle), times.to(cloud.middle))


def _split(points: Tensor) -> tuple[Tensor, ...]:
    return torch.split(points, _CANDIDATES) if len(points) else ()


def _centred(labeled: Tensor | None, cloud: Cloud) -> Iterator[Tensor]:
    """What is labeled as the cloud has its points, some at a time."""
    for block in () if labeled is None else _split(labeled):
        yield block.float() - cloud.middle


def _squares(cloud: Cloud) -> Tensor:
    """(N,) squared distances from the middle."""
    squares = torch.empty_like(cloud.pull)
    for rows, block in cloud.blocks(1):
        squares[rows] = (block * block).sum(1)
    return squares


class _Unchosen:
    """The rows that are not chosen, of which some are drawn. They lie first in `rows`, each at its place."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.rows, self.places = torch.arange(count), torch.arange(count)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Rising, the distinct ones of `size` draws; all where that many would be drawn."""
        if size >= self.count:
            return self.rows[: self.count].sort().values
        places = torch.randint(self.count, (size,), generator=generator)
        rows: Tensor = torch.unique(self.rows[places])
        return rows

    def remove(self, row: int) -> None:
        """The last one takes its place."""
        self.count -= 1
        place, last = int(self.places[row]), int(self.rows[self.count])
        self.rows[place], self.places[last] = last, place


class _Gains:
    """By how much each row would lower the costs of the `served`: bounds, since gains only fall, and what has happened
    since each.

    A choice lowers the costs of few rows. They are written down with the costs before and after, and to bring the gain
    of a candidate up to date takes a look at those alone that were written down since the last time.
    """

    def __init__(self, cloud: Cloud, served: Cloud, squares: Tensor, known: Iterable[Tensor]) -> None:
        self.cloud, self.served = cloud, served
        self.cost = torch.full_like(served.pull, 4 * float(squares.amax()))  # the squared diameter, or more
        self.changed = torch.empty(0, dtype=torch.int64, device=served.pull.device)
        self.before, self.after = self.cost[:0], self.cost[:0]
        self.seen = torch.zeros(len(cloud), dtype=torch.int64, device=served.pull.device)  # up to which change
        begun = False
        for points in known:
            self.cost, begun = self._lowered(points), True
        if not begun:
            self.bounds = self._first(squares)
            return
        self.seen -= len(served)  # so many changes ago that a gain is worked out anew
        self.bounds = torch.full_like(self.seen, torch.inf, dtype=torch.float64)

    def best(self, rows: Tensor, *, at_once: int) -> int:
        """Of some rising rows the one whose gain, up to date, is the greatest: no bound of another is greater."""
        count = _CANDIDATES
        while True:
            keys = self.bounds[rows].float()
            row = int(rows[first_greatest(keys)])
            if int(self.seen[row]) == len(self.changed):
                return row
            few = rows[keys.topk(min(count, len(keys))).indices]
            few = few[self.seen[few] < len(self.changed)]
            self._look_again(torch.unique(torch.cat([few, few.new_tensor([row])])))
            count = min(2 * count, at_once)

    def choose(self, row: int) -> None:
        """Lower the costs, and write down which."""
        new = self._lowered(self.cloud.rows([row]))
        changed = (new < self.cost).nonzero().squeeze(1)
        self.changed = torch.cat([self.changed, changed])
        self.before = torch.cat([self.before, self.cost[changed]])
        self.after = torch.cat([self.after, new[changed]])
        self.cost = new
        self.bounds[row], self.seen[row] = -torch.inf, torch.iinfo(torch.int64).max

    def _look_again(self, candidates: Tensor) -> None:
        begin, end = int(self.seen[candidates].amin()), len(self.changed)
        if end - begin < len(self.cost):
            self.bounds[candidates] -= self._losses(candidates, begin)
        else:
            self.bounds[candidates] = self._gains(candidates)
        self.seen[candidates] = end

    def _first(self, squares: Tensor) -> Tensor:
        """Gains where nothing is chosen yet: no cost is below a distance, and sums of distances have a closed form."""
        pull = self.served.pull.double()
        total = torch.zeros_like(self.cloud.middle, dtype=torch.float64)
        for rows, block in self.served.blocks(1):
            total += pull[rows] @ block.double()
        own = squares if self.served is self.cloud else _squares(self.served)
        costs = ((self.cost - own).double() * pull).sum()
        gains = costs - squares.double() * pull.sum()
        for rows, block in self.cloud.blocks(1):
            gains[rows] += 2 * block.double() @ total
        return gains

    def _gains(self, candidates: Tensor) -> Tensor:
        """(c,) float64."""
        points = self.cloud.rows(candidates)
        gains = torch.zeros(len(candidates), dtype=torch.float64, device=points.device)
        for rows, block in self.served.blocks(len(points)):
            saved = (self.cost[rows, None] - squared_distances(block, points)).clamp_min_(0)
            gains += self.served.pull[rows] @ saved
        return gains

    def _losses(self, candidates: Tensor, begin: int) -> Tensor:
        """(c,) float64, by how much gains have fallen since each was last looked at; `begin` is the earliest."""
        points, seen = self.cloud.rows(candidates), self.seen[candidates]
        losses = torch.zeros(len(candidates), dtype=torch.float64, device=points.device)
        places = torch.arange(begin, len(self.changed), device=points.device)
        for block in torch.split(places, max(_BLOCK_ELEMENTS // len(points), 1)):
            rows = self.changed[block]
            distances = squared_distances(self.served.rows(rows), points)
            lost = (self.before[block, None] - distances).clamp_min_(0)
            lost -= (self.after[block, None] - distances).clamp_min_(0)
            lost.masked_fill_(block[:, None] < seen, 0)
            losses += self.served.pull[rows] @ lost
        return losses

    def _lowered(self, points: Tensor) -> Tensor:
        """The costs when `points` are chosen too."""
        cost = self.cost.clone()
        for rows, block in self.served.blocks(len(points)):
            cost[rows] = torch.minimum(cost[rows], squared_distances(block, points).amin(1))
        return cost


class _SampledGains(_Gains):
    """The same in half the time, but for rounding: by one product, whose result is written over."""

    def _gains(self, candidates: Tensor) -> Tensor:
        points = self.cloud.rows(candidates)
        gains = torch.zeros(len(candidates), dtype=torch.float64, device=points.device)
        doubled, squares = (2 * points).T.contiguous(), (points * points).sum(1)
        heights = torch.where(self.cost > 0, self.cost - _squares(self.served), -torch.inf)[:, None]
        for rows, block in self.served.blocks(len(points)):
            saved = (block @ doubled).add_(heights[rows]).sub_(squares).relu_()  # costs less squared distances
            gains += self.served.pull[rows] @ saved
        return gains
