"""How likely the annotations of a frame are to be right, by ObjectLab's formulas: 1 = clean, 0 = certainly wrong.

Tkachenko, Thyagarajan and Mueller, *ObjectLab: Automated Diagnosis of Mislabeled Images in Object Detection Data*
(2023, arXiv 2309.00832). An annotated box `a` and a predicted box `p` of one frame have the similarity::

    sim(a, p) = alpha * IoU(a, p) + (1 - alpha) * exp(-d(a, p) / 10)

with `d` the distance of their centres in pixels, so that `1 - exp(-d / 10)` is a distance in [0, 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.pool.offsets import chunks, offsets_of
from cval_torch.pool.pool import Pool

DISTANCE_SCALE = 10.0
"""Pixels in which the closeness of two centres falls by a factor of e."""

_PAIRS = 2**20  # compared at a time
_LEAST = 1e-100  # floor of what a logarithm is taken of
_LEAST_PROBABILITY = 1e-12  # floor of a probability that is divided by


@dataclass(frozen=True, eq=False)
class BoxScores:
    """The label quality of N annotated and B predicted boxes, float64 in [0, 1], lower = more likely wrong.

    Attributes:
        overlooked: (B,) of each predicted box: whether it shows an object that nobody annotated. NaN for those that
            are not sure enough, or overlap an annotated box.
        badly_located: (N,) of each annotated box; 1 where no prediction speaks against it.
        swapped: (N,) the same.
        moved_by: (N,) int64, the prediction that an annotated box should be moved to; -1 where none says so.
        renamed_by: (N,) int64, the prediction whose class an annotated box should have; -1 where none says so.
        renaming: (N,) the score `swapped` as `renamed_by` alone makes it; 1 where there is none.
    """

    overlooked: Tensor
    badly_located: Tensor
    swapped: Tensor
    moved_by: Tensor
    renamed_by: Tensor
    renaming: Tensor


def box_scores(
    annotated: Pool,
    predicted: Pool,
    *,
    sure: Tensor,
    likely: Tensor,
    crowds: Pool | None = None,
    columns: Mapping[int, int] | None = None,
    alpha: float = 0.9,
) -> BoxScores:
    """The label quality of every box; `label_issues` gives the formulas.

    Args:
        annotated: F frames with N `boxes` and `labels`.
        predicted: the same frames in the same order, with B `boxes`, `labels` and `scores`, and perhaps
            `probabilities`.
        sure: (B,) bool, the predictions that may speak of overlooked and swapped objects.
        likely: (B,) bool, those that may speak of badly located ones.
        crowds: the same frames, with `boxes` within which nothing counts as overlooked.
        columns: by label the column of `probabilities`; None: they are the same number. A label of `predicted` must
            have one.
        alpha: the weight of the overlap, in [0, 1].
    """
    found = _Found(annotated.num_boxes, predicted.num_boxes, least=1 - alpha)
    given, said = (columns_of(labels_of(pool), predicted, columns) for pool in (annotated, predicted))
    for a, p in pairs_within(annotated.offsets, predicted.offsets):
        pairs = _Pairs(annotated, predicted, a, p, alpha)
        found.add(pairs, pairs.similarity * rejected(predicted, p, given[a], said[p]), sure, likely)
    if crowds is not None:
        for a, p in pairs_within(crowds.offsets, predicted.offsets):
            found.touched[p[overlaps(boxes_of(crowds)[a], boxes_of(predicted)[p]) > 0]] = True
    return found.scores(predicted, sure)


class _Pairs:
    """Annotated boxes `a` beside predicted ones `p`, pair by pair."""

    def __init__(self, annotated: Pool, predicted: Pool, a: Tensor, p: Tensor, alpha: float) -> None:
        self.a, self.p = a, p
        one, other = boxes_of(annotated)[a].double(), boxes_of(predicted)[p].double()
        self.overlap = overlaps(one, other)
        centres = (one[:, :2] + one[:, 2:] - other[:, :2] - other[:, 2:]) / 2
        closeness = torch.exp(-centres.square().sum(1).sqrt() / DISTANCE_SCALE)
        self.similarity = alpha * self.overlap + (1 - alpha) * closeness
        self.same = labels_of(annotated)[a] == labels_of(predicted)[p]


class _Found:
    """What pairs say of boxes, gathered part by part."""

    def __init__(self, annotated: int, predicted: int, *, least: float) -> None:
        self.smallest = least  # no two boxes apart are more similar than this
        self.touched = torch.zeros(predicted, dtype=torch.bool)
        self.nearest = torch.full((predicted,), -1.0, dtype=torch.float64)  # among annotated boxes of its own class
        self.located = torch.full((annotated,), -1.0, dtype=torch.float64)
        self.against = torch.full((annotated,), -1.0, dtype=torch.float64)
        self.against_alone = torch.zeros(annotated, dtype=torch.float64)
        self.moved_by = torch.full((annotated,), -1, dtype=torch.int64)
        self.renamed_by = torch.full((annotated,), -1, dtype=torch.int64)

    def add(self, pairs: _Pairs, against: Tensor, sure: Tensor, likely: Tensor) -> None:
        """Take in all pairs of some frames; `against` is how much each speaks against the annotated class."""
        a, p, similarity, same = pairs.a, pairs.p, pairs.similarity, pairs.same
        above = similarity[similarity > 0]
        self.smallest = min(self.smallest, float(above.min()) if len(above) else 1.0)
        meets = pairs.overlap > 0
        self.touched[p[meets]] = True
        self.nearest.scatter_reduce_(0, p[same], similarity[same], "amax")
        near = same & likely[p] & meets
        self.located.scatter_reduce_(0, a[near], similarity[near], "amax")
        other = ~same & sure[p]
        self.against.scatter_reduce_(0, a[other], against[other], "amax")
        # a prediction that lies nearer to another annotated box of its class speaks of that one
        chosen = _best(a, similarity, near & (similarity >= self.nearest[p]))
        self.moved_by[a[chosen]] = torch.where(similarity[chosen] == self.located[a[chosen]], p[chosen], -1)
        chosen = _best(a, against, other & meets & (similarity > self.nearest[p]))
        self.renamed_by[a[chosen]], self.against_alone[a[chosen]] = p[chosen], against[chosen]

    def scores(self, predicted: Pool, sure: Tensor) -> BoxScores:
        """Everything, after the last pair."""
        confidence = torch.zeros(0) if predicted.scores is None else predicted.scores
        absent = self.smallest * (1 - confidence.double())
        overlooked = torch.where(self.nearest < 0, absent, self.nearest)
        return BoxScores(
            overlooked=torch.where(sure & ~self.touched, overlooked, torch.nan),
            badly_located=torch.where(self.located < 0, 1.0, self.located),
            swapped=torch.where(self.against < 0, 1.0, (1 - self.against).clamp_min(self.smallest)),
            moved_by=self.moved_by,
            renamed_by=self.renamed_by,
            renaming=torch.where(self.renamed_by < 0, 1.0, (1 - self.against_alone).clamp_min(self.smallest)),
        )


def rejected(predicted: Pool, p: Tensor, given: Tensor, said: Tensor) -> Tensor:
    """(n,) in [0, 1]: how much less probable the annotated class is than the predicted one, `1 - p_given / p_said`.

    1 without probabilities, and for a class that they have no column for.

    Args:
        predicted: B boxes.
        p: (n,) int64, some of them.
        given: (n,) int64, the column of the annotated class; -1 for none.
        said: (n,) int64, the column of the predicted class.
    """
    if predicted.probabilities is None:
        return torch.ones(len(p), dtype=torch.float64)
    of_given = predicted.probabilities[p, given.clamp_min(0)].double()
    of_said = predicted.probabilities[p, said].double().clamp_min(_LEAST_PROBABILITY)
    return torch.where(given >= 0, (1 - of_given / of_said).clamp(0, 1), 1.0)


def columns_of(labels: Tensor, predicted: Pool, columns: Mapping[int, int] | None) -> Tensor:
    """(n,) int64: the column of `probabilities` of each label; -1 where there is none."""
    width = 0 if predicted.probabilities is None else predicted.probabilities.shape[1]
    found = labels.clone()
    if columns is not None:
        known, places = torch.unique(labels, return_inverse=True)
        found = torch.tensor([columns.get(label, -1) for label in known.tolist()], dtype=torch.int64)[places]
    return torch.where((found >= 0) & (found < width), found, -1)


def _best(groups: Tensor, values: Tensor, among: Tensor) -> Tensor:
    """Of each group the place of the largest value among those marked, of equals the first; groups without have none.

    >>> _best(torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.3, 0.2, 0.9]), torch.tensor([True, True, True, False]))
    tensor([1, 2])
    """
    places = among.nonzero().squeeze(1)
    places = places[values[places].argsort(descending=True, stable=True)]
    places = places[groups[places].argsort(stable=True)]
    first = torch.ones(len(places), dtype=torch.bool)
    first[1:] = groups[places][1:] != groups[places][:-1]
    return places[first]


def pairs_within(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs of a row of `one` and a row of `other` that belong to the same frame, the pairs of some frames at once.

    Args:
        one: (F+1,) int64 offsets.
        other: (F+1,) int64 offsets.

    >>> [(a.tolist(), b.tolist()) for a, b in pairs_within(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 2]))]
    [([0, 0, 1, 1], [0, 1, 0, 1])]
    """
    counts = one.diff() * other.diff()
    for begin, end in chunks(offsets_of(counts), boxes=_PAIRS):
        here = counts[begin:end]
        within = torch.arange(int(here.sum())) - offsets_of(here)[:-1].repeat_interleave(here)
        width = other.diff()[begin:end].repeat_interleave(here)
        if len(within):
            rows = one[begin:end].repeat_interleave(here) + within // width
            yield rows, other[begin:end].repeat_interleave(here) + within % width


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """(n,) intersection over union of (n, 4) boxes beside (n, 4) others, in [0, 1]; 0 where both have no area."""
    one, other = one.double(), other.double()
    sides = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp_min(0)
    common = sides.prod(1)
    union = (one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - common
    return torch.where(union > 0, common / union, 0.0)


def frame_scores(scores: BoxScores, annotated: Pool, predicted: Pool, *, temperature: float = 0.1) -> Tensor:
    """(F,) float64 in [0, 1]: how clean each frame is, lower = more likely wrong.

    The geometric mean of three soft minima, one for each kind of fault.
    """
    kinds = (
        (scores.overlooked, predicted.frame_rows),
        (scores.badly_located, annotated.frame_rows),
        (scores.swapped, annotated.frame_rows),
    )
    logs = [
        soft_minimum(*kind, frames=len(annotated), temperature=temperature).clamp_min(_LEAST).log() for kind in kinds
    ]
    return torch.stack(logs).mean(0).exp()


def soft_minimum(values: Tensor, frame_rows: Tensor, *, frames: int, temperature: float) -> Tensor:
    """(F,) mean of the values of each frame, weighted by `exp(-value / temperature)`; 1 for a frame without any.

    Args:
        values: (n,) in [0, 1]; NaN does not count.
        frame_rows: (n,) int64, the frame of each.
        frames: F.
        temperature: above 0. The smaller, the closer to the minimum.

    >>> soft_minimum(torch.tensor([0.5, 0.5, torch.nan]), torch.tensor([0, 0, 1]), frames=2, temperature=0.1).tolist()
    [0.5, 1.0]
    """
    counted = values.isnan().logical_not().nonzero().squeeze(1)
    counted = counted[values[counted].argsort(stable=True)]  # so no order of boxes changes a sum
    value, row = values[counted].double(), frame_rows[counted]
    least = torch.ones(frames, dtype=torch.float64).scatter_reduce_(0, row, value, "amin")
    weight = torch.exp((least[row] - value) / temperature)
    total = torch.zeros(frames, dtype=torch.float64).index_add_(0, row, weight)
    summed = torch.zeros(frames, dtype=torch.float64).index_add_(0, row, weight * value)
    return torch.where(total > 0, summed / total, 1.0)


def boxes_of(pool: Pool) -> Tensor:
    """(B, 4) boxes of a pool that is known to have them."""
    return torch.zeros(0, 4) if pool.boxes is None else pool.boxes


def labels_of(pool: Pool) -> Tensor:
    """(B,) labels of a pool that is known to have them."""
    return torch.zeros(0, dtype=torch.int64) if pool.labels is None else pool.labels
