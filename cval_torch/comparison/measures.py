"""What a choice of frames is worth, counted on frames whose labels are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.strategies.descriptor import frame_descriptors, unit_rows
from cval_torch.training.found import scarce_objects


@dataclass(frozen=True)
class Measure:
    """One column of a comparison.

    Attributes:
        title: in tables and pictures.
        unit: how its values read.
        better: 1 where more of it is better, -1 where less is, 0 where it is neither (more objects are more work too).
    """

    title: str
    unit: Literal["count", "share", "index"]
    better: Literal[-1, 0, 1]

    def written(self, value: float) -> str:
        """A value as it reads; of a count that is a mean, with a decimal."""
        if self.unit == "share":
            return f"{value:.0%}"
        return f"{value:.2f}" if self.unit == "index" else f"{value:.0f}" if value == round(value) else f"{value:.1f}"


MEASURES: dict[str, Measure] = {
    "frames": Measure("frames", "count", 0),
    "scarce_objects": Measure("scarce objects", "index", 1),
    "objects": Measure("objects", "count", 0),
    "empty_share": Measure("empty frames", "share", 0),
    "classes": Measure("classes", "count", 1),
    "rare_objects": Measure("rare objects", "count", 1),
    "class_balance": Measure("class balance", "index", 1),
    "duplicate_share": Measure("near-duplicates", "share", -1),
    "misses": Measure("misses found", "count", 1),
}
"""By name, in the order in which they are shown; `compare` says what they are."""

_MEDIAN_FRAMES = 1000  # as many frames tell the median distance of a pool
_ROUNDING = 1e-12  # of squared distances in float64
_CHUNK_ELEMENTS = 2**22


class Ruler:
    """Measures choices from one set of candidates.

    Args:
        pool: what the detector said of the F candidates.
        truth: what they truly show: the same frames in the same order, with `labels` and perhaps `boxes`.
        counts: annotated objects by label, before the choice.
        min_score: detections below it count as not made.
        duplicate_radius: near, in median distances between two candidates.

    Attributes:
        measures: names of the measures that there are for these columns.
        missing: why the others are not there.
        classes: (K,) the labels that occur among the candidates, sorted.
        rare: (K,) bool, the rarest quarter of them.
    """

    def __init__(
        self,
        pool: Pool,
        truth: Pool,
        *,
        counts: Mapping[int, float] | None = None,
        min_score: float,
        duplicate_radius: float,
    ) -> None:
        self.truth, self._counts = truth, counts or {}
        labels = torch.zeros(truth.num_boxes, dtype=torch.int64) if truth.labels is None else truth.labels
        self.classes, self._columns, totals = torch.unique(labels, sorted=True, return_inverse=True, return_counts=True)
        self.rare = rarest_quarter(totals)
        self.missing: dict[str, str] = {}
        if len(self.classes) < 2:
            for name in ("classes", "rare_objects", "class_balance"):
                self.missing[name] = f"the candidates show {len(self.classes)} class(es), and two are the least"
        self._missed: Tensor | None = None
        if truth.boxes is None or pool.boxes is None:
            whose = "the targets" if truth.boxes is None else "the detections"
            self.missing["misses"] = f"{whose} have no boxes"
        else:
            missed = missed_boxes(truth, pool, min_score=min_score)
            self._missed = torch.zeros(len(truth), dtype=torch.int64).index_add_(0, truth.frame_rows, missed.long())
        self._places: Tensor | None = None
        if pool.frame_embeddings is None and (pool.box_embeddings is None or pool.num_boxes == 0):
            self.missing["duplicate_share"] = "the detector gives no embeddings"
        else:
            frames = pool.frame_embeddings
            self._places = frame_descriptors(pool) if frames is None else unit_rows(frames)
            self._radius = duplicate_radius * median_distance(self._places, pool.frame_ids)
        self.measures = tuple(name for name in MEASURES if name not in self.missing)

    def measure(self, rows: Tensor) -> dict[str, float]:
        """Every measure of the frames at `rows` (n,), n > 0."""
        counts = self.truth.counts[rows]
        chosen = torch.zeros(len(self.truth), dtype=torch.bool)
        chosen[rows] = True
        by_class = self._columns[chosen[self.truth.frame_rows]].bincount(minlength=len(self.classes))
        values: dict[str, float] = {
            "frames": len(rows),
            "scarce_objects": scarce_objects(
                dict(zip(self.classes.tolist(), by_class.tolist(), strict=True)), self._counts
            ),
            "objects": int(counts.sum()),
            "empty_share": int((counts == 0).sum()) / len(rows),
            "classes": int((by_class > 0).sum()),
            "rare_objects": int(by_class[self.rare].sum()),
            "class_balance": class_balance(by_class),
        }
        if self._places is not None:
            values["duplicate_share"] = int(near_duplicates(self._places[rows], self._radius).sum()) / len(rows)
        if self._missed is not None:
            values["misses"] = int(self._missed[rows].sum())
        return {name: float(values[name]) for name in self.measures}


def rarest_quarter(totals: Tensor) -> Tensor:
    """(K,) bool: a quarter of the classes, rounded up, those with the fewest objects; of equals the first ones.

    >>> rarest_quarter(torch.tensor([5, 1, 3, 1, 9]))
    tensor([False,  True, False,  True, False])
    """
    rare = torch.zeros(len(totals), dtype=torch.bool)
    rare[totals.argsort(stable=True)[: math.ceil(len(totals) / 4)]] = True
    return rare


def class_balance(counts: Tensor) -> float:
    """The entropy of (K,) class counts over `log K`, in [0, 1]: 1 = all alike; 0 = one class alone, or no objects.

    >>> class_balance(torch.tensor([2, 2, 0, 0]))
    0.5
    """
    total = int(counts.sum())
    if len(counts) < 2 or total == 0:
        return 0.0
    shares = [count / total for count in counts.tolist() if count]
    return abs(-math.fsum(share * math.log(share) for share in shares) / math.log(len(counts)))


def near_duplicates(places: Tensor, radius: float) -> Tensor:
    """(n,) bool: which of (n, D) places have another one within `radius`, by Euclidean distance."""
    places = places.double()
    squares = places.square().sum(1)
    near = torch.zeros(len(places), dtype=torch.bool)
    step = max(_CHUNK_ELEMENTS // max(len(places), 1), 1)
    for begin in range(0, len(places), step):
        block = slice(begin, begin + step)
        distances = squares[block, None] + squares - 2 * places[block] @ places.T
        distances.diagonal(begin).fill_(torch.inf)
        near[block] = (distances <= radius**2 + _ROUNDING).any(1)
    return near


def median_distance(places: Tensor, frame_ids: Sequence[str]) -> float:
    """The median distance between two of (F, D) places, of 1,000 frames drawn at random where there are more.

    The draw goes by the order of the ids, so the order of the frames makes no difference.
    """
    rows = torch.tensor(sorted(range(len(frame_ids)), key=frame_ids.__getitem__), dtype=torch.int64)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:_MEDIAN_FRAMES]]
    if len(rows) < 2:
        return 0.0
    return float(torch.pdist(places[rows].double()).median())


def missed_boxes(truth: Pool, predictions: Pool, *, min_score: float, min_iou: float = 0.5) -> Tensor:
    """(B,) bool: the true boxes that no detection of their frame, of whatever class, overlaps enough.

    Args:
        truth: F frames with B true `boxes`.
        predictions: the same frames in the same order, with `boxes`.
        min_score: of detections that count, in [0, 1]; without `scores` all count.
        min_iou: the least intersection over union.
    """
    if truth.boxes is None or predictions.boxes is None or truth.frame_ids != predictions.frame_ids:
        raise InvalidInputError("`truth` and `predictions` must have `boxes`, of the same frames in the same order")
    from torchvision.ops import box_iou  # noqa: PLC0415, it takes seconds, and most processes need none of it

    missed = torch.ones(truth.num_boxes, dtype=torch.bool)
    sure = torch.ones(predictions.num_boxes, dtype=torch.bool)
    if predictions.scores is not None:
        sure = predictions.scores >= min_score
    starts, found = truth.offsets.tolist(), predictions.offsets.tolist()
    for row in (~truth.is_empty).nonzero().squeeze(1).tolist():
        boxes = predictions.boxes[found[row] : found[row + 1]][sure[found[row] : found[row + 1]]]
        if len(boxes):
            own = slice(starts[row], starts[row + 1])
            missed[own] = (box_iou(truth.boxes[own].double(), boxes.double()) < min_iou).all(1)
    return missed


def jaccard(one: set[str], other: set[str]) -> float:
    """How much of two choices is the same: common frames over all of them, in [0, 1].

    >>> jaccard({"a", "b"}, {"b", "c"})
    0.3333333333333333
    """
    return len(one & other) / len(one | other) if one or other else 1.0
