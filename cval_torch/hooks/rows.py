"""Row recovery: which proposal or anchor each final detection came from. Everything about it is in this file.

A detector's postprocessing returns boxes, labels and scores, and forgets the row of logits that each came from. The
row can be found again without replacing anything, because the score is a function of the row's logits: of all rows of
the frame, those are kept whose score for the detection's label is the detection's, to the bit where the recomputation
is the very operation that the model ran, else to a few units in the last place. What is left is settled by the box:
the row's deltas are decoded by the model's own coder and compared. A detection without such a row is an error, and so
are two detections of one row and label; no row is ever guessed.

Rows that agree in label, score and box alike are interchangeable; they are handed out in the order of the rows, which
is the order in which a stable non-maximum suppression meets them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import HookError

_SCORE_BITS = 32
# Two shapes of one kernel may differ in the last bits (vector lanes and their remainder): this much, per operation.
CLOSE_ULPS = 4
_CLOSE_BOXES = 8
_MOST_PAIRS = 1 << 21
_CHANGED = (
    ". A forward hook or a subclass may sort or drop detections, but not change them: remove what does, or read the "
    "detector by an adapter of your own (`adapter=`)"
)


@dataclass(frozen=True)
class Detections:
    """The final detections of a batch, one frame after another.

    Attributes:
        counts: N ints, detections of each frame.
        frames: (B,) int64, the frame of each.
        boxes: (B, 4) xyxy in the dtype and the pixels of the output they were read from.
        labels: (B,) int64.
        scores: (B,) in the model's dtype.
    """

    counts: list[int]
    frames: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor

    @classmethod
    def of(cls, outputs: Sequence[dict[str, Tensor]], computed: torch.dtype) -> Detections:
        """Join what a torchvision detector returns: a dict a frame.

        Args:
            outputs: of N frames.
            computed: the dtype of the head's output. A wrapper for mixed precision, such as accelerate's, makes the
                detections float32 again; rows are told by numbers as the detector computed them.

        Raises:
            HookError: the outputs do not have that form.
        """
        _check_outputs(outputs)
        counts = [len(output["scores"]) for output in outputs]
        scores = torch.cat([output["scores"] for output in outputs])
        return cls(
            counts=counts,
            frames=spread(counts, scores.device),
            boxes=_as_computed(torch.cat([output["boxes"] for output in outputs]), computed),
            labels=torch.cat([output["labels"] for output in outputs]),
            scores=_as_computed(scores, computed),
        )

    def lowest_scores(self, *, ulps: int) -> Tensor:
        """(N,) float32, or float64 where scores are: the lowest score of each frame, inf where there is none.

        With `ulps` it is lowered by these and by 1e-5 of itself, which outweighs the rounding of a bound on logits.
        """
        scores = self.scores.to(torch.promote_types(self.scores.dtype, torch.float32))
        lowest = scores.new_full((len(self.counts),), torch.inf).scatter_reduce_(0, self.frames, scores, "amin")
        return lowest * (1 - 1e-5 - ulps * torch.finfo(self.scores.dtype).eps) if ulps else lowest


def _as_computed(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` in `dtype` if that loses nothing of them, as where they had it before; else as they are."""
    if torch.finfo(dtype).bits >= torch.finfo(values.dtype).bits:
        return values
    narrow = values.to(dtype)
    return narrow if torch.equal(narrow.to(values.dtype), values) else values


@dataclass(frozen=True)
class Candidates:
    """K pairs of a row and a label that may have become a detection, ascending by row.

    Attributes:
        rows: (K,) int64, rows of the logits of the whole batch.
        labels: (K,) int64.
        frames: (K,) int64, the frame of each row.
        scores: (K,) in the model's dtype.
    """

    rows: Tensor
    labels: Tensor
    frames: Tensor
    scores: Tensor


DecodeBoxes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(rows (K,), labels (K,)) -> boxes (K, 4), extents (K,)`: boxes as `Detections.boxes` has them, and the size of the
largest number that went into each, which bounds its rounding error."""


def spread(counts: Sequence[int], device: torch.device) -> Tensor:
    """(sum of counts,) int64: `i` repeated `counts[i]` times, without waiting for the device."""
    repeats = torch.tensor(counts, dtype=torch.int64)
    return torch.repeat_interleave(repeats).to(device, non_blocking=True)


def pairs_above(values: Tensor, floors: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where `values (R, C)` is at least its row's floor `(R,)`, ascending.

    Most rows hold nothing, so their maxima are looked at first: one pass over the values, not three.
    """
    rows = (values.amax(1) >= floors).nonzero().squeeze(1)
    within, columns = (values[rows] >= floors[rows, None]).nonzero(as_tuple=True)
    return rows[within], columns


def recover_rows(detections: Detections, candidates: Candidates, decode: DecodeBoxes, *, ulps: int) -> Tensor:
    """(B,) int64: the row of each detection.

    Args:
        detections: B of them.
        candidates: all pairs that may have been detected; pairs too many do no harm.
        decode: boxes of some candidates.
        ulps: how far a recomputed score may be off, in units in the last place of the scores' dtype.

    Raises:
        HookError: a detection has no row, or must share its row with another of the same label.
    """
    ranges = _ranges_of_detections(detections, candidates, ulps)
    parts = [_fitting_pairs(detections, candidates, decode, ranges, part) for part in ranges.parts()]
    pairs, owners, distances, gaps = (torch.cat(column) for column in zip(*parts, strict=True))
    # By detection, then by the box, then by the score, then by the row: every sort is stable.
    order = gaps.argsort(stable=True)
    order = order[distances[order].argsort(stable=True)]
    order = order[owners[order].argsort(stable=True)]
    chosen, found = _choose(pairs[order], owners[order], len(detections.scores))
    if not bool(found.all()):
        raise HookError(_unrecovered(detections, found))
    return candidates.rows[chosen]


@dataclass(frozen=True)
class _Ranges:
    """For each of K candidates, the range of the detections, sorted by frame, label and score, that it may be."""

    low: Tensor  # (K,)
    counts: Tensor  # (K,)
    order: Tensor  # (B,) detections in that order
    detected: Tensor  # (B,) their keys
    offered: Tensor  # (K,) the candidates' keys

    def parts(self) -> list[slice]:
        """Runs of candidates with a bounded number of pairs: where all scores are equal, everything is everyone's."""
        ends = self.counts.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        if total <= _MOST_PAIRS:
            return [slice(0, len(ends))]
        limits = torch.arange(_MOST_PAIRS, total, _MOST_PAIRS, device=ends.device)
        cuts = [0, *torch.searchsorted(ends, limits).tolist(), len(ends)]
        return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def _ranges_of_detections(detections: Detections, candidates: Candidates, ulps: int) -> _Ranges:
    """The bits of non-negative float32 are ordered as their values, so (frame, label, score) is one integer."""
    labels = torch.cat([detections.labels, candidates.labels]).amax() + 1 if len(detections.labels) else 1
    detected = _keys(detections.frames * labels + detections.labels, detections.scores)
    offered = _keys(candidates.frames * labels + candidates.labels, candidates.scores)
    detected, order = detected.sort(stable=True)
    finer = torch.finfo(detections.scores.dtype).eps / torch.finfo(torch.float32).eps  # 2^16 float32 to a bfloat16
    reach = ulps * max(round(finer), 1)
    low = torch.searchsorted(detected, offered - reach)
    counts = torch.searchsorted(detected, offered + reach, right=True) - low
    return _Ranges(low, counts, order, detected, offered)


def _fitting_pairs(
    detections: Detections, candidates: Candidates, decode: DecodeBoxes, ranges: _Ranges, part: slice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the pairs (candidate, detection) of one part, those whose boxes agree; how far boxes and scores do not."""
    counts = ranges.counts[part]
    local = torch.repeat_interleave(counts)
    nth = torch.arange(len(local), device=local.device) - (counts.cumsum(0) - counts)[local]
    pairs = local + part.start
    places = ranges.low[pairs] + nth
    owners = ranges.order[places]
    boxes, extents = decode(candidates.rows[pairs], candidates.labels[pairs])
    distances = _distances(boxes, detections.boxes[owners])
    fits = (distances <= _CLOSE_BOXES * torch.finfo(boxes.dtype).eps * extents.float()).nonzero().squeeze(1)
    pairs, places = pairs[fits], places[fits]
    return pairs, owners[fits], distances[fits], (ranges.detected[places] - ranges.offered[pairs]).abs()


def _keys(groups: Tensor, scores: Tensor) -> Tensor:
    bits = scores.float().contiguous().view(torch.int32).to(torch.int64)
    return (groups << _SCORE_BITS) + bits


def _distances(boxes: Tensor, others: Tensor) -> Tensor:
    """(K,) float32: the largest difference of a coordinate; a NaN equals a NaN."""
    boxes, others = boxes.float(), others.float()
    same = boxes.isnan() & others.isnan()
    return (boxes - others).abs().masked_fill(same, 0).amax(1)


def _choose(pairs: Tensor, owners: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """For each of `count` detections the best of its pairs, equal detections taking equal pairs in turn.

    Args:
        pairs: (K,) candidates, sorted by owner, the best first.
        owners: (K,) the detection that each is offered to.
        count: B.

    Returns:
        (B,) candidates, and (B,) bool, whether each detection has one of its own.
    """
    if len(pairs) == 0:
        nothing = torch.zeros(count, dtype=torch.int64, device=pairs.device)
        return nothing, nothing.bool()
    last = len(pairs) - 1
    offers = torch.bincount(owners, minlength=count)
    starts = offers.cumsum(0) - offers
    turns = _turns(pairs[starts.clamp(max=last)])
    chosen = pairs[(starts + turns).clamp(max=last)]
    return chosen, (turns < offers) & (_turns(chosen) == 0)


def _turns(values: Tensor) -> Tensor:
    """How many equal values come before each."""
    ordered, order = values.sort(stable=True)
    turns = torch.arange(len(values), device=values.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(turns).scatter_(0, order, turns)


def _check_outputs(outputs: Any) -> None:
    """Make sure that there is a dict a frame, with as many boxes and labels as scores."""
    if not isinstance(outputs, (list, tuple)) or not outputs:
        raise HookError(
            f"the detector must return a list of dicts, one a frame; got {type(outputs).__name__}{_CHANGED}"
        )
    for frame, output in enumerate(outputs):
        if not isinstance(output, Mapping):
            raise HookError(
                f"the detector must return a dict a frame; got {type(output).__name__} for image {frame} of the batch"
                f"{_CHANGED}"
            )
        shapes = {name: getattr(output.get(name), "shape", None) for name in ("boxes", "labels", "scores")}
        count = shapes["scores"][0] if shapes["scores"] is not None and len(shapes["scores"]) == 1 else None
        if count is None or shapes["boxes"] != (count, 4) or shapes["labels"] != (count,):
            got = ", ".join(f"`{name}` {'missing' if s is None else tuple(s)}" for name, s in shapes.items())
            raise HookError(
                "the detector must return `boxes` (B, 4), `labels` (B,) and `scores` (B,) for each frame; got "
                f"{got} for image {frame} of the batch{_CHANGED}"
            )


def _unrecovered(detections: Detections, found: Tensor) -> str:
    lost = (~found).nonzero().squeeze(1)
    first = int(lost[0])
    return (
        f"{len(lost)} of {len(found)} detections are no row of the recorded logits; the first is in frame "
        f"{int(detections.frames[first])} of the batch, label {int(detections.labels[first])}, score "
        f"{float(detections.scores[first])!r}. Its score, label or box was changed after the detector's own "
        f"postprocessing, or that is not its family's{_CHANGED}"
    )
