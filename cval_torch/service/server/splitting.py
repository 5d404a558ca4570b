"""Where the elements of a large JSON array lie in a file, so that they can be read some at a time.

Nothing is parsed here. An array is taken out of the text around it, and cut at commas between its elements. The text is
JSON if what is left of it is, and each run of elements is: whoever parses those decides on all of it, and by the same
parser as for a text that is parsed whole. Where the cuts are right is a matter of valid texts only. In an invalid text
they may be anywhere, and some of the pieces are invalid then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from cval_torch.service.server.settings import RefusedError

RUN = 1 << 18
"""Bytes of a run of elements, unless a single element is larger."""
DEEPEST = 250  # the parser refuses what is nested deeper than 200

_BLOCK = 1 << 20
_WHITESPACE = b" \t\n\r"
_QUOTE, _COMMA, _OPENING = ord('"'), ord(","), ord("[")
_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1
_IS_MARK = _STEPS != 0
_IS_MARK[[_QUOTE, _COMMA]] = True

Numbers = npt.NDArray[np.int64]


class Run(NamedTuple):
    """Elements that follow each other: where their text lies, and the number of the first in the array.

    The text of the only run of an array is blank if the array is empty.
    """

    start: int
    stop: int
    first: int


@dataclass
class Split:
    """A text whose arrays of one name were taken out.

    Attributes:
        rest: the text, with `[]` for each array.
        arrays: the runs of each. There are several where a key stands twice.
    """

    rest: bytearray = field(default_factory=bytearray)
    arrays: list[list[Run]] = field(default_factory=list)


def split(file: BinaryIO, start: int, stop: int, key: str | None, *, most: int) -> Split:
    """Take an array out of the text between two places of a file.

    Args:
        file: its text is read once, a block at a time.
        start: where the text begins.
        stop: where it ends.
        key: of the object that the text is, whose value is the array; None: the text is the array.
        most: bytes of the rest.

    Raises:
        RefusedError: 413, the rest is longer; 422, nested far deeper than the parser takes.
    """
    splitter = _Splitter(key, most)
    file.seek(start)
    while start < stop:
        block = file.read(min(_BLOCK, stop - start))
        if not block:
            break
        splitter.take(block, start)
        start += len(block)
    return splitter.found


@dataclass
class _Marks:
    """The brackets and commas of a block that lie outside strings, and not too deep: where, and what they are."""

    places: Numbers
    kinds: npt.NDArray[np.uint8]
    levels: Numbers


class _Splitter:
    def __init__(self, key: str | None, most: int) -> None:
        self.found = Split()
        self._key, self._most = key, most
        self._level = 1 if key is None else 2  # how many brackets are open within the array
        self._depth = 0
        self._in_string = self._is_escaped = False
        self._runs: _Runs | None = None  # of the array that is open

    def take(self, block: bytes, at: int) -> None:
        """Take the next block in, which begins at that place of the file."""
        marks = self._marks(block)
        at_level = marks.levels == self._level
        openings = np.flatnonzero(at_level & (marks.kinds == _OPENING))
        closings = np.flatnonzero((marks.levels <= self._level) & (_STEPS[marks.kinds] < 0))
        commas = np.flatnonzero(at_level & (marks.kinds == _COMMA))
        done, mark = 0, 0  # bytes, and marks, of the block
        while True:
            if self._runs is None:
                following = openings[np.searchsorted(openings, mark) :]
                if not len(following):
                    self._keep(block[done:])
                    return
                mark = int(following[0])
                place = int(marks.places[mark]) + 1
                self._keep(block[done : place - 1])
                if self._is_ours():
                    self._runs = _Runs(at + place)
                self._keep(block[place - 1 : place])
                done, mark = place, mark + 1
            else:
                ends = closings[np.searchsorted(closings, mark) :]
                end = int(ends[0]) if len(ends) else len(marks.places)
                inside = commas[np.searchsorted(commas, mark) : np.searchsorted(commas, end)]
                self._runs.cut(marks.places[inside] + at)
                if not len(ends):
                    return
                done, mark = int(marks.places[end]), end + 1
                self.found.arrays.append(self._runs.ended(at + done))
                self._runs = None

    def _marks(self, block: bytes) -> _Marks:
        text = b"_" + block[1:] if self._is_escaped else block
        if b"\\" in text:
            text = text.replace(b"\\\\", b"__")
            self._is_escaped = text.endswith(b"\\")
            text = text.replace(b'\\"', b"__")
        else:
            self._is_escaped = False
        codes = np.frombuffer(text, dtype=np.uint8)
        places = np.flatnonzero(_IS_MARK[codes])
        kinds = codes[places]
        in_string = (np.cumsum(kinds == _QUOTE) + self._in_string) & 1
        if len(in_string):
            self._in_string = bool(in_string[-1])
        outside = (in_string == 0) & (kinds != _QUOTE)
        places, kinds = places[outside], kinds[outside]
        steps = _STEPS[kinds]
        depths = self._depth + np.cumsum(steps, dtype=np.int64)
        if len(depths):
            self._depth = int(depths[-1])
            if int(depths.max()) > DEEPEST:
                raise RefusedError(422, "Invalid JSON: recursion limit exceeded")
        levels = depths + (steps < 0)  # a closing bracket belongs to what it closes
        near = levels <= self._level
        return _Marks(places[near], kinds[near], levels[near])

    def _keep(self, text: bytes) -> None:
        rest = self.found.rest
        rest += text
        if len(rest) > self._most:
            beside = "" if self._key is None else f" beside its `{self._key}`"
            raise RefusedError(413, f"at most {self._most} bytes of a JSON value{beside} are taken")

    def _is_ours(self) -> bool:
        """Whether the array that opens after the rest is the value of the key."""
        if self._key is None:
            return True
        rest = self.found.rest
        end = _without_space(rest)
        if rest[end - 1 : end] != b":":
            return False
        end = _without_space(rest, end - 1)
        begin = rest.rfind(b'"', max(0, end - 2 - 6 * len(self._key)), max(0, end - 1))
        if begin < 1 or rest[begin - 1] not in b"{," + _WHITESPACE:
            return False
        try:
            name = json.loads(rest[begin:end])
        except ValueError:
            return False
        return bool(name == self._key)


class _Runs:
    """The runs of an array, as commas between its elements come."""

    def __init__(self, start: int) -> None:
        self._found = list[Run]()
        self._start, self._first = start, 0
        self._cut: tuple[int, int] | None = None  # the last comma that the run may end at, and the element before it
        self._elements = 0  # that have ended

    def cut(self, commas: Numbers) -> None:
        """Take in the next commas."""
        done = 0
        while done < len(commas):
            reach = int(np.searchsorted(commas, self._start + RUN, side="right"))
            if reach > done:
                self._cut = (int(commas[reach - 1]), self._elements + reach)
            if reach == len(commas):
                break
            if self._cut is None:  # not even one element fits
                self._cut = (int(commas[done]), self._elements + done + 1)
            self._end()
            done = int(np.searchsorted(commas, self._start, side="left"))
        self._elements += len(commas)

    def _end(self) -> None:
        if self._cut is not None:
            place, elements = self._cut
            self._found.append(Run(self._start, place, self._first))
            self._start, self._first, self._cut = place + 1, elements, None

    def ended(self, stop: int) -> list[Run]:
        """All of them, once the array has ended."""
        if stop - self._start > RUN:
            self._end()
        self._found.append(Run(self._start, stop, self._first))
        return self._found


def _without_space(text: bytearray, end: int | None = None) -> int:
    """Where a text ends, but for whitespace."""
    end = len(text) if end is None else end
    while end and text[end - 1] in _WHITESPACE:
        end -= 1
    return end
