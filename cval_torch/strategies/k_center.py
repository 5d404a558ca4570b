"""`k_center`: the farthest frame, again and again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cval_torch.strategies.kmeans import mean_of, squared_distances
from cval_torch.strategies.points import Points

# Rows that may be chosen next are looked at so many at a time, others not until they may be; fewer of few rows, so that
# memory does not begin with large blocks.
_CANDIDATES = 1024
_FEWEST_CANDIDATES = 128
_ROWS_A_CANDIDATE = 64


def k_center(
    embeddings: Points, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Greedy k-centre, or core-set selection (Gonzalez 1985; Sener and Savarese 2018, arXiv 1708.00489).

    Each choice is the frame farthest from everything labeled and chosen: the largest distance of any frame to its
    nearest chosen one ends within twice the least possible. Reaches for outliers by design. Exact, though most frames
    are not compared with most choices: distances to the nearest one only fall, so a frame need not be looked at again
    before all that were farther are chosen or nearer.

    Args:
        embeddings: (N, D) float.
        n: rows to choose, 1 to N.
        seed: not used: without labeled frames the first choice is the frame farthest from the mean.
        labeled: (L, D) what is annotated already, as good as chosen.
        weights: not used.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally far ones by row. Distances are worked out in float64
        and compared in float32. Memory is N numbers beside the embeddings, and some blocks.
    """
    far = _Farthest(embeddings, n, labeled)
    while far.count < n:
        far.choose_some()
    return far.chosen


def candidates_of(rows: int) -> int:
    """How many of so many rows are looked at at a time."""
    return min(max(rows // _ROWS_A_CANDIDATE, _FEWEST_CANDIDATES), _CANDIDATES)


class _Farthest:
    """The choice so far, and of each row the squared distance to the nearest centre among the first few."""

    def __init__(self, embeddings: Points, n: int, labeled: Tensor | None) -> None:
        self.embeddings = embeddings
        self.step = candidates_of(len(embeddings))
        self.labeled = embeddings[:0] if labeled is None else labeled
        self.middle = mean_of(embeddings)
        self.chosen = torch.empty(n, dtype=torch.int64, device=embeddings.device)
        self.count = 0
        self.closest = torch.full((len(embeddings),), torch.inf, dtype=torch.float64, device=embeddings.device)
        self.seen = torch.zeros(len(embeddings), dtype=torch.int64, device=embeddings.device)
        everything = torch.arange(len(embeddings), device=embeddings.device)
        if len(self.labeled) == 0:
            for rows in torch.split(everything, self.step):
                self.closest[rows] = self._points(rows).square().sum(1)
            self._choose(first_greatest(self.closest.float()))
            self.closest.fill_(torch.inf)
        self._compare(everything, min(len(self.labeled), 256) or 1)
        self.closest[self.chosen[: self.count]] = -1

    def choose_some(self) -> None:
        """Bring the farthest rows up to date, and choose among them while no other can be as far."""
        rows, bound, next_row = greatest_rows(self.closest.float(), self.step)
        centres = len(self.labeled) + self.count
        self._compare(rows, centres)
        points, closest = self._points(rows), self.closest[rows]
        while self.count < len(self.chosen):
            best = first_greatest(closest.float())
            value = float(closest[best].float())
            if value < bound or (value == bound and int(rows[best]) > next_row):
                break
            self._choose(int(rows[best]))
            closest = torch.minimum(closest, squared_distances(points, points[best : best + 1]).squeeze(1))
            closest[best] = -1
        self.closest[rows] = closest
        self.seen[rows] = len(self.labeled) + self.count

    def _choose(self, row: int) -> None:
        self.chosen[self.count] = row
        self.count += 1

    def _compare(self, rows: Tensor, centres: int) -> None:
        """Bring the distances of some rows up to date with the first `centres`."""
        catch_up(
            rows, self.closest, self.seen, points=self._points, centres=self._centres, count=centres, step=self.step
        )

    def _centres(self, begin: int, end: int) -> Tensor:
        known = len(self.labeled)
        chosen = self.chosen[max(begin - known, 0) : max(end - known, 0)]
        return torch.cat([self.labeled[begin:end].double() - self.middle, self._points(chosen)])

    def _points(self, rows: Tensor) -> Tensor:
        return self.embeddings[rows].double() - self.middle


def first_greatest(values: Tensor) -> int:
    """The first place of the greatest value: `argmax` may name any of several."""
    return int((values == values.amax()).nonzero()[0])


def greatest_rows(values: Tensor, count: int) -> tuple[Tensor, float, int]:
    """(r,) rows of the greatest of (N,) values, rising; what any other row has at the most, and the first that has it.

    Of equal values the first rows are taken. With `count` rows or fewer, all of them; then nothing bounds the others.
    """
    if len(values) <= count:
        return torch.arange(len(values), device=values.device), -torch.inf, len(values)
    bound = values.topk(count + 1).values[-1]
    above, equal = (values > bound).nonzero().squeeze(1), (values == bound).nonzero().squeeze(1)
    room = count - len(above)
    return torch.cat([above, equal[:room]]).sort().values, float(bound), int(equal[room])


def catch_up(
    rows: Tensor,
    closest: Tensor,
    seen: Tensor,
    *,
    points: Callable[[Tensor], Tensor],
    centres: Callable[[int, int], Tensor],
    count: int,
    step: int,
) -> None:
    """Bring the squared distances of some rows to their nearest centre up to date, in place.

    Args:
        rows: (r,) int64.
        closest: (N,) squared distances to the nearest of the centres that a row has seen.
        seen: (N,) int64, how many of the centres it has seen.
        points: gives (b, D), the points at (b,) rows.
        centres: gives those from one to another, (c, D).
        count: how many centres there are.
        step: rows, and centres, that are compared at a time.
    """
    stale = rows[seen[rows] < count]
    stale = stale[seen[stale].argsort(stable=True)]
    for block in torch.split(stale, step) if len(stale) else ():
        own, nearest = points(block), closest[block]
        for begin in range(int(seen[block[0]]), count, step):
            others = centres(begin, min(begin + step, count))
            nearest = torch.minimum(nearest, squared_distances(own, others).amin(1))
        closest[block], seen[block] = nearest, count
