"""From payloads to a `Pool` some frames at a time: what is held of those before is columns, not objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.growing import GrowingColumn
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Activation, Pool
from cval_torch.service.codec.numbers import NO_DETECTION
from cval_torch.service.protocol import BBoxScores, FramePrediction, SampledFrame

Vector = Sequence[float] | npt.NDArray[np.float32]
Lookup = Callable[[str, Collection[str]], Mapping[str, Vector]]
"""The embeddings of a frame by their ids, given the frame's id and the ids that are asked for."""


class GatheredFrames:
    """Takes frames in, and gives the pool that they describe at the end.

    What is wrong is said at the end, too: in the order of the columns, not of the frames.

    Args:
        lookup: where embeddings are; None leaves the pool without.

    >>> gathered = GatheredFrames()
    >>> gathered.add([FramePrediction(frame_id="a", predictions=[BBoxScores(score=0.5)])])
    >>> gathered.add([FramePrediction(frame_id="b")])
    >>> gathered.pool().counts.tolist()
    [1, 0]
    """

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup
        self._frame_ids = list[str]()
        self._counts = list[int]()
        self._boxes = 0
        self._scores = _Column("score")
        self._probabilities = _Column("probabilities")
        self._labels = _Labels()
        self._box_embeddings = _Embeddings()
        self._frame_embeddings = _Embeddings()
        self._named_rows = list[int]()
        self._labeled = list[bool]()

    def add(self, frames: Sequence[FramePrediction], *, continued: bool = False, unended: bool = False) -> None:
        """Take frames in.

        Args:
            frames: the next ones.
            continued: whether the first of them holds further boxes of the last frame before.
            unended: whether further boxes of the last of them are still to come.
        """
        boxes, owners = list[BBoxScores](), list[str]()
        for place, frame in enumerate(frames):
            goes_on = continued and place == 0
            is_whole = not (goes_on or (unended and place == len(frames) - 1))
            alone = stand_in(frame) if is_whole else None
            mine = [] if alone is not None else frame.predictions or []
            if goes_on:
                self._counts[-1] += len(mine)
            else:
                self._frame_ids.append(frame.frame_id)
                self._counts.append(len(mine))
                self._labeled.append(isinstance(frame, SampledFrame) and frame.labeled)
            boxes += mine
            owners += [frame.frame_id] * len(mine)
            if self._lookup is not None:
                self._box_embeddings.take_named(frame.frame_id, [box.embedding_id for box in mine], self._lookup)
                name = frame.embedding_id if isinstance(frame, SampledFrame) and not goes_on else None
                name = name if alone is None else alone.embedding_id
                if name is not None:
                    self._named_rows.append(len(self._frame_ids) - 1)
                    self._frame_embeddings.take_named(frame.frame_id, [name], self._lookup)
        self._boxes += len(boxes)
        self._scores.take([box.score for box in boxes], owners)
        self._probabilities.take([box.probabilities for box in boxes], owners)
        self._labels.take([box.category_id for box in boxes])

    @property
    def labeled(self) -> Sequence[bool]:
        """Of each frame, whether it is annotated already."""
        return self._labeled

    def pool(self) -> Pool:
        """All of it as one pool on the CPU, with float32 columns; what was gathered is gone then.

        Raises:
            InvalidInputError: boxes of which only some have a score, probabilities or an embedding; vectors of unequal
                lengths; an embedding that is not there; what a `Pool` does not take.
        """
        scores, rows = self._scores, self._probabilities
        boxed, framed = self._box_embeddings, self._frame_embeddings
        for problem in (scores.missing, rows.missing, rows.uneven, boxed.missing, boxed.unknown, boxed.uneven,
                        framed.unknown, framed.uneven):  # fmt: skip
            if problem is not None:
                raise InvalidInputError(problem)
        columns: dict[str, Any] = {
            "scores": scores.join() if self._boxes else torch.empty(0),
            "labels": self._labels.join(),
            "probabilities": rows.join(),
            "box_embeddings": boxed.join(),
            "frame_embeddings": self._all_frames(framed.join()),
        }
        offsets = offsets_of(torch.tensor(self._counts, dtype=torch.int64))
        activation: Activation | None = None if columns["probabilities"] is None else "softmax"
        return Pool(self._frame_ids, offsets, activation=activation, **columns)

    def _all_frames(self, known: Tensor | None) -> Tensor | None:
        if known is None:
            return None
        column = torch.zeros(len(self._frame_ids), known.shape[1])
        column[self._named_rows] = known
        return column


def stand_in(frame: FramePrediction) -> BBoxScores | None:
    """The one box that stands for a frame without boxes, if that is what the frame has."""
    if frame.predictions is None or len(frame.predictions) != 1:
        return None
    box = frame.predictions[0]
    sure = box.score is None or np.float32(box.score) == 1
    return box if box.category_id == NO_DETECTION and sure else None


class _Column:
    """Numbers or vectors that all boxes have, or none. Once it is known to be neither, rows are no longer kept."""

    def __init__(self, name: str, *, vectors: str | None = None) -> None:
        self._name, self._vectors = name, vectors or name
        self._rows = GrowingColumn()
        self._found = False
        self._without: str | None = None  # the frame of the first box without
        self._first = (-1, "")  # how long the first vector is, and of which frame
        self.uneven: str | None = None

    @property
    def missing(self) -> str | None:
        """What to say if some boxes have it, and others do not."""
        if not self._found or self._without is None:
            return None
        return f"`{self._name}` must be there for all boxes or for none; a box of frame {self._without!r} has none"

    @property
    def is_open(self) -> bool:
        """Whether rows are still worth having."""
        return self._without is None and self.uneven is None

    def look(self, values: Sequence[object], owners: Sequence[str]) -> None:
        """Take note of which boxes have it."""
        absent = [owner for value, owner in zip(values, owners, strict=True) if value is None]
        if absent and self._without is None:
            self._without = absent[0]
            self._rows = GrowingColumn()
        self._found = self._found or len(absent) < len(values)

    def take(self, values: Sequence[Any], owners: Sequence[str]) -> None:
        """Take in what the next boxes have."""
        self.look(values, owners)
        if values and self.is_open:
            self.keep(values, owners)

    def keep(self, values: Sequence[Any], owners: Sequence[str]) -> None:
        """Take in rows, all of which are there."""
        if isinstance(values[0], float):
            self._rows.append(torch.tensor(values, dtype=torch.float32))
            return
        if not len(self._rows):
            self._first = (len(values[0]), owners[0])
        width, owner = self._first
        uneven = next((place for place, row in enumerate(values) if len(row) != width), None)
        if uneven is not None:
            self.uneven = (
                f"`{self._vectors}` must have one length; got {width} in frame {owner!r} and {len(values[uneven])} in "
                f"frame {owners[uneven]!r}"
            )
            self._rows = GrowingColumn()
            return
        rows = np.empty((len(values), width), dtype=np.float32)
        with np.errstate(over="ignore"):  # what float32 cannot hold is inf, which the Pool refuses by name
            for number, row in enumerate(values):
                rows[number] = row
        self._rows.append(torch.from_numpy(rows))

    def join(self) -> Tensor | None:
        """All rows; None if no box has any."""
        return self._rows.join() if self._found and self._without is None else None


class _Embeddings(_Column):
    """Vectors that boxes name."""

    def __init__(self) -> None:
        super().__init__("embedding_id", vectors="embedding")
        self.unknown: str | None = None

    def take_named(self, frame_id: str, names: Sequence[str | None], lookup: Lookup) -> None:
        """Take in those of the boxes of one frame."""
        self.look(names, [frame_id] * len(names))
        if not names or not self.is_open or self.unknown is not None:
            return
        named = [name for name in names if name is not None]
        found = lookup(frame_id, set(named))
        absent = next((name for name in named if name not in found), None)
        if absent is None:
            self.keep([found[name] for name in named], [frame_id] * len(named))
        else:
            self.unknown = f"frame {frame_id!r} has no embedding {absent!r} among those given"


class _Labels:
    """Classes, of which a box may have none: it gets -1 if any box has one."""

    def __init__(self) -> None:
        self._column = GrowingColumn()
        self._unlabeled = 0  # boxes before the first that has a class
        self._found = False

    def take(self, categories: Sequence[int | None]) -> None:
        if not self._found:
            if all(category is None for category in categories):
                self._unlabeled += len(categories)
                return
            self._column.append(torch.full((self._unlabeled,), NO_DETECTION, dtype=torch.int64))
            self._found = True
        known = [NO_DETECTION if category is None else category for category in categories]
        self._column.append(torch.tensor(known, dtype=torch.int64))

    def join(self) -> Tensor | None:
        if self._found:
            return self._column.join()
        return None if self._unlabeled else torch.empty(0, dtype=torch.int64)
