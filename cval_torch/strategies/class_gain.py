"""`class_gain`: what the annotated set lacks, from places it does not have."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cval_torch.pool.offsets import places_of
from cval_torch.pool.pool import Pool
from cval_torch.strategies.class_sums import ClassSums
from cval_torch.strategies.columns import UNCERTAIN_CLASSES, check_columns
from cval_torch.strategies.descriptor import Descriptors, LongRows, beside, check_described, unit_rows
from cval_torch.strategies.k_center import candidates_of, catch_up, first_greatest, greatest_rows
from cval_torch.strategies.nearest import squared_distances
from cval_torch.strategies.points import Points, Taken
from cval_torch.strategies.scores import box_evidence, entropy
from cval_torch.strategies.standard import Standard

_CHUNK_ELEMENTS = 2**20
# No two places are as far apart, squared: lengths are at most the root of 1 + 1 (looks, place) + 1/4 (classes).
_FARTHER_THAN_ANY = 9.0
# Of what a box is worth, the share that it is worth without a doubt.
_SURE_SHARE = 0.3
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Contents:
    """What `class_gain` reads of F frames: a vector or two, and a few numbers for each class that a frame shows.

    Attributes:
        descriptors: (F,), of half precision; of the boxes that are embedded.
        objects: of each frame and class the doubtful and the expected objects, sums of `s^2 H` and `s^2` over all
            boxes.
        frame_embeddings: (F, D), to be standardised over all frames; None: there are none, or nothing beside them.
        rows: (F',) int64, the rows of `frame_embeddings` that are meant; None: all.
        elsewhere: gives the frame embeddings instead.
    """

    descriptors: Descriptors
    objects: ClassSums
    frame_embeddings: Tensor | None
    rows: Tensor | None = None
    elsewhere: LongRows | None = None

    @classmethod
    def of(cls, pool: Pool, *, part: bool = False, name: str = "pool") -> Contents:
        """Read a pool.

        Args:
            pool: F frames with the columns that `class_gain` needs.
            part: whether these are some frames of a larger pool.
            name: what to call the pool in a message.

        Raises:
            InvalidInputError: a column is missing.
        """
        check_columns(pool, UNCERTAIN_CLASSES, "class_gain", name=name)
        descriptors = Descriptors.of(pool, part=True, dtype=torch.float16)
        if not part:
            check_described(descriptors)
        expected = _confidences(pool).square()
        labels = expected[:0].long() if pool.labels is None else pool.labels
        objects = ClassSums.of(pool.offsets, labels, torch.stack([expected * _entropies(pool), expected], 1))
        beside_looks = pool.box_embeddings is not None and descriptors.shares is not None
        return cls(descriptors, objects, pool.frame_embeddings if beside_looks else None)

    @classmethod
    def cat(cls, parts: Sequence[Contents]) -> Contents:
        """One after another, the frames of one or more parts of one pool, each with all of its rows."""
        frames = [part.frame_embeddings for part in parts if part.frame_embeddings is not None]
        return cls(
            Descriptors.cat([part.descriptors for part in parts]),
            ClassSums.cat([part.objects for part in parts]),
            torch.cat(frames) if frames else None,
        )

    def __len__(self) -> int:
        return len(self.objects)

    def take(self, rows: Tensor) -> Contents:
        """The frames at (n,) int64 `rows`, in that order; vectors are not copied."""
        if len(rows) == len(self) and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return self
        own = rows if self.rows is None else self.rows[rows]
        return replace(self, descriptors=self.descriptors.take(rows), objects=self.objects.take(rows), rows=own)

    def without_vectors(self, rows: Tensor | None = None) -> Contents:
        """The small part of the frames at (n,) `rows`, or of all, where vectors are kept elsewhere."""
        objects = self.objects if rows is None else self.objects.take(rows)
        return Contents(self.descriptors.without_looks(rows), objects, None)

    def with_vectors(self, looks: LongRows, frames: LongRows | None) -> Contents:
        """The same with vectors that are elsewhere."""
        return replace(self, descriptors=replace(self.descriptors, elsewhere=looks), elsewhere=frames)

    def copied(self) -> Contents:
        """The same frames by themselves, with no others beside them."""
        frames = self.frame_embeddings
        if frames is not None and self.rows is not None:
            frames = frames[self.rows]
        return Contents(self.descriptors.copied(), self.objects, frames)

    def frames_at(self, rows: Tensor | slice) -> Tensor | None:
        """(r, D) float64, the frame embeddings of some frames; None where there are none."""
        source = self.frame_embeddings if self.elsewhere is None else self.elsewhere
        return None if source is None else source[rows if self.rows is None else self.rows[rows]].double()

    def frame_points(self) -> Points | None:
        """(F, D), all frame embeddings, which stay where they are; None where there are none."""
        if self.elsewhere is not None:
            return self.elsewhere.points(self.rows)
        frames = self.frame_embeddings
        return frames if frames is None or self.rows is None else Taken(frames, self.rows)


def class_gain(
    pool: Pool | Contents,
    n: int,
    *,
    seed: int,
    labeled: Pool | Contents | None = None,
    labeled_counts: Mapping[int, float] | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Expected gain in doubtful objects of scarce classes, from places that are not labeled yet.

    Greedy. A box of score `s_b` counts as `p_b = s_b^2` objects: faint boxes are many, and most of them are wrong. Its
    doubt `u_b` is its entropy `H_b` (see `strategies.scores.entropy`) over the mean entropy of its class in the pool,
    where boxes weigh `p_b`: a class that the detector is sure of does not starve beside one that no labels settle.
    With `N_c` the objects of class c that are known so far, each choice is the frame `f` with the greatest

        g(f) near(f) / sqrt(1/2 + sum of p_b),   g(f) = sum over its boxes of p_b (a + (1 - a) u_b) / (N_c(b) + 1)

    where a = 0.3. `N_c` begins as `labeled_counts`, or as the sum of `p_b` of class c in `labeled`, and grows by that
    of each chosen frame: once a class is well served, others come first. With `d(f)` the distance to the nearest
    labeled or chosen frame, `near(f) = d(f)^2 / (d(f)^2 + t)`: a near-duplicate is worth next to nothing, whatever it
    shows, and an outlier no more than its objects. `t` is the median of `d^2` over the pool at the beginning (without
    labeled frames after the first choice), so that no radius has to be chosen. The root of the expected objects, which
    is what annotation costs, stands between the best gain a frame and the best gain a box.
    Distances are those of `frame_descriptors`, whose looks are rounded to half precision, beside which stand, where the
    pool has them, the frames' own embeddings, standardised over both pools and made unit vectors: the objects and the
    place count alike. Of a pool with `embedded`, places are of those boxes, and objects are counted of all.

    Exact, though most frames are compared with few choices: gains and distances only fall, so a frame need not be
    looked at again before all that were worth more are chosen, or worth less. Memory is that of `Contents`, some
    numbers a frame, and blocks.

    It does what an annotator with all labels would do, as far as predictions tell: scarce classes, and one frame of
    each scene. Powers and constants were settled on composed frames and on half of the board designs of real scans
    that no published table uses (`examples/benchmarks/real_pool.py`, `label_efficiency.py`). Related: submodular
    coverage of classes, and BADGE's volume.

    Args:
        pool: N frames; needs `labels`, `scores` or `probabilities`, and embeddings of boxes or frames. Or what
            `Contents.of` made of them.
        n: frames to choose, 1 to N.
        seed: not used.
        labeled: the frames that are annotated already.
        labeled_counts: annotated objects by label; labels that are missing have none. None: nobody counted.
        weights: not used.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally good ones by row. Frames of no gain (without boxes)
        come when all others are chosen, the farthest first.

    Raises:
        InvalidInputError: a column is missing.
    """
    frames = pool if isinstance(pool, Contents) else Contents.of(pool)
    known = Contents.of(labeled, name="labeled") if isinstance(labeled, Pool) else labeled
    return _Greedy(frames, known, labeled_counts, n).chosen


def expected_objects(pool: Pool) -> dict[int, float]:
    """The objects of each class that `class_gain` expects in a pool with `labels`: sums of squared scores.

    >>> expected_objects(Pool(["a"], torch.tensor([0, 2]), scores=torch.tensor([1, 0.5]), labels=torch.tensor([7, 7])))
    {7: 1.25}
    """
    if pool.labels is None:
        return {}
    expected = _confidences(pool).double().square()
    labels: list[int] = torch.unique(pool.labels, sorted=True).tolist()
    return {label: float(expected[pool.labels == label].sum()) for label in labels}


class _Greedy:
    """The choice so far; of each frame what it may be worth at the most, and how many centres it was compared with.

    Centres are the labeled frames and the chosen ones, in this order. A frame's `nearest` is the squared distance to
    the nearest of those that it has `seen`.
    """

    def __init__(self, frames: Contents, labeled: Contents | None, counts: Mapping[int, float] | None, n: int) -> None:
        ours, theirs = beside(frames.descriptors, None if labeled is None else labeled.descriptors)
        held = labeled if labeled is not None and theirs is not None else None
        standard = Standard.of([each.frame_points() for each in ([frames] if held is None else [frames, held])])
        device = ours.device
        self.places, self.step = _Places(ours, frames, standard), candidates_of(len(frames))
        everything = torch.arange(len(frames), device=device)
        objects = [frames.objects] if held is None else [frames.objects, held.objects]
        classes = torch.unique(torch.cat([each.labels for each in objects]), sorted=True)
        self.known = torch.zeros(len(classes), dtype=torch.float64, device=device)
        self.num_centres = 0 if held is None else len(held)
        width = self.places[everything[:0]].shape[1]
        self.centres = torch.empty(self.num_centres + n, width, dtype=torch.float64, device=device)
        if held is not None and theirs is not None:
            labeled_rows = torch.arange(len(held), device=device)
            self.centres[: len(held)] = _Places(theirs, held, standard)[labeled_rows]
            if counts is None:
                self._add_known(torch.searchsorted(classes, held.objects.labels), held.objects.sums[:, 1])
        if counts is not None:
            numbers = [float(counts.get(label, 0.0)) for label in classes.tolist()]
            self.known += torch.tensor(numbers, dtype=torch.float64, device=device)
        self.gains = _Gains(frames.objects, classes)
        self.chosen = torch.empty(n, dtype=torch.int64, device=device)
        self.count = 0
        self.free = torch.ones(len(frames), dtype=torch.bool, device=device)
        self.nearest = torch.full((len(frames),), _FARTHER_THAN_ANY, dtype=torch.float64, device=device)
        self.seen = torch.zeros(len(frames), dtype=torch.int64, device=device)
        self.gaining = True
        self.middle = 0.0  # nothing is near anything
        if self.num_centres:
            self._measure(everything)
        while self.count < n:
            alone = self.num_centres == 0
            self._choose_some()
            if alone:
                self._measure(everything)

    def _measure(self, everything: Tensor) -> None:
        """Compare all frames with the first centres, and take the distance that is neither near nor far."""
        self._compare(everything)
        self.middle = max(float(self.nearest.sort().values[(len(self.nearest) - 1) // 2]), _LEAST)

    def _choose_some(self) -> None:
        """Bring the frames that may be worth most up to date, and choose among them while no other can be better."""
        worth = self._worth(self.gains, self.nearest, self.free)
        rows, bound, next_row = greatest_rows(worth, self.step)
        self._compare(rows)
        points, gains, alone = self.places[rows], self.gains.take(rows), self.num_centres == 0
        nearest, free = self.nearest[rows], self.free[rows]
        while self.count < len(self.chosen):
            worth = self._worth(gains, nearest, free)
            place = first_greatest(worth)
            value, row = float(worth[place]), int(rows[place])
            if value < bound or (value == bound and row > next_row):
                break
            if value == 0 and self.gaining:  # nothing has a gain any more, so the farthest are next
                self.gaining = False
                return
            self.chosen[self.count] = row
            self.count += 1
            added = gains.take(torch.tensor([place], device=rows.device))
            self._add_known(added.columns, added.expected.sums[:, 0])
            self.centres[self.num_centres] = points[place]
            self.num_centres += 1
            nearest = torch.minimum(nearest, squared_distances(points, points[place : place + 1]).squeeze(1))
            free[place] = False
            self.nearest[rows], self.free[rows], self.seen[rows] = nearest, free, self.num_centres
            if alone:
                break

    def _worth(self, gains: _Gains, nearest: Tensor, free: Tensor) -> Tensor:
        """(N,) float32, what frames are worth, or how far they are; -1 for those that are chosen."""
        worth = nearest / (nearest + self.middle) * gains.of_frames(self.known) if self.gaining else nearest
        return torch.where(free, worth, -1).float()

    def _add_known(self, columns: Tensor, expected: Tensor) -> None:
        """Count (M,) expected objects of the classes in (M,) columns."""
        # sorted, so that a GPU adds in one order too
        columns, order = columns.sort(stable=True)
        self.known.index_add_(0, columns, expected[order].double())

    def _compare(self, rows: Tensor) -> None:
        """Bring the distances of some rows up to date."""
        catch_up(
            rows,
            self.nearest,
            self.seen,
            points=self.places.__getitem__,
            centres=lambda begin, end: self.centres[begin:end],
            count=self.num_centres,
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

    def of_frames(self, known: Tensor) -> Tensor:
        """(F,) float64, the gain of each frame over the root of its cost, with (K,) `known` objects of each class."""
        return self.gains.by_frame((1 / (known + 1))[self.columns]).div_(self.roots)


def _usual_doubt(columns: Tensor, doubtful: Tensor, expected: Tensor, num_classes: int) -> Tensor:
    """(K,) float64 > 0, the mean entropy of the boxes of each class, as if one more object had that of all classes."""
    # sorted, so that a GPU adds in one order too
    columns, order = columns.sort(stable=True)
    sums = expected.new_zeros(2, num_classes).index_add_(1, columns, torch.stack([doubtful, expected])[:, order])
    whole = sums.sum(1)
    mean = whole[0] / whole[1].clamp_min(_LEAST)
    return ((sums[0] + mean) / (sums[1] + 1)).clamp_min(_LEAST)


class _Places:
    """Where frames lie: their descriptors, and beside these, where there are any, standardised frame embeddings."""

    def __init__(self, descriptors: Descriptors, frames: Contents, standard: Standard | None) -> None:
        self.descriptors, self.frames, self.standard = descriptors, frames, standard

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(r, D) float64."""
        looks, frames = self.descriptors[rows].double(), self.frames.frames_at(rows)
        if self.standard is None or frames is None:
            return looks
        return torch.cat([looks, unit_rows(self.standard.standardised(frames)).double()], 1)


def _confidences(pool: Pool) -> Tensor:
    """(B,) float32."""
    if pool.scores is not None:
        return pool.scores.float()
    return torch.empty(0, device=pool.device) if pool.probabilities is None else pool.probabilities.float().amax(1)


def _entropies(pool: Pool) -> Tensor:
    """(B,) float32 in [0, 1]."""
    result = torch.empty(pool.num_boxes, device=pool.device)
    width = 1 if pool.probabilities is None else pool.probabilities.shape[1]
    step = max(_CHUNK_ELEMENTS // max(width, 1), 1)
    for first in range(0, pool.num_boxes, step):
        last = min(first + step, pool.num_boxes)
        result[first:last] = entropy(box_evidence(pool, first, last))
    return result
