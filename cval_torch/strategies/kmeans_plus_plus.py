"""`kmeans_plus_plus`: a draw that prefers frames far apart and uncertain."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.strategies.k_center import first_greatest
from cval_torch.strategies.nearest import closest_of, distances_to_own, nearest_centres, squared_distances
from cval_torch.strategies.parts import Part, workers_of
from cval_torch.strategies.points import Points, blocks_of

_BLOCK = 4096
_DRAWS = 64  # at a time
_FRESH = 256  # choices that rows have not seen, with which they are then compared


def kmeans_plus_plus(
    embeddings: Points, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """k-means++ draws on embeddings scaled by uncertainty, after BADGE (Ash et al. 2020, arXiv 1906.03671).

    BADGE draws among hallucinated gradients, whose length is the model's doubt and whose direction is what it sees.
    Scaled embeddings are such vectors: a frame without doubt is at the origin, where nothing is far from anything.

    A draw in proportion to the squared distances needs these up to date, which is a pass over all rows for each choice.
    So it is made by rejection: a row is drawn in proportion to the distance that it had at the last pass, which is no
    less than it is now, and accepted with the probability of one over the other. That gives the same distribution, and
    a pass for some hundred choices.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: of the draws.
        labeled: not used: nobody is in doubt of a labeled frame, which so is at the origin.
        weights: (N,) non-negative, the doubts; None is 1.

    Returns:
        (n,) int64 distinct rows: the longest vector, and then as drawn, each in proportion to its squared distance to
        the nearest one chosen. Where none is left that is distinct, the rest by row.
    """
    draws = _Draws(embeddings, weights, seed)
    while len(draws.chosen) < n and draws.choose_some(n):
        pass
    chosen = draws.chosen
    if len(chosen) < n:
        left = torch.ones(len(embeddings), dtype=torch.bool)
        left[chosen] = False
        chosen += left.nonzero().squeeze(1)[: n - len(chosen)].tolist()
    return torch.tensor(chosen, dtype=torch.int64, device=embeddings.device)


class _Share:
    """The points of one process, scaled, and of each the squared distance to the nearest choice that it has seen."""

    def __init__(self, part: Part, scales: Tensor) -> None:
        self.points, self.scales = part.points, scales[part.rows]
        self.closest = torch.full_like(self.scales, torch.inf)

    def lengths(self) -> Tensor:
        """(n,) squared."""
        lengths = torch.empty_like(self.closest)
        for rows, block in blocks_of(self.points, _BLOCK):
            lengths[rows] = block.float().square().sum(1) * self.scales[rows].square()
        return lengths

    def compare(self, fresh: Tensor) -> Tensor:
        """(n,) the distances, up to date with (f, D) choices that were made since the last time."""
        squares = (fresh * fresh).sum(1)
        for rows, block in blocks_of(self.points, _BLOCK):
            points = block.float() * self.scales[rows, None]
            own = nearest_centres(points, fresh, squares)
            self.closest[rows] = torch.minimum(self.closest[rows], distances_to_own(points, fresh, squares, own))
        return self.closest


class _Draws:
    """The rows chosen so far, and of each row the squared distance to the nearest of those that it has seen."""

    def __init__(self, embeddings: Points, weights: Tensor | None, seed: int) -> None:
        self.embeddings, self.generator = embeddings, torch.Generator().manual_seed(seed)
        self.scales = torch.ones(len(embeddings), device=embeddings.device)
        if weights is not None:
            largest = weights.amax().clamp_min(torch.finfo(torch.float64).tiny)
            self.scales = (weights / largest).to(self.scales)
        self.share = workers_of(embeddings, _Share, self.scales)
        self.chosen = [first_greatest(self.share.column(_Share.lengths))]
        self.fresh = self._points(torch.tensor(self.chosen, device=embeddings.device))
        self._compare()

    def choose_some(self, n: int) -> bool:
        """Draw some rows more, until there are n; False if all that are left are copies of chosen ones."""
        total = self.mass[-1]
        if float(total) <= 0:
            return False
        draws = torch.rand(_DRAWS, 2, dtype=torch.float64, generator=self.generator).to(self.mass.device)
        rows = torch.searchsorted(self.mass, total * draws[:, 0], right=True).clamp_max_(len(self.mass) - 1)
        points, bounds = self._points(rows), self.closest[rows]
        now = closest_of(points, (points * points).sum(1), self.fresh, bounds)
        between = squared_distances(points, points)
        accepted: list[int] = []
        for place, (chance, bound) in enumerate(zip(draws[:, 1].tolist(), bounds.tolist(), strict=True)):
            if len(self.chosen) < n and chance * bound < float(now[place]):
                self.chosen.append(int(rows[place]))
                accepted.append(place)
                now = torch.minimum(now, between[place])
        self.fresh = torch.cat([self.fresh, points[accepted]])
        if len(self.fresh) >= _FRESH or not accepted:
            self._compare()
        return True

    def _compare(self) -> None:
        """Bring all distances up to date; the chosen rows are at 0."""
        if len(self.fresh):
            self.closest = self.share.column(_Share.compare, self.fresh).clone()
        self.closest[self.chosen] = 0
        self.fresh = self.fresh[:0]
        self.mass = self.closest.cumsum(0, dtype=torch.float64)

    def _points(self, rows: Tensor) -> Tensor:
        """(r, D) scaled."""
        return self.embeddings[rows].float() * self.scales[rows, None]
