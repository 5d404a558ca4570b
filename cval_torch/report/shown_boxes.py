"""The boxes of a frame as a page shows them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.report.palette import place_of
from cval_torch.report.thumbnails import Picture
from cval_torch.report.wording import ClassNames

Corners = tuple[int, int, int, int]
"""Left, top, width and height in the overlay of a picture, whole numbers."""

MOST_BOXES = 20
_MOST_CLASSES = 5
_LEAST_SHARE = 0.005


@dataclass(frozen=True)
class ShownBox:
    """One predicted box.

    Attributes:
        corners: left, top, width and height in the overlay of the picture, whole numbers; None: it cannot be drawn.
        label: its class; None where the predictions have no labels.
        name: of its class; empty where there is none.
        colour: its place in the palette.
        score: its confidence; None where the predictions have none.
        vector: names and probabilities of its most probable classes, the most probable first.
        others: the probability of all other classes together.
        decides: whether the frame has its score from this box.
    """

    corners: Corners | None
    label: int | None
    name: str
    colour: int
    score: float | None
    vector: tuple[tuple[str, float], ...] = ()
    others: float = 0.0
    decides: bool = False

    @property
    def vector_text(self) -> str:
        """The vector in words, such as `car 0.62, bus 0.30`."""
        told = ", ".join(f"{name} {value:.2f}" for name, value in self.vector)
        return told + (f", others {self.others:.2f}" if self.others >= _LEAST_SHARE else "")


@dataclass(frozen=True)
class ShownBoxes:
    """The boxes of one frame.

    Attributes:
        drawn: the larger ones first, so that smaller ones lie above them.
        total: how many there are in all.
        labels: of the boxes with at least the least score, sorted, each once: all, also of those not drawn.
        ranked: places in `drawn`, the surest box first.
    """

    drawn: tuple[ShownBox, ...]
    total: int
    labels: tuple[int, ...]
    ranked: tuple[int, ...]


def shown_boxes(
    pool: Pool, row: int, picture: Picture, names: ClassNames, *, min_score: float, decisive: int | None
) -> ShownBoxes:
    """The surest boxes of the frame at `row`, at most `MOST_BOXES` of those that reach `min_score`.

    Args:
        pool: with whatever columns.
        row: of the frame.
        picture: on which they are drawn.
        names: of classes.
        min_score: in [0, 1]; without scores all boxes reach it.
        decisive: which of the frame's boxes gives the frame its score; it is shown in any case. None: none does.
    """
    begin, end = int(pool.offsets[row]), int(pool.offsets[row + 1])
    count = end - begin
    scores = torch.ones(count) if pool.scores is None else pool.scores[begin:end].float().cpu()
    order = scores.argsort(descending=True, stable=True)
    sure = [place for place in order.tolist() if float(scores[place]) >= min_score]
    kept = sure[:MOST_BOXES]
    if decisive is not None and decisive not in kept:
        kept = [*kept[: MOST_BOXES - 1], decisive]
    labels = [] if pool.labels is None else pool.labels[begin:end].tolist()
    boxes = [
        ShownBox(
            None if pool.boxes is None else corners_in(pool.boxes[begin + place], picture),
            labels[place] if labels else None,
            names.short(labels[place]) if labels else "",
            place_of(labels[place]) if labels else 3,
            None if pool.scores is None else float(scores[place]),
            *_vector(pool, begin + place, names),
            decides=place == decisive,
        )
        for place in kept
    ]
    by_area = sorted(range(len(boxes)), key=lambda number: -_area(boxes[number]))
    return ShownBoxes(
        tuple(boxes[number] for number in by_area),
        count,
        tuple(sorted({labels[place] for place in sure})) if labels else (),
        tuple(by_area.index(number) for number in range(len(boxes))),
    )


def _area(box: ShownBox) -> int:
    return 0 if box.corners is None else box.corners[2] * box.corners[3]


def corners_in(box: Tensor, picture: Picture) -> Corners | None:
    """A box on the overlay of a picture, clipped to it; None without a picture, and for a box that lies outside of it.

    Args:
        box: (4,) two opposite corners, in pixels of the image.
        picture: on which it is drawn.
    """
    if picture.fault:
        return None
    points: Tensor = (box.cpu().double() * picture.scale).reshape(2, 2)
    low, high = points.amin(0).tolist(), points.amax(0).tolist()
    left, top = max(0, round(low[0])), max(0, round(low[1]))
    right, bottom = min(picture.width, round(high[0])), min(picture.height, round(high[1]))
    if left > picture.width or top > picture.height or right < 0 or bottom < 0:
        return None
    return left, top, max(1, right - left), max(1, bottom - top)


def _vector(pool: Pool, place: int, names: ClassNames) -> tuple[tuple[tuple[str, float], ...], float]:
    if pool.probabilities is None:
        return (), 0.0
    row = pool.probabilities[place].double().cpu()
    values, columns = row.sort(descending=True, stable=True)
    best = [
        (names.short(column), value)
        for value, column in zip(values[:_MOST_CLASSES].tolist(), columns.tolist(), strict=False)
        if value >= _LEAST_SHARE
    ]
    rest = float(row.sum()) - sum(value for _, value in best) if pool.activation == "softmax" else 0.0
    return tuple(best), max(rest, 0.0)
