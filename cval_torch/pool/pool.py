"""`Pool`: the predictions for many frames, as frozen columns, ragged by offsets."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.box_formats import as_corners
from cval_torch.pool.column_checks import (
    BOX_COLUMNS,
    COLUMNS,
    FRAME_COLUMNS,
    as_rows,
    check_column,
    check_frame_ids,
    check_offsets,
    rows_of,
)
from cval_torch.pool.offsets import offsets_among, offsets_of, places_of
from cval_torch.pool.pool_file import check_bytes, read_pool_file, write_pool_file
from cval_torch.pool.skipped import SkippedFrame

Activation = Literal["softmax", "sigmoid"]

IdSource = Literal["frame_id", "labels", "target", "dataset", "row"]
"""Where ids come from: a user's function, a `LabelPool`, targets, the dataset itself, or merely the row in it."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Predictions for F frames with B boxes in all, as columns; frame `i` owns boxes `offsets[i]:offsets[i+1]`.

    Everything is checked once, here; what is built is right. An optional column may be None.

    Attributes:
        frame_ids: F distinct strings of 1 to 128 characters: the names that the user knows the frames by.
        offsets: (F+1,) int64, from 0 to B, never falling.
        scores: (B,) float in [0, 1], confidence of each box; None only where the source gave none.
        indices: (F,) int64, rows of the user's dataset; None where there is none (an IterableDataset, a payload).
        boxes: (B, 4) float, xyxy in pixels of the original image; `BoundingBoxes` in XYWH or CXCYWH are converted.
        labels: (B,) int64 class of each box.
        probabilities: (B, C) float in [0, 1].
        activation: of `probabilities`: `softmax` (rows sum to 1, a background column, if any, included) or
            `sigmoid` (independent columns). None with no probabilities.
        box_embeddings: (B, E) float of any precision; (K, E) with `embedded`, in the order of the boxes.
        frame_embeddings: (F, D) float of any precision, of the whole frame.
        ids_from: where the ids come from; None if nobody says. A row is an id only within the dataset that has it.
        skipped: the frames that the pass left out (`on_error="skip"`). They are no rows of this pool. `take` keeps the
            whole record.
        embedded: (B,) bool, the K boxes that have a row of `box_embeddings`, at least one in each frame with boxes;
            None if every box has one. `extract(top_boxes=...)` makes it; `embedded_boxes` is the pool of these.

    Raises:
        InvalidInputError: a column of the wrong shape, type, device or range; a duplicate or overlong frame id;
            a NaN or inf, naming its frame.

    >>> pool = Pool(["a", "b"], torch.tensor([0, 2, 2]), scores=torch.tensor([0.9, 0.4]))
    >>> len(pool), pool.num_boxes, pool.counts.tolist()
    (2, 2, [2, 0])
    >>> pool.take([1]).frame_ids
    ('b',)
    """

    frame_ids: Sequence[str]
    offsets: Tensor
    scores: Tensor | None = None
    indices: Tensor | None = None
    boxes: Tensor | None = None
    labels: Tensor | None = None
    probabilities: Tensor | None = None
    activation: Activation | None = None
    box_embeddings: Tensor | None = None
    frame_embeddings: Tensor | None = None
    ids_from: IdSource | None = None
    skipped: Sequence[SkippedFrame] = ()
    embedded: Tensor | None = None

    def __post_init__(self) -> None:
        self._check_form()
        self._check_values()

    def _check_form(self) -> None:
        object.__setattr__(self, "frame_ids", tuple(self.frame_ids))
        object.__setattr__(self, "skipped", tuple(self.skipped))
        check_frame_ids(self.frame_ids)
        check_offsets(self.offsets, len(self.frame_ids))
        if isinstance(self.boxes, Tensor):
            object.__setattr__(self, "boxes", as_corners(self.boxes, "`boxes`"))
        if self.embedded is not None:
            check_column("embedded", self.embedded, rows=self.num_boxes, device=self.device)
            if self.box_embeddings is None:
                raise InvalidInputError("`embedded` must be given with `box_embeddings`, and only then; got it alone")
        for name in (*FRAME_COLUMNS, *BOX_COLUMNS):
            column = getattr(self, name)
            if column is not None:
                rows = rows_of(name, frames=len(self), boxes=self.num_boxes, embedded=int(self.embedded_offsets[-1]))
                check_column(name, column, rows=rows, device=self.device, marked=self.embedded is not None)
        if (self.probabilities is None) != (self.activation is None):
            raise InvalidInputError(
                "`activation` must be given with `probabilities`, and only then; "
                f"got activation={self.activation!r} and probabilities {_shape_of(self.probabilities)}"
            )
        if self.activation not in (None, "softmax", "sigmoid"):
            raise InvalidInputError(f"`activation` must be 'softmax' or 'sigmoid'; got {self.activation!r}")

    def _check_values(self) -> None:
        if self.embedded is not None:
            lacking = ((self.embedded_offsets.diff() == 0) & ~self.is_empty).nonzero()
            if len(lacking):
                frame_id = self.frame_ids[int(lacking[0])]
                raise InvalidInputError(
                    f"`embedded` must be True for a box of every frame with boxes; frame {frame_id!r} has none"
                )
        for name in ("scores", "probabilities", "boxes", "box_embeddings"):
            column = getattr(self, name)
            if column is not None:
                self._check_finite(name, column, unit_range=name in ("scores", "probabilities"))
        if self.frame_embeddings is not None:
            self._check_finite("frame_embeddings", self.frame_embeddings, unit_range=False)

    def _check_finite(self, name: str, column: Tensor, *, unit_range: bool) -> None:
        if column.numel() == 0:
            return
        low, high = torch.aminmax(column)  # NaN, if there is one, comes out of both
        if bool(low.isfinite() & high.isfinite()) and not (unit_range and bool((low < 0) | (high > 1))):
            return
        bad = ~column.isfinite()
        if unit_range:
            bad |= (column < 0) | (column > 1)
        row = int(bad.reshape(len(column), -1).any(1).nonzero()[0])
        starts = rows_of(name, frames=None, boxes=self.offsets, embedded=self.embedded_offsets)
        frame_row = row if starts is None else int((starts <= row).sum()) - 1
        what = "finite numbers in [0, 1]" if unit_range else "finite"
        offender = column[row].reshape(-1)[bad[row].reshape(-1)][0].item()
        raise InvalidInputError(
            f"`{name}` must be {what}; got {offender} in row {row}, of frame {self.frame_ids[frame_row]!r}"
        )

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __repr__(self) -> str:
        columns = [
            f"{name} {_shape_of(getattr(self, name))}" for name in COLUMNS[1:] if getattr(self, name) is not None
        ]
        return f"Pool({len(self)} frames, {self.num_boxes} boxes; {', '.join(columns) or 'no columns'})"

    @property
    def num_boxes(self) -> int:
        """B, the number of boxes in all frames together."""
        return int(self.offsets[-1])

    @property
    def counts(self) -> Tensor:
        """(F,) int64, the number of boxes of each frame."""
        return self.offsets.diff()

    @property
    def is_empty(self) -> Tensor:
        """(F,) bool, whether a frame has no boxes."""
        return self.offsets[1:] == self.offsets[:-1]

    @property
    def frame_rows(self) -> Tensor:
        """(B,) int64, for each box the row of its frame."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.device), self.counts)

    @cached_property
    def embedded_offsets(self) -> Tensor:
        """(F+1,) int64, where the rows of each frame begin in `box_embeddings`, and where the last one's end."""
        return self.offsets if self.embedded is None else offsets_among(self.offsets, self.embedded)

    @property
    def device(self) -> torch.device:
        """Where the columns are; they are all in one place."""
        return self.offsets.device

    def columns(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are present, with their names; `offsets` first."""
        for name in COLUMNS:
            column = getattr(self, name)
            if column is not None:
                yield name, column

    def take(self, rows: Sequence[int] | Tensor) -> Pool:
        """The frames at `rows`, in that order, with their boxes.

        Args:
            rows: positions in this pool, each in [0, F) and at most once.

        Raises:
            InvalidInputError: a row out of range, twice, or not an integer.
        """
        picked = as_rows(rows, len(self), self.device)
        box_rows, offsets = places_of(self.offsets, picked)
        embedded_rows = box_rows if self.embedded is None else places_of(self.embedded_offsets, picked)[0]
        columns = {
            name: column[rows_of(name, frames=picked, boxes=box_rows, embedded=embedded_rows)]
            for name, column in self.columns()
            if name != "offsets"
        }
        return self._with(frame_ids=tuple([self.frame_ids[row] for row in picked.tolist()]), offsets=offsets, **columns)

    def embedded_boxes(self) -> Pool:
        """The same frames with those boxes alone that have an embedding; itself, if all of them have one.

        What looks at embeddings of boxes beside other columns of theirs reads these, so that their rows go together.

        >>> mask = torch.tensor([True, False, True])
        >>> columns = {"scores": torch.tensor([0.9, 0.4, 0.1]), "box_embeddings": torch.zeros(2, 8), "embedded": mask}
        >>> Pool(["a", "b"], torch.tensor([0, 2, 3]), **columns).embedded_boxes().scores
        tensor([0.9000, 0.1000])
        """
        if self.embedded is None:
            return self
        all_rows: Any = slice(None)
        chosen = {
            name: column[rows_of(name, frames=all_rows, boxes=self.embedded, embedded=all_rows)]
            for name, column in self.columns()
            if name in BOX_COLUMNS
        }
        return self._with(offsets=self.embedded_offsets, embedded=None, **chosen)

    @classmethod
    def cat(cls, pools: Sequence[Pool]) -> Pool:
        """One pool of all frames, in order. The pools must have the same columns and widths.

        Raises:
            InvalidInputError: no pools; columns, widths, activations or devices that differ; an id in two pools.
        """
        if not pools:
            raise InvalidInputError("`pools` must hold at least one Pool; got none")
        first = pools[0]
        names = [name for name, _ in first.columns()]
        for number, pool in enumerate(pools):
            if [name for name, _ in pool.columns()] != names or pool.activation != first.activation:
                raise InvalidInputError(
                    f"pools must have the same columns; pool 0 is {first!r}, pool {number} is {pool!r}"
                )
        columns: dict[str, Tensor] = {}
        for name in names[1:]:
            parts = [getattr(pool, name) for pool in pools]
            for number, part in enumerate(parts):
                if part.shape[1:] != parts[0].shape[1:] or part.device != parts[0].device:
                    raise InvalidInputError(
                        f"`{name}` must have one width and device; pool 0 has {tuple(parts[0].shape)} on "
                        f"{parts[0].device}, pool {number} has {tuple(part.shape)} on {part.device}"
                    )
            columns[name] = torch.cat(parts)
        ids = [frame_id for pool in pools for frame_id in pool.frame_ids]
        offsets = offsets_of(torch.cat([pool.counts for pool in pools]))
        ids_from = first.ids_from if all(pool.ids_from == first.ids_from for pool in pools) else None
        skipped = [frame for pool in pools for frame in pool.skipped]
        return cls(ids, offsets, activation=first.activation, ids_from=ids_from, skipped=skipped, **columns)

    def to(self, device: torch.device | str) -> Pool:
        """The same pool on another device."""
        return self.replace(**{name: column.to(device) for name, column in self.columns()})

    def replace(self, **columns: Any) -> Pool:
        """The same pool with some columns exchanged, and checked again."""
        if columns.get("box_embeddings", self.box_embeddings) is None:
            columns = {"embedded": None, **columns}
        return dataclasses.replace(self, **columns)

    def only(self, names: Collection[str]) -> Pool:
        """The same frames with no more columns than these, and `indices`. Nothing is copied, or checked again.

        `embedded` comes with `box_embeddings`.
        """
        left_out: dict[str, None] = {name: None for name in (*BOX_COLUMNS, "frame_embeddings") if name not in names}
        left_out |= {"activation": None} if "probabilities" in left_out else {}
        left_out |= {"embedded": None} if "box_embeddings" in left_out else {}
        return self._with(**left_out)

    def part(self, begin: int, end: int) -> Pool:
        """The frames from `begin` to `end`. Nothing is copied, or checked again: mapped columns are not read.

        >>> Pool(["a", "b", "c"], torch.tensor([0, 2, 2, 3]), scores=torch.tensor([0.9, 0.4, 0.1])).part(1, 3).scores
        tensor([0.1000])
        """
        offsets = self.offsets[begin : end + 1]
        boxes, embedded = (slice(int(each[begin]), int(each[end])) for each in (self.offsets, self.embedded_offsets))
        columns = {
            name: column[rows_of(name, frames=slice(begin, end), boxes=boxes, embedded=embedded)]
            for name, column in self.columns()
            if name != "offsets"
        }
        return self._with(frame_ids=self.frame_ids[begin:end], offsets=offsets - boxes.start, **columns)

    def parts(self, *, frames: int = 1024) -> list[Pool]:
        """All frames in order, so many in each; see `part`."""
        return [self.part(begin, min(begin + frames, len(self))) for begin in range(0, len(self), frames)]

    @classmethod
    def of_checked(cls, frame_ids: Sequence[str], offsets: Tensor, **columns: Any) -> Pool:
        """A pool of columns whose numbers were checked before they were written: their form is checked alone.

        Columns that are mapped from the disk are not read for this.

        Args:
            frame_ids: F ids.
            offsets: (F+1,) int64.
            columns: the rest, as the constructor has it.

        Raises:
            InvalidInputError: a column of the wrong shape, type or device; an id twice.
        """
        made = object.__new__(cls)
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        if unknown := columns.keys() - defaults.keys():
            raise TypeError(f"a pool has no {', '.join(sorted(unknown))}")
        for name, value in {**defaults, "frame_ids": frame_ids, "offsets": offsets, **columns}.items():
            object.__setattr__(made, name, value)
        made._check_form()
        return made

    def with_skipped(self, skipped: Sequence[SkippedFrame]) -> Pool:
        """The same pool with another record of what the pass left out. The columns are not checked again."""
        return self._with(skipped=tuple(skipped))

    def _with(self, **values: Any) -> Pool:
        """The same pool with other values, which are right: nothing is checked again."""
        made = object.__new__(type(self))
        for field in dataclasses.fields(self):
            object.__setattr__(made, field.name, values.get(field.name, getattr(self, field.name)))
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool to one file, whole or not at all: an older file stays intact if writing fails.

        Raises:
            OSError: the disk is full or read-only.
        """
        named = {
            "frame_ids": json.dumps(list(self.frame_ids)),
            "activation": self.activation,
            "ids_from": self.ids_from,
            "skipped": json.dumps([frame.to_json() for frame in self.skipped]),
        }
        write_pool_file(path, dict(self.columns()), named)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = True, verify: bool = True) -> Pool:
        """Read a pool that `save` wrote.

        Args:
            path: the file.
            mmap: leave the columns on disk and page them in as they are read; a pool larger than memory loads.
            verify: whether to compare checksums, which reads the whole file once.

        Raises:
            InvalidInputError: the file is not a pool of this version.
            OSError: it cannot be read.
        """
        payload = read_pool_file(path, mmap=mmap)
        named: dict[str, Any] = {name: payload.get(name) for name in ("activation", "ids_from")}
        try:
            if verify:
                check_bytes(payload)
            named["skipped"] = [SkippedFrame.from_json(values) for values in json.loads(payload["skipped"])]
            # the checksums say that these are the numbers that were checked before they were saved
            return cls.of_checked(json.loads(payload["frame_ids"]), **payload["columns"], **named)
        except InvalidInputError as error:
            raise InvalidInputError(f"{os.fspath(path)!r} is damaged: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InvalidInputError(f"{os.fspath(path)!r} is damaged: {type(error).__name__}: {error}") from error


def _shape_of(column: Tensor | None) -> str:
    return "None" if column is None else str(tuple(column.shape))
