"""`k_center`: the farthest frame, again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.strategies.kmeans import mean_of
from cval_torch.strategies.nearest import squared_distances
from cval_torch.strategies.parts import Part, workers_of
from cval_torch.strategies.points import Points

# Rows that may be chosen next are looked at so many at a time, others not until they may be; fewer of few rows, so that
# memory does not begin with large blocks.
_CANDIDATES = 1024
_FEWEST_CANDIDATES = 128
_ROWS_A_CANDIDATE = 64
# The farthest rows are looked for among so many times as many, at least 2, for as long as no other can be one of them.
_FRONT = 16
# Of so many that are proposed, all distances are worked out at once.
_FEW_PROPOSED = 256


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
    lead = _Lead(embeddings, labeled)
    while len(lead.chosen) < n:
        lead.choose_some(n)
    return torch.tensor(lead.chosen, dtype=torch.int64, device=embeddings.device)


class _Lead:
    """The choice so far, and what the shares have not been told of it."""

    def __init__(self, embeddings: Points, labeled: Tensor | None) -> None:
        self.middle = mean_of(embeddings)
        known = self.middle[None][:0] if labeled is None else labeled.double() - self.middle
        self.share = workers_of(embeddings, _Share, self.middle, known)
        self.chosen: list[int] = []
        first = embeddings[torch.arange(0, device=embeddings.device)]
        if len(known) == 0:
            answers = self.share.each(_Share.outermost)
            farthest = max(value for value, _ in answers)
            self.chosen.append(min(row for value, row in answers if value == farthest))
            first = embeddings[torch.tensor(self.chosen, device=embeddings.device)]
        self.share.each(_Share.begin, first)
        self.rows = torch.tensor(self.chosen, dtype=torch.int64, device=embeddings.device)
        self.closest = torch.full((len(first),), -1.0, dtype=torch.float64, device=embeddings.device)
        self.new = first[:0]

    def choose_some(self, n: int) -> None:
        """Choose among the farthest rows of all shares while no other can be as far, until there are n."""
        answers = self.share.each(_Share.propose, self.new, self.rows, self.closest)
        rows, order = torch.cat([answer.rows for answer in answers]).sort()
        closest = torch.cat([answer.closest for answer in answers])[order]
        given = torch.cat([answer.points for answer in answers])[order]
        points = given.double() - self.middle
        bound = max(answer.bound for answer in answers)
        next_row = min(answer.next_row for answer in answers if answer.bound == bound)
        apart = squared_distances(points, points) if len(points) <= _FEW_PROPOSED else None
        picked: list[int] = []
        while len(self.chosen) < n and len(rows):
            best = first_greatest(closest.float())
            value = float(closest[best].float())
            if value < bound or (value == bound and int(rows[best]) > next_row):
                break
            self.chosen.append(int(rows[best]))
            picked.append(best)
            nearer = squared_distances(points, points[best : best + 1]).squeeze(1) if apart is None else apart[best]
            closest = torch.minimum(closest, nearer)
            closest[best] = -1
        self.rows, self.closest, self.new = rows, closest, given[picked]


def candidates_of(rows: int) -> int:
    """How many of so many rows are looked at at a time."""
    return min(max(rows // _ROWS_A_CANDIDATE, _FEWEST_CANDIDATES), _CANDIDATES)


@dataclass(frozen=True, eq=False)
class _Proposal:
    """The farthest rows of a share, with their distances and points; and what its others may have at the most.

    `next_row` is the first that may have the `bound`.
    """

    rows: Tensor
    closest: Tensor
    points: Tensor
    bound: float
    next_row: int


class _Share:
    """The points of one process, and of each the squared distance to the nearest centre among the first few.

    Centres are the labeled points and the chosen ones, in this order.

    Args:
        part: the points.
        middle: (D,) float64, where the origin is to be.
        labeled: (L, D) float64, about it.
    """

    def __init__(self, part: Part, middle: Tensor, labeled: Tensor) -> None:
        self.part, self.middle, self.centres = part, middle, labeled
        self.count, self.step = len(labeled), candidates_of(part.total)
        count, device = len(part.points), middle.device
        self.closest = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
        self.seen = torch.zeros(count, dtype=torch.int64, device=device)
        self.front = Front()

    def outermost(self) -> tuple[float, int]:
        """The greatest squared distance to the middle, and the row that has it."""
        lengths = torch.empty_like(self.closest)
        for rows in torch.split(self._everything(), self.step):
            lengths[rows] = self._points(rows).square().sum(1)
        if not len(lengths):
            return -torch.inf, self.part.total
        row = first_greatest(lengths.float())
        return float(lengths[row].float()), int(self.part.rows[row])

    def begin(self, centre: Tensor) -> None:
        """Compare all points with some centres, so that each has a bound; with the point (1, D) or none beside."""
        self._add(centre)
        self._compare(self._everything(), min(self.count, 256), self._points)

    def propose(self, new: Tensor, rows: Tensor, closest: Tensor) -> _Proposal:
        """The farthest rows, up to date.

        Args:
            new: (c, D) the points that were chosen since the last time, as the pool has them.
            rows: (r,) those that were proposed by all.
            closest: (r,) their squared distances to all centres; below 0 for chosen ones.
        """
        self._add(new)
        place = torch.searchsorted(self.part.rows, rows).clamp_max_(max(len(self.part.rows) - 1, 0))
        ours = self.part.rows[place] == rows if len(self.part.rows) else torch.zeros_like(rows, dtype=torch.bool)
        self.closest[place[ours]], self.seen[place[ours]] = closest[ours], self.count
        while True:
            best, bound, following = self.front.greatest(self.closest, self.step)
            points = self.part.points[best]
            self._compare(best, self.count, _Among(best, points.double() - self.middle))
            can_be_first = self.closest[best].float() >= bound
            best, points = best[can_be_first], points[can_be_first]
            if len(best) or not len(self.closest):
                break
        next_row = int(self.part.rows[following]) if following < len(self.part.rows) else self.part.total
        return _Proposal(self.part.rows[best], self.closest[best], points, bound, next_row)

    def _everything(self) -> Tensor:
        return torch.arange(len(self.closest), device=self.closest.device)

    def _add(self, new: Tensor) -> None:
        if self.count + len(new) > len(self.centres):  # room for as many again
            room = max(len(self.centres), len(new), 256)
            self.centres = torch.cat([self.centres, self.centres.new_empty(room, self.centres.shape[1])])
        self.centres[self.count : self.count + len(new)] = new.double() - self.middle
        self.count += len(new)

    def _compare(self, rows: Tensor, centres: int, points: Callable[[Tensor], Tensor]) -> None:
        """Bring the distances of some rows up to date with the first `centres`."""
        catch_up(
            rows,
            self.closest,
            self.seen,
            points=points,
            centres=lambda begin, end: self.centres[begin:end],
            count=centres,
            step=self.step,
        )

    def _points(self, rows: Tensor) -> Tensor:
        return self.part.points[rows].double() - self.middle


class _Among:
    """Gives the points at some of (r,) rising rows, of which it has all, (r, D)."""

    def __init__(self, rows: Tensor, points: Tensor) -> None:
        self.rows, self.points = rows, points

    def __call__(self, rows: Tensor) -> Tensor:
        return self.points[torch.searchsorted(self.rows, rows)]


class Front:
    """The greatest of many values that only fall, looked for among those that were the greatest some time ago.

    Attributes:
        rows: these, rising.
        outside: what any other has at the most.
    """

    def __init__(self) -> None:
        self.rows, self.outside = torch.empty(0, dtype=torch.int64), torch.inf

    def greatest(self, values: Tensor, count: int) -> tuple[Tensor, float, int]:
        """What `greatest_rows(values.float(), count)` is, of (N,) values none of which is greater than before."""
        rows = self.rows.to(values.device)
        best, bound, following = greatest_rows(values[rows].float(), count)
        if bound <= self.outside:
            rows, self.outside, _ = greatest_rows(values.float(), _FRONT * count)
            self.rows = rows
            best, bound, following = greatest_rows(values[rows].float(), count)
        return rows[best], bound, int(rows[following]) if following < len(rows) else len(values)


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
