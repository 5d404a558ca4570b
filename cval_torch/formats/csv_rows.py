"""Rows of CSV files of boxes, ours or another program's, as checked values by frame."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError

SIDES = ("xmin", "ymin", "xmax", "ymax")
FRAME_COLUMNS = ("frame_id", "file_name", "width", "height")
BOX_COLUMNS = ("label", "class_name", *SIDES, "score")
COLUMNS = (*FRAME_COLUMNS, *BOX_COLUMNS, "rank", "uncertainty", "round", "annotated", "is_crowd")
_ALIASES = {
    "file_name": ("filename", "image", "image_path", "image_name", "path"),
    "frame_id": ("image_id",),
    "class_name": ("class", "category", "category_name", "label_name", "name"),
    "label": ("class_id", "category_id"),
    "xmin": ("x1", "x_min", "left", "xtl"),
    "ymin": ("y1", "y_min", "top", "ytl"),
    "xmax": ("x2", "x_max", "right", "xbr"),
    "ymax": ("y2", "y_max", "bottom", "ybr"),
    "score": ("confidence", "conf"),
    "width": ("image_width",),
    "height": ("image_height",),
    "is_crowd": ("iscrowd",),
}
_FORMULA = re.compile(r"[=+\-@\t\r']")
_ESCAPED = re.compile(r"'[=+\-@\t\r']")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula; `read_table` gives the text as it was.

    >>> guarded("=1+1"), guarded("cam/1.jpg")
    ("'=1+1", 'cam/1.jpg')
    """
    return f"'{text}" if _FORMULA.match(text) else text


@dataclass
class CsvBox:
    """A box, as xyxy in pixels, and the line that it stands on."""

    corners: tuple[float, ...]
    label: int | None
    class_name: str
    score: float
    is_crowd: bool
    line: int


@dataclass
class CsvTable:
    """The frames, as values by column, and the boxes of each, in the order of their first rows."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    boxes: list[list[CsvBox]] = field(default_factory=list)

    def column(self, name: str) -> list[Any]:
        """What each frame has there."""
        return [frame[name] for frame in self.frames]


def read_table(path: Path, source: str) -> CsvTable:
    """Read a file.

    Args:
        path: of the file.
        source: what to call it in messages.

    Raises:
        InvalidInputError: see `load_csv`.
        OSError: it cannot be read.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{source} is not UTF-8: {error.reason} at byte {error.start}. Save it as 'CSV UTF-8'"
        ) from error
    heading = content.lstrip("\r\n").split("\n", maxsplit=1)[0]
    delimiter = max(",;\t", key=heading.count)  # the first of them where none occurs
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    table = CsvTable()
    places: dict[tuple[str | None, str], int] = {}
    lines = _lines(reader, source)
    first, cells = next(lines, (1, []))
    at = _columns(cells, f"line {first} of {source}")
    width = len(cells)
    for number, cells in lines:
        row = _Row(cells, at, f"line {number} of {source}", width=width, decimal_comma=delimiter == ";")
        frame = row.frame()
        key = frame["frame_id"], "" if frame["frame_id"] else frame["file_name"]
        if key not in places:
            places[key] = len(table.frames)
            table.frames.append(frame)
            table.boxes.append([])
        known = table.frames[places[key]]
        for name, value in frame.items():
            if str(value) != str(known[name]):  # NaN is not equal to itself
                raise InvalidInputError(
                    f"{row.where} must say of the frame {frame['file_name']!r} what its first row says; `{name}` is "
                    f"{value!r} here, and {known[name]!r} there"
                )
        box = row.box(number)
        if box is not None:
            table.boxes[places[key]].append(box)
    return table


def _lines(reader: Any, source: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line that each record begins in, and its cells. Blank lines are passed over."""
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InvalidInputError(f"line {begin} of {source} is no row of a CSV file: {error}") from error
        if any(cells):
            yield begin, cells


def _columns(heading: Sequence[str], where: str) -> dict[str, int]:
    """Where each column that we know stands."""
    given: dict[str, int] = {}
    for place, name in enumerate(heading):
        if not name.strip():
            continue
        if given.setdefault(name.strip().lower(), place) != place:
            raise InvalidInputError(f"{where} names the column {name.strip()!r} twice")
    at = {}
    for column in COLUMNS:
        found = next((name for name in (column, *_ALIASES.get(column, ())) if name in given), None)
        if found is not None:
            at[column] = given[found]
    has = f"it has {', '.join(map(repr, given)) or 'no columns'}"
    if "file_name" not in at and "frame_id" not in at:
        raise InvalidInputError(f"{where} must name a column `file_name` or `frame_id`; {has}")
    if any(side not in at for side in SIDES):
        raise InvalidInputError(f"{where} must name the columns {', '.join(SIDES)}; {has}")
    if "class_name" not in at and "label" not in at:
        raise InvalidInputError(f"{where} must name a column `class_name` or `label` for its boxes; {has}")
    return at


class _Row:
    """The cells of a row, by column."""

    def __init__(
        self, cells: Sequence[str], at: Mapping[str, int], where: str, *, width: int, decimal_comma: bool
    ) -> None:
        if len(cells) != width:
            raise InvalidInputError(
                f"{where} must have {width} cells, as the first line has; got {len(cells)}. A text with the delimiter "
                'or a line break in it must stand in quotes ("...")'
            )
        self._cells, self._at, self._comma = cells, at, decimal_comma
        self.where = where

    def _text(self, column: str) -> str:
        place = self._at.get(column)
        text = "" if place is None else self._cells[place]
        return text[1:] if _ESCAPED.match(text) else text

    def _number(self, column: str, default: float) -> float:
        text = self._text(column).strip()
        if not text:
            return default
        try:
            value = float(text.replace(",", ".") if self._comma else text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InvalidInputError(f"{self.where} must have a finite number as `{column}`; got {text[:80]!r}")
        return value

    def _integer(self, column: str, default: int, least: int) -> int:
        value = self._number(column, default)
        if value != int(value) or abs(value) >= 2**53 or value < min(least, default):
            raise InvalidInputError(
                f"{self.where} must have a whole number of {least} or more as `{column}`; got {self._text(column)!r}"
            )
        return int(value)

    def _flag(self, column: str) -> bool | None:
        text = self._text(column).strip().lower()
        if text and text not in _FLAGS:
            raise InvalidInputError(f"{self.where} must have true or false as `{column}`; got {self._text(column)!r}")
        return _FLAGS.get(text)

    def frame(self) -> dict[str, Any]:
        """What the row says of its frame."""
        frame_id, file_name = self._text("frame_id"), self._text("file_name")
        if not (frame_id or file_name):
            raise InvalidInputError(f"{self.where} must have a `file_name` or a `frame_id`; both are empty")
        return {
            "frame_id": frame_id or None,
            "file_name": file_name or frame_id,
            "width": self._integer("width", 0, 0),
            "height": self._integer("height", 0, 0),
            "rank": self._integer("rank", 0, 1),
            "uncertainty": self._number("uncertainty", math.nan),
            "round": self._integer("round", -1, 0),
            "annotated": self._flag("annotated"),
        }

    def box(self, line: int) -> CsvBox | None:
        """The box of the row; None if all four sides are empty."""
        texts = {side: self._text(side).strip() for side in SIDES}
        if not any(texts.values()):
            return None
        for side, text in texts.items():
            if not text:
                raise InvalidInputError(f"{self.where} must have a number as `{side}`; it is empty")
        left, top, right, bottom = (self._number(side, math.nan) for side in SIDES)
        for name, low, high in (("xmax", left, right), ("ymax", top, bottom)):
            if high < low:
                least = name.replace("max", "min")
                raise InvalidInputError(
                    f"{self.where} must have a `{name}` of {low:g}, its `{least}`, or more; got {high:g}"
                )
        score = self._number("score", math.nan)
        if not math.isnan(score) and not 0 <= score <= 1:
            raise InvalidInputError(f"{self.where} must have a `score` in [0, 1]; got {self._text('score')!r}")
        label = self._label()
        class_name = self._text("class_name") or ("" if label is not None else self._text("label").strip())
        if label is None and not class_name:  # in tables of others, `label` may be a name
            raise InvalidInputError(f"{self.where} must have a `class_name` or a `label`; both are empty")
        crowd = self._flag("is_crowd") or False
        return CsvBox((left, top, right, bottom), label, class_name or str(label), score, crowd, line)

    def _label(self) -> int | None:
        text = self._text("label").strip()
        whole = re.fullmatch(r"([+-]?[0-9]{1,18})([.,]0*)?", text)  # pandas makes 7.0 of 7 beside an empty cell
        return None if whole is None else int(whole[1])
