"""`facility_location`: frames near which every other frame has something like it."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.strategies.k_center import first_greatest
from cval_torch.strategies.kmeans import Cloud, mean_of
from cval_torch.strategies.nearest import squared_distances
from cval_torch.strategies.points import Points

# Gains are worked out anew for so many candidates at a time.
_CANDIDATES = 64


def facility_location(
    embeddings: Points, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
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
        (n,) int64 distinct rows in the order of choice; equally good ones, in float32, by row. Every pair of frames is
        looked at, and near ones a few times more: time grows with N^2 D. Put another stage before it that keeps some
        ten thousand.
    """
    gains = _Gains(embeddings, labeled, weights)
    chosen: list[int] = []
    while len(chosen) < n:
        row = gains.best()
        chosen.append(row)
        gains.choose(row)
    return torch.tensor(chosen, dtype=torch.int64, device=embeddings.device)


class _Gains:
    """By how much each row would lower the costs: bounds, since gains only fall, and what has happened since each.

    A choice lowers the costs of few rows. They are written down with the costs before and after, and to bring the gain
    of a candidate up to date takes a look at those alone that were written down since the last time.
    """

    def __init__(self, embeddings: Points, labeled: Tensor | None, weights: Tensor | None) -> None:
        self.cloud = Cloud(embeddings, mean_of(embeddings).float(), weights)
        squares = torch.empty_like(self.cloud.pull)
        for rows, block in self.cloud.blocks(1):
            squares[rows] = (block * block).sum(1)
        self.cost = torch.full_like(squares, 4 * float(squares.amax()))
        self.changed = torch.empty(0, dtype=torch.int64, device=squares.device)
        self.before, self.after = self.cost[:0], self.cost[:0]
        self.seen = torch.zeros(len(squares), dtype=torch.int64, device=squares.device)  # up to which change
        if labeled is None or len(labeled) == 0:
            self.bounds = self._first(squares)
            return
        for block in torch.split(labeled, _CANDIDATES):
            self.cost = self._lowered(block.float() - self.cloud.middle)
        self.bounds = torch.empty_like(squares, dtype=torch.float64)
        for some in torch.split(torch.arange(len(squares), device=squares.device), _CANDIDATES):
            self.bounds[some] = self._gains(some)

    def best(self) -> int:
        """The row whose gain, up to date, is the greatest: no bound of another is greater."""
        while True:
            keys = self.bounds.float()
            row = first_greatest(keys)
            if int(self.seen[row]) == len(self.changed):
                return row
            few = keys.topk(min(_CANDIDATES, len(keys))).indices
            few = few[self.seen[few] < len(self.changed)]
            self._look_again(torch.unique(torch.cat([few, few.new_tensor([row])])))

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
        pull = self.cloud.pull.double()
        total = torch.zeros_like(self.cloud.middle, dtype=torch.float64)
        for rows, block in self.cloud.blocks(1):
            total += pull[rows] @ block.double()
        costs = ((self.cost - squares).double() * pull).sum()
        gains = costs - squares.double() * pull.sum()
        for rows, block in self.cloud.blocks(1):
            gains[rows] += 2 * block.double() @ total
        return gains

    def _gains(self, candidates: Tensor) -> Tensor:
        """(c,) float64."""
        points = self.cloud.rows(candidates)
        gains = torch.zeros(len(candidates), dtype=torch.float64, device=points.device)
        for rows, block in self.cloud.blocks(len(points)):
            saved = (self.cost[rows, None] - squared_distances(block, points)).clamp_min_(0)
            gains += self.cloud.pull[rows] @ saved
        return gains

    def _losses(self, candidates: Tensor, begin: int) -> Tensor:
        """(c,) float64, by how much gains have fallen since each was last looked at; `begin` is the earliest."""
        points, seen = self.cloud.rows(candidates), self.seen[candidates]
        losses = torch.zeros(len(candidates), dtype=torch.float64, device=points.device)
        places = torch.arange(begin, len(self.changed), device=points.device)
        for block in torch.split(places, 4096):
            rows = self.changed[block]
            distances = squared_distances(self.cloud.rows(rows), points)
            lost = (self.before[block, None] - distances).clamp_min_(0)
            lost -= (self.after[block, None] - distances).clamp_min_(0)
            lost.masked_fill_(block[:, None] < seen, 0)
            losses += self.cloud.pull[rows] @ lost
        return losses

    def _lowered(self, points: Tensor) -> Tensor:
        """(N,) the costs when `points` are chosen too."""
        cost = self.cost.clone()
        for rows, block in self.cloud.blocks(len(points)):
            cost[rows] = torch.minimum(cost[rows], squared_distances(block, points).amin(1))
        return cost
