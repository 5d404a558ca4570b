"""A contact sheet: the chosen frames as one picture, with what the detector saw in them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.pool.targets import read_boxes
from cval_torch.report.frames import ChosenFrames
from cval_torch.report.palette import PALETTE, is_bright, place_of
from cval_torch.report.picture_file import check_picture_file
from cval_torch.report.pixels import as_rgb, image_in

_INK, _FAINT, _PAPER, _CELL = (25, 25, 30), (110, 110, 120), (255, 255, 255), (228, 229, 233)
_GAP = 14
_FAR = 4096  # pixels: well beyond the edge of a tile


def contact_sheet(
    frames: ChosenFrames,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    classes: Mapping[int, str] | Sequence[str] | None = None,
    columns: int | None = None,
    tile_size: int = 224,
    min_score: float = 0.3,
    max_frames: int = 60,
    show_truth: bool = False,
) -> Path:
    """Draw the chosen frames, the first choice first, with rank, id, score and predicted boxes.

    Args:
        frames: what `select` returned, or anything like it.
        path: the picture's file; its suffix says the format, such as `.png`. Its folder is made if it is not there.
        title: printed on top.
        classes: names of the classes by label; None prints the numbers.
        columns: tiles in a row; None: up to 6.
        tile_size: side in pixels of the square that an image is fitted into.
        min_score: predicted boxes below it are counted in the caption, but not drawn. In [0, 1].
        max_frames: no more than this many frames are drawn; the title says of how many.
        show_truth: draw the boxes of the targets too, dashed: xyxy, or `BoundingBoxes` in XYXY, XYWH or CXCYWH.

    Returns:
        `path`.

    Raises:
        InvalidInputError: no frames, an option out of range, predictions without boxes or for another number of
            frames, an item that does not begin with an image; with `show_truth`, boxes of a target that are rotated,
            not (n, 4) or not finite, or targets of a dataset of torchvision that is not wrapped. Before any frame is
            loaded: a path with no suffix of a picture, or more pixels a side than its format has: 65500 in a JPEG,
            16383 in a WebP.
        OSError: the file cannot be written.
    """
    _check(frames, tile_size=tile_size, max_frames=max_frames, columns=columns, min_score=min_score)
    drawn = min(len(frames), max_frames)
    columns = min(drawn, columns or 6)
    style = _Style(tile_size, min_score, classes, show_truth)
    cell_width, cell_height = tile_size + _GAP, tile_size + style.caption_height + _GAP
    top = _GAP + (style.line * 3 if title else style.line + _GAP // 2)
    rows = -(-drawn // columns)
    width, height = columns * cell_width + _GAP, top + rows * cell_height
    target = check_picture_file(path, width=width, height=height)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        limit = sheet.width - 2 * _GAP
        pen.text((_GAP, _GAP), _fitted(pen, title, style.large, limit), fill=_INK, font=style.large)
    legend = f"{drawn} of {len(frames)} frames, first choice first; solid: predicted, score {min_score:g} or more"
    legend += "; dashed: annotated" if show_truth else ""
    position = (_GAP, top - style.line - _GAP // 2)
    pen.text(position, _fitted(pen, legend, style.small, sheet.width - 2 * _GAP), fill=_FAINT, font=style.small)
    for rank in range(drawn):
        left, up = _GAP + rank % columns * cell_width, top + rank // columns * cell_height
        sheet.paste(_tile(frames, rank, style), (left, up))
        _caption(pen, frames, rank, style, (left, up + tile_size + 4))
    sheet.save(target)
    return target


class _Style:
    """Sizes, fonts and names, the same for all tiles."""

    def __init__(
        self,
        tile_size: int,
        min_score: float,
        classes: Mapping[int, str] | Sequence[str] | None,
        show_truth: bool,
    ) -> None:
        self.tile_size = tile_size
        self.min_score = min_score
        self.classes = dict(enumerate(classes)) if isinstance(classes, Sequence) else dict(classes or {})
        self.show_truth = show_truth
        self.small = ImageFont.load_default(size=13)  # Pillow's own font: the same picture on every machine
        self.large = ImageFont.load_default(size=18)
        self.line = 17
        self.caption_height = 2 * self.line + 6

    def name(self, label: int) -> str:
        return self.classes.get(label, str(label))


@dataclass(frozen=True)
class _Box:
    corners: tuple[float, float, float, float]  # xyxy, in pixels of the tile
    label: int
    score: float | None  # None: an annotated box


def _tile(frames: ChosenFrames, rank: int, style: _Style) -> Image.Image:
    item = frames[rank]
    image = as_rgb(image_in(item), frames.frame_ids[rank])
    scale = style.tile_size / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = Image.new("RGB", (style.tile_size, style.tile_size), _CELL)
    corner = ((tile.width - size[0]) // 2, (tile.height - size[1]) // 2)
    tile.paste(image.resize(size, Image.Resampling.BICUBIC), corner)
    pen = ImageDraw.Draw(tile)
    if style.show_truth:
        for box in _placed(*_truth(item, frames.frame_ids[rank]), corner, scale):
            _dashed(pen, box.corners)
    predicted = _placed(*_predicted(frames.predictions, rank, style.min_score), corner, scale)
    for box in reversed(predicted):  # the surest last, on top
        pen.rectangle(box.corners, outline=PALETTE[place_of(box.label)], width=2)
    for box in reversed(predicted):
        _tag(pen, box, style)
    return tile


def _predicted(pool: Pool, rank: int, min_score: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """Boxes, labels and scores of one frame, the surest first, those below `min_score` left out."""
    rows = slice(int(pool.offsets[rank]), int(pool.offsets[rank + 1]))
    boxes = _required_boxes(pool)[rows].float()
    labels = torch.zeros(len(boxes), dtype=torch.int64) if pool.labels is None else pool.labels[rows]
    if pool.scores is None:
        return boxes, labels, torch.ones(len(boxes))
    scores = pool.scores[rows].float()
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= min_score]
    return boxes[order], labels[order], scores[order]


def _truth(item: Any, frame_id: str) -> tuple[Tensor, Tensor, None]:
    target = item[1] if isinstance(item, (tuple, list)) and len(item) > 1 else None
    found = read_boxes(target, f"the target of frame {frame_id!r}")
    return found, torch.zeros(len(found), dtype=torch.int64), None


def _placed(boxes: Tensor, labels: Tensor, scores: Tensor | None, corner: tuple[int, int], scale: float) -> list[_Box]:
    """Boxes in pixels of the tile, corners in order whatever the source's were.

    The right and bottom sides are drawn on the last pixel inside, so that a box as large as its image is seen.
    """
    points = (boxes.cpu().double() * scale + torch.tensor([*corner, *corner])).reshape(-1, 2, 2)
    points = points.clamp(-_FAR, _FAR)  # a corner may be anywhere; nothing is drawn, dash by dash, out there
    low, high = points.amin(1), points.amax(1)
    corners = torch.cat([low, torch.maximum(high - 1, low)], dim=1).tolist()
    values = [None] * len(corners) if scores is None else scores.tolist()
    return [
        _Box((x0, y0, x1, y1), int(label), score)
        for (x0, y0, x1, y1), label, score in zip(corners, labels.tolist(), values, strict=True)
    ]


def _tag(pen: ImageDraw.ImageDraw, box: _Box, style: _Style) -> None:
    """Class and score on a chip above the box, or just inside it where there is no room above."""
    text = f"{_printable(style.name(box.label))} {box.score:.2f}"
    colour = PALETTE[place_of(box.label)]
    width = pen.textlength(text, font=style.small) + 6
    left = min(max(box.corners[0], 0), style.tile_size - width)
    top = box.corners[1] - style.line if box.corners[1] >= style.line else box.corners[1]
    pen.rectangle((left, top, left + width, top + style.line - 1), fill=colour)
    pen.text((left + 3, top), text, fill=_INK if is_bright(colour) else _PAPER, font=style.small)


def _dashed(pen: ImageDraw.ImageDraw, corners: tuple[float, float, float, float], *, dash: int = 5) -> None:
    """A rectangle of alternating white and black dashes: to be seen on any ground."""
    x0, y0, x1, y1 = (round(value) for value in corners)
    for start, end, fixed, horizontal in ((x0, x1, y0, 1), (x0, x1, y1, 1), (y0, y1, x0, 0), (y0, y1, x1, 0)):
        for number, begin in enumerate(range(start, end, dash)):
            stop = min(begin + dash, end)
            line = (begin, fixed, stop, fixed) if horizontal else (fixed, begin, fixed, stop)
            pen.line(line, fill=_INK if number % 2 else _PAPER, width=1)


def _caption(pen: ImageDraw.ImageDraw, frames: ChosenFrames, rank: int, style: _Style, corner: tuple[int, int]) -> None:
    left, top = corner
    title = _fitted(pen, f"{rank + 1}. {frames.frame_ids[rank]}", style.small, style.tile_size)
    pen.text((left, top), title, fill=_INK, font=style.small)
    score = float(frames.scores[rank])
    pool = frames.predictions
    count = int(pool.counts[rank])
    shown = len(_predicted(pool, rank, style.min_score)[0])
    parts = [] if math.isnan(score) else [f"score {score:.3f}"]
    parts.append(f"{shown} of {count} {'box' if count == 1 else 'boxes'} drawn" if count else "no detection")
    pen.text((left, top + style.line), ", ".join(parts), fill=_FAINT, font=style.small)


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> str:
    """The text, its middle cut out if it is too long: ids differ at their ends."""
    text = _printable(text)
    if pen.textlength(text, font=font) <= width:
        return text
    kept = len(text)
    while kept > 2 and pen.textlength(_shortened(text, kept), font=font) > width:
        kept -= 1
    return _shortened(text, kept)


def _shortened(text: str, kept: int) -> str:
    return text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]


def _printable(text: str) -> str:
    """Line breaks and control characters would move the text or fail to be drawn."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _required_boxes(pool: Pool) -> Tensor:
    if pool.boxes is None:
        raise InvalidInputError("a contact sheet needs predictions with the column `boxes`; this pool has none")
    return pool.boxes


def _check(frames: ChosenFrames, *, tile_size: int, max_frames: int, columns: int | None, min_score: float) -> None:
    if len(frames) == 0:
        raise InvalidInputError("`frames` must hold at least one frame to draw; got none")
    if len(frames.predictions) != len(frames):
        raise InvalidInputError(
            f"`predictions` must be of the {len(frames)} frames; got those of {len(frames.predictions)}"
        )
    _required_boxes(frames.predictions)
    for name, value, least in (("tile_size", tile_size, 32), ("max_frames", max_frames, 1), ("columns", columns, 1)):
        if value is not None and value < least:
            raise InvalidInputError(f"`{name}` must be at least {least}; got {value}")
    if tile_size > _FAR // 2:
        raise InvalidInputError(f"`tile_size` must be at most {_FAR // 2}; got {tile_size}")
    if not 0 <= min_score <= 1:
        raise InvalidInputError(f"`min_score` must be in [0, 1]; got {min_score}")
