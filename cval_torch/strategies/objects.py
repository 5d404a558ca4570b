"""Frames as sets of objects, and how far two sets are from each other, class by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.offsets import chunks, offsets_of, places_of
from cval_torch.pool.pool import Pool
from cval_torch.strategies.columns import DESCRIBED
from cval_torch.strategies.descriptor import unit_rows

# Boxes of this score or less are no objects, unless a frame has no others.
FAINT = 0.05
# Distances are multiples of 1 / _STEPS: what float32 products cannot tell apart is equal, and sums of them are exact.
_STEPS = 2.0**16

_BLOCK_ELEMENTS = 2**22


def check_widths(pool: Pool, labeled: Pool | None) -> None:
    """See that the boxes of two pools can be compared.

    Raises:
        InvalidInputError: their embeddings are of two widths.
    """
    ours, theirs = pool.box_embeddings, None if labeled is None else labeled.box_embeddings
    if ours is not None and theirs is not None and len(ours) and len(theirs) and ours.shape[1] != theirs.shape[1]:
        raise InvalidInputError(
            f"`box_embeddings` of `labeled` must be (B, {ours.shape[1]}), as wide as those of `pool`; "
            f"got {tuple(theirs.shape)}"
        )


@dataclass(frozen=True, eq=False)
class Kind:
    """The objects of one class.

    Attributes:
        frames: (k,) int64, the frames that have some, rising.
        counts: (k,) int64, how many.
        vectors: (m, E) float32 unit rows, frame by frame.
        weights: (m,) float64, each object's share of its frame.
    """

    frames: Tensor
    counts: Tensor
    vectors: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class ByClass:
    """The objects of F frames, stored one class after another, and within a class frame by frame.

    Attributes:
        offsets: (F+1,) int64, where the objects of each frame begin in `places`.
        places: (M,) int64, for each object, frame by frame, where it is stored.
        labels: (M,) int64, as stored; so are the following.
        frames: (M,) int64.
        weights: (M,) float.
        vectors: (M, E) float32 unit rows.
    """

    offsets: Tensor
    places: Tensor
    labels: Tensor
    frames: Tensor
    weights: Tensor
    vectors: Tensor

    @classmethod
    def of(
        cls, counts: Tensor, labels: Tensor, weights: Tensor, vectors: Tensor, *, rows: Tensor | None = None
    ) -> ByClass:
        """Sort objects that are given frame by frame, `counts` (F,) in each, and make their vectors units.

        Those are `vectors[rows]`, or all.
        """
        offsets = offsets_of(counts)
        order, places, frames = _order(offsets, labels)
        sources = order if rows is None else rows[order]
        units = torch.empty(len(sources), vectors.shape[1], device=vectors.device)
        step = max(_BLOCK_ELEMENTS // max(vectors.shape[1], 1), 1)
        for begin in range(0, len(sources), step):
            units[begin : begin + step] = unit_rows(vectors[sources[begin : begin + step]])
        return cls(offsets, places, labels[order], frames, weights[order], units)

    def take(self, rows: Tensor) -> ByClass:
        """The frames at `rows`, in that order."""
        within, offsets = places_of(self.offsets, rows)
        stored = self.places[within]
        order, places, frames = _order(offsets, self.labels[stored])
        stored = stored[order]
        return ByClass(offsets, places, self.labels[stored], frames, self.weights[stored], self.vectors[stored])

    @cached_property
    def parts(self) -> dict[int, slice]:
        """Where the objects of each label are stored."""
        labels, sizes = torch.unique_consecutive(self.labels, return_counts=True)
        ends = sizes.cumsum(0)
        spans = zip(labels.tolist(), (ends - sizes).tolist(), ends.tolist(), strict=True)
        return {label: slice(begin, end) for label, begin, end in spans}

    @cached_property
    def kinds(self) -> dict[int, Kind]:
        """By label."""
        found = {}
        for label, part in self.parts.items():
            frames, counts = torch.unique_consecutive(self.frames[part], return_counts=True)
            found[label] = Kind(frames, counts, self.vectors[part], self.weights[part])
        return found


@dataclass(frozen=True, eq=False)
class Objects:
    """What F frames are compared by: their boxes, or, of frames without boxes, the frame itself."""

    boxes: ByClass
    wholes: ByClass

    @classmethod
    def of(cls, pool: Pool, *, frame_embeddings: bool = True) -> Objects:
        """The objects of a pool with `box_embeddings` and `labels`, or without boxes; those that are embedded.

        Boxes above `FAINT` count, or all, in a frame that has no such box. They weigh as their scores (alike without
        scores, or if all are 0), in all 1 a frame. A frame without boxes is one object of weight 1: its
        embedding, or, without `frame_embeddings`, one vector for all of them.
        """
        pool = pool.only(DESCRIBED).embedded_boxes()
        scores = torch.ones(pool.num_boxes, device=pool.device) if pool.scores is None else pool.scores.float()
        owners = pool.frame_rows
        clear = scores > FAINT
        kept = clear | (segmented(clear.float(), pool.counts, "sum") == 0)[owners]
        counts = torch.bincount(owners[kept], minlength=len(pool))
        weights = torch.where(kept, scores.double(), 0)
        total = segmented(weights, pool.counts, "sum")
        weights = torch.where((total == 0)[owners], 1 / pool.counts[owners], weights / total[owners])
        rows = kept.nonzero().squeeze(1)
        none = torch.empty(0, device=pool.device)
        labels = none.long() if pool.labels is None else pool.labels
        vectors = none[:, None] if pool.box_embeddings is None else pool.box_embeddings
        nulls = pool.is_empty.nonzero().squeeze(1)
        alike = torch.ones(len(pool), 1, device=pool.device)
        wholes = pool.frame_embeddings if frame_embeddings and pool.frame_embeddings is not None else alike
        whole_weights = torch.ones(len(nulls), dtype=torch.float64, device=pool.device)
        return cls(
            ByClass.of(counts, labels[rows], weights[rows], vectors, rows=rows),
            ByClass.of(pool.is_empty.long(), torch.zeros_like(nulls), whole_weights, wholes, rows=nulls),
        )

    def __len__(self) -> int:
        return len(self.boxes.offsets) - 1

    def take(self, rows: Tensor) -> Objects:
        """The frames at `rows`, in that order."""
        return Objects(self.boxes.take(rows), self.wholes.take(rows))

    def blocks(self, others: Objects) -> Iterator[tuple[int, Tensor]]:
        """The distances of some frames at a time: the row of the first, and (b, F) to each of the others."""
        sizes = len(others.boxes.labels) + len(others.wholes.labels)
        offsets = self.boxes.offsets + self.wholes.offsets
        for begin, end in chunks(offsets, boxes=max(_BLOCK_ELEMENTS // max(sizes, 1), 1)):
            yield begin, distances(self.take(torch.arange(begin, end, device=offsets.device)), others)


def distances(frames: Objects, others: Objects) -> Tensor:
    """(f, F) float32 in [0, 2] between all frames of two sets, symmetric, in multiples of 2^-16.

    With `s` the weights, which sum to 1 in each frame, and `d_k` of an object `k` of frame `x` the least `1 - cos` to
    an object of its class in frame `y`, and 2 if there is none, `d(x->y) = sum_k s_k d_k`, and the distance is the
    mean of `d(x->y)` and `d(y->x)`. A frame without boxes is 2 from any that has some.

    A frame is not always at 0 from itself: an embedding of zeros is at 1 from everything.
    """
    # 2 - d_k is 1 + cos with a match, and 0 without: only classes that both have are looked at
    near = torch.zeros(len(frames), len(others), dtype=torch.float64, device=frames.boxes.offsets.device)
    for mine, theirs in ((frames.boxes, others.boxes), (frames.wholes, others.wholes)):
        for label, kind in mine.kinds.items():
            other = theirs.kinds.get(label)
            if other is not None:
                near[kind.frames[:, None], other.frames] += _nearness(kind, other)
    return near.mul_(-0.5).add_(2).mul_(_STEPS).round_().clamp_(0, 2 * _STEPS).div_(_STEPS).float()


def _nearness(mine: Kind, theirs: Kind) -> Tensor:
    """(k, K) float64, the sum of `s (1 + cos)` over the objects of both frames, each with its best match."""
    cosines = theirs.vectors @ mine.vectors.T  # the larger one first: for a few columns that is several times as fast
    forth = segmented(cosines, theirs.counts, "max").T.double().add_(1).mul_(mine.weights[:, None])
    back = segmented(cosines.T, mine.counts, "max").double().add_(1).mul_(theirs.weights)
    return segmented(forth, mine.counts, "sum") + segmented(back.T, theirs.counts, "sum").T


def segmented(values: Tensor, counts: Tensor, how: str) -> Tensor:
    """`sum` or `max` of successive rows of (M, ...) values, `counts` (k,) at a time, for k > 0.

    Rows are taken in their order, so a result depends on its own rows alone, in the last bit too. Of no rows, the sum
    is 0 and the maximum minus infinity.
    """
    result: Tensor = torch.segment_reduce(values.contiguous(), how, lengths=counts, axis=0)
    return result


def _order(offsets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By class and frame: the order of objects that are given frame by frame, its inverse, and their frames."""
    order = labels.argsort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    counts = offsets.diff()
    return order, places, torch.arange(len(counts), device=order.device).repeat_interleave(counts)[order]
