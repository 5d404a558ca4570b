"""From the output of a DETR-like detector, one row of logits and a box for each query, to detections.

A forward hook or a subclass may sort or filter the rows of the output, while what the decoder knows of the queries
stays in its order. So a row is paired with its query by its logits: they are equal, number by number, to those that the
class head returned.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.base import FrameBatch, Later, LaterRows, Size
from cval_torch.hooks.finite import check_rows
from cval_torch.pool.pool import Activation


@dataclass(frozen=True)
class QueryChoice:
    """Which rows of a query detector's output become detections.

    A query has one box and a probability for each class. With independent sigmoids several classes of one query may
    score above the threshold. Some hosts then report the same box several times, once for each class. Selection counts
    boxes, so here a query is reported once, under its best class, unless you say otherwise.

    Args:
        threshold: keep detections that score above this, in [0, 1). Low on purpose: what the detector is unsure of is
            what selection looks for.
        top_k: most detections a frame, highest scores first. Of equal scores, the earlier query comes first.
        every_class: False: a query is one detection, under its best class. True: each pair of a query and a class is
            one, so a box may come several times.

    Raises:
        InvalidInputError: an option out of its range.
    """

    threshold: float = 0.05
    top_k: int = 100
    every_class: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise InvalidInputError(f"`threshold` must be in [0, 1); got {self.threshold}")
        if self.top_k < 1:
            raise InvalidInputError(f"`top_k` must be at least 1; got {self.top_k}")


@dataclass(frozen=True)
class ChosenQueries:
    """The detections of N frames, by frame and in each by score.

    Attributes:
        counts: (N,) int64, detections of each frame.
        frames: (B,) int64, the frame of each detection.
        rows: (B,) int64, its row in the detector's output.
        labels: (B,) int64, its class.
        scores: (B,).
    """

    counts: Tensor
    frames: Tensor
    rows: Tensor
    labels: Tensor
    scores: Tensor

    def only(self, kept: Tensor) -> ChosenQueries:
        """Some of the detections, (K,) int64, ascending."""
        frames = self.frames[kept]
        counts = torch.bincount(frames, minlength=len(self.counts))
        return ChosenQueries(counts, frames, self.rows[kept], self.labels[kept], self.scores[kept])


def choose_queries(scores: Tensor, choice: QueryChoice) -> ChosenQueries:
    """Detections out of scores (N, R, C) of R rows a frame and C classes.

    >>> scores = torch.tensor([[[0.9, 0.8], [0.1, 0.3]]])
    >>> choose_queries(scores, QueryChoice()).labels
    tensor([0, 1])
    >>> choose_queries(scores, QueryChoice(every_class=True, threshold=0.2)).rows
    tensor([0, 0, 1])
    """
    classes = scores.shape[2]
    if choice.every_class:
        best = scores.flatten(1)
    else:
        best, labels = scores.max(2)
    ordered, order = best.sort(dim=1, descending=True, stable=True)
    ordered, order = ordered[:, : choice.top_k], order[:, : choice.top_k]
    kept = ordered > choice.threshold
    frames, places = kept.nonzero(as_tuple=True)
    picked = order[frames, places]
    if choice.every_class:
        rows, chosen = picked // classes, picked % classes
    else:
        rows, chosen = picked, labels[frames, picked]
    return ChosenQueries(kept.sum(1), frames, rows, chosen, ordered[kept])


def in_pixels(boxes: Tensor, frames: Tensor, sizes: Sequence[Size], *, clip: bool = True) -> Tensor:
    """Boxes in pixels, clipped to their images.

    Args:
        boxes: (B, 4): centre x, centre y, width and height, in units of the image. A
            negative side counts as 0.
        frames: (B,) int64, the image of each box.
        sizes: (height, width) of the N images.
        clip: False: leave them as they are where they reach out of their images.

    Returns:
        (B, 4) float32 xyxy.

    >>> in_pixels(torch.tensor([[0.5, 0.5, 0.5, 2.0]]), torch.tensor([0]), [(20, 40)])
    tensor([[10.,  0., 30., 20.]])
    """
    limits = _limits(frames, sizes)
    centres, halves = boxes[:, :2].float(), 0.5 * boxes[:, 2:].float().clamp(min=0)
    corners = torch.cat([centres - halves, centres + halves], dim=1) * limits
    return corners.clamp(min=0).minimum(limits) if clip else corners


def _limits(frames: Tensor, sizes: Sequence[Size]) -> Tensor:
    """(B, 4): width, height, width, height of each box's image."""
    height_width = torch.tensor(sizes, dtype=torch.float32, device=frames.device).reshape(-1, 2)
    return height_width.flip(1).repeat(1, 2)[frames]


def _inside(boxes: Tensor, frames: Tensor, sizes: Sequence[Size]) -> Tensor:
    """Boxes (B, 4) clipped to their images, for those in units of something larger."""
    return boxes.minimum(_limits(frames, sizes))


def _apart(boxes: Tensor, found: ChosenQueries, iou: float) -> Tensor:
    """(K,) the detections that stay, ascending, after non-maximum suppression in each frame and class."""
    ops = importlib.import_module("torchvision.ops")  # it takes seconds, and few detectors need it
    classes = int(found.labels.max()) + 1 if len(found.labels) else 1
    kept: Tensor = ops.batched_nms(boxes, found.scores.float(), found.frames * classes + found.labels, iou)
    return kept.sort().values


def read_queries(
    logits: Tensor,
    boxes: Tensor,
    states: Tensor,
    sizes: Sequence[Size] | None,
    *,
    activation: Activation,
    choice: QueryChoice,
    recorded: Tensor | None = None,
    told_by: Tensor | None = None,
    units: Sequence[Size] | None = None,
    iou: float | None = None,
    frame_embeddings: Tensor | Later | None = None,
    positions: Sequence[int] | None = None,
) -> FrameBatch:
    """The detections of a query detector, each with its query's probabilities and decoder state.

    Args:
        logits: (N, R, C) of the detector's output. With `softmax` the last column is "no object", which is never a
            detection.
        boxes: (N, R, 4) of the output: centre x, centre y, width, height, in units of the image.
        states: (N, Q, D), the decoder's last states, which the class head was given.
        sizes: (height, width) of the N images, such as `Recording.sizes`. None, which that is for a batch of a host's
            own kind, is refused: only your adapter can tell.
        activation: `sigmoid` for independent classes, `softmax` for classes that compete.
        choice: which rows become detections.
        recorded: (N, Q, C), the logits that the class head returned; rows are paired with states by them. None: row r
            is query r.
        told_by: (N, R, K), what of the output's rows is equal to `recorded`, then (N, Q, K), where the logits are not,
            such as the boxes. None: the logits.
        units: (height, width) of what boxes are in units of, if that is not the image, such as a padded square.
        iou: of two boxes of one class and frame that overlap by more than this, the one with the higher score stays.
            None: all stay.
        frame_embeddings: (N, D'), or what computes them.
        positions: where the N frames stand in the batch, for errors; None: 0 to N - 1.

    Raises:
        InvalidInputError: a logit or a box is NaN or inf, or `sizes` is None.
        HookError: a row is no query's.
    """
    if sizes is None:
        raise InvalidInputError("`sizes` must be (height, width) of each image; got None, as for a host's own batch")
    positions = range(len(logits)) if positions is None else positions
    owners = torch.tensor(list(positions), dtype=torch.int64)
    for what, values in (("the class logits", logits), ("the boxes", boxes)):
        check_rows(values, owners, what)
    if activation == "softmax":
        probabilities = logits.float().softmax(-1)
        found = choose_queries(probabilities[..., :-1], choice)
    else:
        probabilities = logits.float().sigmoid()
        found = choose_queries(probabilities, choice)
    inside = _inside(in_pixels(boxes[found.frames, found.rows], found.frames, units or sizes), found.frames, sizes)
    if iou is not None:
        whole = in_pixels(boxes[found.frames, found.rows], found.frames, units or sizes, clip=False)
        kept = _apart(whole, found, iou)
        found, inside = found.only(kept), inside[kept]
    frames, rows = found.frames, found.rows

    def states_at(picked: Tensor | slice) -> Tensor:
        if recorded is None:
            return states[frames[picked], rows[picked]].float()
        return states_of(states, recorded, logits if told_by is None else told_by, frames, rows)[picked].float()

    return FrameBatch(
        counts=found.counts,
        boxes=inside,
        labels=found.labels,
        scores=found.scores,
        probabilities=probabilities[frames, rows],
        activation=activation,
        box_embeddings=LaterRows(states_at).column,
        frame_embeddings=frame_embeddings.column if isinstance(frame_embeddings, Later) else frame_embeddings,
    )


def states_of(states: Tensor, recorded: Tensor, logits: Tensor, frames: Tensor, rows: Tensor) -> Tensor:
    """The decoder's states of some rows of the detector's output.

    Queries of one frame with the same logits are handed out in their order.

    Args:
        states: (N, Q, D), what the class head was given.
        recorded: (N, Q, C), the logits it returned.
        logits: (N, R, C) of the detector's output.
        frames: (B,) int64, the frame of each row that is wanted.
        rows: (B,) int64, its place among the R; a row may be asked for several times.

    Returns:
        (B, D).

    Raises:
        HookError: a row has the logits of no query, or two rows are one query's.
    """
    if recorded.dtype != logits.dtype:  # a wrapper made the output of mixed precision float32
        recorded, logits = recorded.float(), logits.float()
    if torch.equal(recorded, logits):
        return states[frames, rows]
    if recorded.shape[0] != logits.shape[0] or recorded.shape[2] != logits.shape[2]:
        raise HookError(
            f"the class head returned logits {tuple(recorded.shape)}, and the detector's output has logits "
            f"{tuple(logits.shape)}: these are of other frames or classes. Remove what changes the detector's output, "
            "or read it by an adapter of your own (`adapter=`)"
        )
    queries = torch.empty_like(rows)
    for frame in sorted(set(frames.tolist())):
        of_frame = frames == frame
        distinct, places = torch.unique(rows[of_frame], return_inverse=True)
        found = _queries(recorded[frame], logits[frame, distinct], frame, distinct.tolist())
        queries[of_frame] = found[places]
    return states[frames, queries]


def _queries(recorded: Tensor, wanted: Tensor, frame: int, rows: Sequence[int]) -> Tensor:
    """(K,) the query of each of K vectors `wanted (K, C)` among `recorded (Q, C)`."""
    free = torch.ones(len(recorded), dtype=torch.bool, device=recorded.device)
    queries = []
    for vector, row in zip(wanted, rows, strict=True):
        fitting = ((recorded == vector).all(1) & free).nonzero()
        if not len(fitting):
            raise HookError(
                f"row {row} of the detector's output for image {frame} of the batch has the logits of no query: "
                "something changed or repeated them after the class head, such as a forward hook or a subclass. "
                "Remove it, or read the output by an adapter of your own (`adapter=`)"
            )
        queries.append(fitting[0, 0])
        free[queries[-1]] = False
    return torch.stack(queries)
