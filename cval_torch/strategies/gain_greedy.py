"""The greedy choice of `class_gain`: who chooses, and who compares places, in one process or where they lie."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cval_torch.pool.offsets import places_of
from cval_torch.strategies.class_sums import ClassSums
from cval_torch.strategies.k_center import candidates_of, catch_up, first_greatest, greatest_rows
from cval_torch.strategies.nearest import squared_distances
from cval_torch.strategies.parts import Part, workers_of
from cval_torch.strategies.points import Points

# No two places are as far apart, squared: lengths are at most the root of 1 + 1 (looks, place) + 1/4 (classes).
_FARTHER_THAN_ANY = 9.0
# Of what a box is worth, the share that it is worth without a doubt.
_SURE_SHARE = 0.3
_LEAST = 1e-12
# Rows at hand are looked for among so many times as many, for as long as no other can be worth more.
_FRONT = 16
# Rows that are nearer than this share of what they were, squared, are not at hand. At most 1, so that others are.
_AS_FAR = 0.9


Quotas = Sequence[tuple[Tensor, int]]
"""(F,) bool, which frames show a class, and how many of them are to be chosen before any others."""


def gain_greedy(
    places: Points,
    objects: ClassSums,
    *,
    classes: Tensor,
    known: Tensor,
    labeled: Tensor,
    n: int,
    quotas: Quotas = (),
) -> Tensor:
    """What `class_gain` chooses.

    Args:
        places: (F, D) float32, where the frames lie.
        objects: of each frame and class the doubtful and the expected objects.
        classes: (K,) int64, rising, all labels that there are.
        known: (K,) float64, the objects of these that are known.
        labeled: (L, D) float32, where the labeled frames lie.
        n: frames to choose, 1 to F.
        quotas: are served in this order; what was chosen before counts.

    Returns:
        (n,) int64 rows in the order of choice. Memory is some numbers for each frame and pair, and the places of the
        chosen and labeled frames in every process, beside blocks.
    """
    greedy = _Greedy(places, _Gains(objects, classes), known, n)
    if len(labeled):
        greedy.compare_all(labeled)
    for shows, quota in quotas:
        wanted = min(quota - int((shows & ~greedy.free).sum()), int((shows & greedy.free).sum()))
        greedy.choose(wanted, among=shows)
    greedy.choose(n)
    return greedy.chosen


class _Greedy:
    """The choice so far; of each frame what it may be worth at the most, and how many centres it was compared with.

    Centres are the frames that were chosen since all were compared. A frame's `nearest` is the squared distance to the
    nearest labeled or chosen frame that it has `seen`. What a row is worth, and then the row, negative, make a pair:
    the greatest is chosen next.
    """

    def __init__(self, places: Points, gains: _Gains, known: Tensor, n: int) -> None:
        count, device = len(places), known.device
        self.shares, self.step = workers_of(places, _Share), candidates_of(count)
        self.gains, self.known = gains, known
        self.chosen, self.count = torch.empty(n, dtype=torch.int64, device=device), 0
        self.free = torch.ones(count, dtype=torch.bool, device=device)
        self.among = self.free
        self.nearest = torch.full((count,), _FARTHER_THAN_ANY, dtype=torch.float64, device=device)
        self.seen = torch.zeros(count, dtype=torch.int64, device=device)
        self.num_centres, self.untold = 0, [torch.empty(0, places.shape[1], device=device)]
        self.gaining, self.alone = True, True
        self.middle = 0.0  # nothing is near anything
        nothing = gains.take(self.seen[:0])
        self.hand = _Hand(self.seen[:0], self.untold[0].double(), nothing)
        self.front, self.front_gains = self.seen[:0], nothing
        self.bound = self.outside = (torch.inf, 0)

    def compare_all(self, centres: Tensor) -> None:
        """Compare all frames with the first (c, D) centres, and take the distance that is neither near nor far."""
        self.nearest = self.shares.column(_Share.distances, centres)
        self.middle = max(float(self.nearest.sort().values[(len(self.nearest) - 1) // 2]), _LEAST)
        self.alone = False

    def choose(self, more: int, *, among: Tensor | None = None) -> None:
        """Choose so many frames more, if there is room: the best of the rows at hand while no other can be better; else
        bring others. With (F,) bool `among`, of which as many must be free, only those.
        """
        self.among, self.gaining = torch.ones_like(self.free) if among is None else among, True
        self._start_anew()
        end = min(self.count + more, len(self.chosen))
        while self.count < end:
            place, best = self._best(self.hand.rows, self._worth(self.hand.rows, self.hand.gains))
            if best < self.bound:
                self._look_around()
            if best < self.bound:
                self._bring()
            elif best[0] == 0 and self.gaining:  # nothing has a gain any more, so the farthest are next
                self.gaining = False
                self._start_anew()
            else:
                self._choose(place)

    def _start_anew(self) -> None:
        """Know nothing of what rows are worth."""
        self.front, self.front_gains = self.front[:0], self.gains.take(self.front[:0])
        self.bound = self.outside = (torch.inf, 0)

    def _choose(self, place: int) -> None:
        """Choose one of the rows at hand."""
        rows, points = self.hand.rows, self.hand.points
        row = rows[place : place + 1]
        self.chosen[self.count] = row
        self.count += 1
        self.free[row] = False
        add_by_class(self.known, *self.hand.gains.shown_by(place))
        centre = points[place : place + 1]
        if self.alone:
            self.compare_all(centre.float())
            return
        self.untold.append(centre.float())
        self.num_centres += 1
        nearer = squared_distances(points, centre, self.hand.squares).squeeze(1)
        self.nearest[rows] = torch.minimum(self.nearest[rows], nearer)
        self.seen[rows] = self.num_centres

    def _bring(self) -> None:
        """Have the rows at hand that may be worth most, and bring their distances up to date."""
        if not len(self.front) or self.bound == self.outside:
            everything = torch.arange(len(self.free), device=self.free.device)
            self.front, bound, following = greatest_rows(self._worth(everything, self.gains), _FRONT * self.step)
            self.front_gains, self.outside = self.gains.take(self.front), (bound, -following)
        best, _, _ = greatest_rows(self._worth(self.front, self.front_gains), self.step)
        rows = self.front[best]
        place, at_hand = _find(rows, self.hand.rows)
        missing, held = rows[~at_hand], place[at_hand]
        rows, points = rows[at_hand], self.hand.points[held]
        if len(missing):
            answers = self.shares.each(
                _Share.bring, torch.cat(self.untold), missing, self.nearest[missing], self.seen[missing]
            )
            self.untold = self.untold[:1]
            for answer in answers:
                self.nearest[answer.rows], self.seen[answer.rows] = answer.nearest, self.num_centres
            rows, order = torch.cat([rows, *(answer.rows[answer.kept] for answer in answers)]).sort()
            points = torch.cat([points, *(answer.points.double() for answer in answers)])[order]
        self.hand = _Hand(rows, points, self.gains.take(rows))
        self._look_around()

    def _look_around(self) -> None:
        """Find what rows that are not at hand are worth at the most."""
        worth = self._worth(self.front, self.front_gains)
        place, there = _find(self.hand.rows, self.front)
        worth[place[there]] = -torch.inf
        self.bound = max(self._best(self.front, worth)[1], self.outside)

    def _best(self, rows: Tensor, worth: Tensor) -> tuple[int, tuple[float, int]]:
        """The place of the greatest of (r,) values, and the pair that compares."""
        if not len(rows):
            return 0, (-torch.inf, -len(self.free))
        place = first_greatest(worth)
        return place, (float(worth[place]), -int(rows[place]))

    def _worth(self, rows: Tensor, gains: _Gains) -> Tensor:
        """(r,) float32, what rows with these gains are worth, or how far they are; -1 for what cannot be chosen."""
        nearest = self.nearest[rows]
        worth = nearest / (nearest + self.middle) * gains.of_frames(self.known) if self.gaining else nearest
        return torch.where(self.free[rows] & self.among[rows], worth, -1).float()


class _Hand:
    """Rows whose distances are up to date, and stay so, because their places are here.

    Args:
        rows: (r,) int64, rising.
        points: (r, D) float64.
        gains: of these rows.
    """

    def __init__(self, rows: Tensor, points: Tensor, gains: _Gains) -> None:
        self.rows, self.points, self.gains = rows, points, gains
        self.squares = (points * points).sum(1)


@dataclass(frozen=True, eq=False)
class _Brought:
    """Rows of a share.

    Attributes:
        rows: (r,) int64.
        nearest: (r,) float64, their distances, which are up to date.
        kept: (r,) bool, which of them are about as far as they were: others are worth less, and not at hand.
        points: (k, D) float32, where those lie.
    """

    rows: Tensor
    nearest: Tensor
    kept: Tensor
    points: Tensor


class _Share:
    """The places of one process, and those of all chosen frames since its own were compared."""

    def __init__(self, part: Part) -> None:
        self.part, self.step = part, candidates_of(part.total)
        self.centres = torch.empty(0, part.points.shape[1], device=part.points.device)
        self.count = 0

    def distances(self, centres: Tensor) -> Tensor:
        """(f,) float64, of all own frames the squared distances to the nearest of (c, D) float32 centres."""
        everything = torch.arange(len(self.part.points), device=centres.device)
        nearest = torch.full(everything.shape, _FARTHER_THAN_ANY, dtype=torch.float64, device=centres.device)
        self._compare(self.part.points, nearest, torch.zeros_like(everything), centres, len(centres))
        return nearest

    def bring(self, new: Tensor, rows: Tensor, nearest: Tensor, seen: Tensor) -> _Brought:
        """Some rows of the whole, as far as they are here.

        Args:
            new: (c, D) float32, where those lie that were chosen since the last time.
            rows: (r,) int64.
            nearest: (r,) their squared distances to those that they have seen.
            seen: (r,) int64, how many.
        """
        if self.count + len(new) > len(self.centres):  # room for as many again
            room = max(len(self.centres), len(new), 256)
            self.centres = torch.cat([self.centres, self.centres.new_empty(room, self.centres.shape[1])])
        self.centres[self.count : self.count + len(new)] = new
        self.count += len(new)
        place, ours = _find(rows, self.part.rows)
        points, nearest, before = self.part.points[place[ours]], nearest[ours], nearest[ours]
        self._compare(points, nearest, seen[ours], self.centres, self.count)
        kept = nearest >= _AS_FAR * before
        return _Brought(rows[ours], nearest, kept, points[kept])

    def _compare(self, points: Points, nearest: Tensor, seen: Tensor, centres: Tensor, count: int) -> None:
        """Bring the distances of (p, D) points up to date, in place."""
        catch_up(
            torch.arange(len(points), device=nearest.device),
            nearest,
            seen,
            points=lambda rows: points[rows].double(),
            centres=lambda begin, end: centres[begin:end].double(),
            count=count,
            step=self.step,
        )


class _Gains:
    """What frames are worth, worked out once as far as it does not change: of each pair its class and its gain, of each
    frame its cost.

    Args:
        objects: of F frames.
        classes: (K,) int64, rising, all that they show among them.
    """

    def __init__(self, objects: ClassSums, classes: Tensor) -> None:
        self.columns = torch.searchsorted(classes, objects.labels)
        doubtful, expected = objects.sums.double().unbind(1)
        usual = _usual_doubt(self.columns, doubtful, expected, len(classes))
        gains = _SURE_SHARE * expected + (1 - _SURE_SHARE) * doubtful / usual[self.columns]
        self.gains = replace(objects, sums=gains[:, None].float())
        self.expected = replace(objects, sums=objects.sums[:, 1:])
        self.roots = self.expected.by_frame(torch.ones_like(expected)).add_(0.5).sqrt_()

    def take(self, rows: Tensor) -> _Gains:
        """The frames at (n,) rows."""
        taken = copy.copy(self)
        places, _ = places_of(self.gains.offsets, rows)
        taken.gains, taken.expected = self.gains.take(rows), self.expected.take(rows)
        taken.columns, taken.roots = self.columns[places], self.roots[rows]
        return taken

    def shown_by(self, row: int) -> tuple[Tensor, Tensor]:
        """Of one frame the columns of its classes and the expected objects of these, (m,) each."""
        begin, end = self.gains.offsets[row : row + 2].tolist()
        return self.columns[begin:end], self.expected.sums[begin:end, 0]

    def of_frames(self, known: Tensor) -> Tensor:
        """(F,) float64, the gain of each frame over the root of its cost, with (K,) `known` objects of each class."""
        return self.gains.by_frame((1 / (known + 1))[self.columns]).div_(self.roots)


def add_by_class(sums: Tensor, columns: Tensor, values: Tensor) -> None:
    """Add (..., M) values of the classes in (M,) columns to (..., K) float64 `sums`, in place."""
    # sorted, so that a GPU adds in one order too
    columns, order = columns.sort(stable=True)
    sums.index_add_(-1, columns, values[..., order].double())


def _usual_doubt(columns: Tensor, doubtful: Tensor, expected: Tensor, num_classes: int) -> Tensor:
    """(K,) float64 > 0, the mean entropy of the boxes of each class, as if one more object had that of all classes."""
    sums = expected.new_zeros(2, num_classes)
    add_by_class(sums, columns, torch.stack([doubtful, expected]))
    whole = sums.sum(1)
    mean = whole[0] / whole[1].clamp_min(_LEAST)
    return ((sums[0] + mean) / (sums[1] + 1)).clamp_min(_LEAST)


def _find(wanted: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of (w,) rows that are wanted the places among (r,) rising `rows`, and whether they are there, (w,) each."""
    if not len(rows):
        return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(rows, wanted).clamp_max_(len(rows) - 1)
    return place, rows[place] == wanted
