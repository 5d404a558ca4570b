"""`Pool`: the predictions for many frames, as frozen columns, ragged by offsets."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import uuid
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
)
from cval_torch.pool.offsets import offsets_of, places_of
from cval_torch.pool.skipped import SkippedFrame

Activation = Literal["softmax", "sigmoid"]

IdSource = Literal["frame_id", "labels", "target", "dataset", "row"]
"""Where ids come from: a user's function, a `LabelPool`, targets, the dataset itself, or merely the row in it."""

FILE_FORMAT = "cval_torch.pool/1"


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
        box_embeddings: (B, E) float of any precision.
        frame_embeddings: (F, D) float of any precision, of the whole frame.
        ids_from: where the ids come from; None if nobody says. A row is an id only within the dataset that has it.
        skipped: the frames that the pass left out (`on_error="skip"`). They are no rows of this pool. `take` keeps the
            whole record.

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
        for name in (*FRAME_COLUMNS, *BOX_COLUMNS):
            column = getattr(self, name)
            if column is not None:
                rows = len(self) if name in FRAME_COLUMNS else self.num_boxes
                check_column(name, column, rows=rows, device=self.offsets.device)
        if (self.probabilities is None) != (self.activation is None):
            raise InvalidInputError(
                "`activation` must be given with `probabilities`, and only then; "
                f"got activation={self.activation!r} and probabilities {_shape_of(self.probabilities)}"
            )
        if self.activation not in (None, "softmax", "sigmoid"):
            raise InvalidInputError(f"`activation` must be 'softmax' or 'sigmoid'; got {self.activation!r}")

    def _check_values(self) -> None:
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
        frame_row = row if name in FRAME_COLUMNS else int(self.frame_rows[row])
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
        made = copy.copy(self)  # rows of what is right are right: nothing is checked again
        object.__setattr__(made, "frame_ids", tuple([self.frame_ids[row] for row in picked.tolist()]))
        object.__setattr__(made, "offsets", offsets)
        for name, column in self.columns():
            if name != "offsets":
                object.__setattr__(made, name, column[box_rows if name in BOX_COLUMNS else picked])
        return made

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
        return dataclasses.replace(self, **columns)

    def only(self, names: Collection[str]) -> Pool:
        """The same frames with no more columns than these, and `indices`. Nothing is copied, or checked again."""
        made = copy.copy(self)
        for name in (*BOX_COLUMNS, "frame_embeddings"):
            if name not in names:
                object.__setattr__(made, name, None)
        if made.probabilities is None:
            object.__setattr__(made, "activation", None)
        return made

    def part(self, begin: int, end: int) -> Pool:
        """The frames from `begin` to `end`. Nothing is copied, or checked again: mapped columns are not read.

        >>> Pool(["a", "b", "c"], torch.tensor([0, 2, 2, 3]), scores=torch.tensor([0.9, 0.4, 0.1])).part(1, 3).scores
        tensor([0.1000])
        """
        made = copy.copy(self)
        offsets = self.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        object.__setattr__(made, "frame_ids", self.frame_ids[begin:end])
        object.__setattr__(made, "offsets", offsets - first)
        for name, column in self.columns():
            if name != "offsets":
                rows = column[begin:end] if name in FRAME_COLUMNS else column[first:last]
                object.__setattr__(made, name, rows)
        return made

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
        made = copy.copy(self)
        object.__setattr__(made, "skipped", tuple(skipped))
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool to one file, whole or not at all: an older file stays intact if writing fails.

        Raises:
            OSError: the disk is full or read-only.
        """
        target = Path(path)
        payload: dict[str, Any] = {
            "format": FILE_FORMAT,
            "frame_ids": json.dumps(list(self.frame_ids)),
            "activation": self.activation,
            "ids_from": self.ids_from,
            "skipped": json.dumps([frame.to_json() for frame in self.skipped]),
            "columns": {name: column.detach().cpu().contiguous() for name, column in self.columns()},
        }
        payload["checksums"] = _checksums(payload)
        temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                torch.save(payload, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except RuntimeError as error:  # how torch.save reports that the file could not take the bytes
            raise OSError(f"{os.fspath(path)!r} could not be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)

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
        try:
            payload = torch.load(Path(path), map_location="cpu", weights_only=True, mmap=mmap)
        except OSError:
            raise
        except Exception as error:
            raise InvalidInputError(f"{os.fspath(path)!r} is not a saved Pool: {error}") from error
        if not isinstance(payload, dict) or payload.get("format") != FILE_FORMAT:
            found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
            raise InvalidInputError(f"{os.fspath(path)!r} is not a saved Pool of format {FILE_FORMAT!r}; got {found!r}")
        named: dict[str, Any] = {name: payload.get(name) for name in ("activation", "ids_from")}
        try:
            if verify:
                _check_bytes(payload)
            named["skipped"] = [SkippedFrame.from_json(values) for values in json.loads(payload["skipped"])]
            # the checksums say that these are the numbers that were checked before they were saved
            return cls.of_checked(json.loads(payload["frame_ids"]), **payload["columns"], **named)
        except InvalidInputError as error:
            raise InvalidInputError(f"{os.fspath(path)!r} is damaged: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InvalidInputError(f"{os.fspath(path)!r} is damaged: {type(error).__name__}: {error}") from error


def _check_bytes(payload: Mapping[str, Any]) -> None:
    if payload["checksums"] != _checksums(payload):
        raise InvalidInputError("its numbers or ids are not those that were written")


def _checksums(payload: Mapping[str, Any]) -> dict[str, int]:
    """The CRC-32 of what is no column, and of each column's bytes."""
    columns: Mapping[str, Tensor] = payload["columns"]
    named = repr([payload[name] for name in ("frame_ids", "activation", "ids_from", "skipped")])
    parts: dict[str, Any] = {name: column.reshape(-1).view(torch.uint8).numpy() for name, column in columns.items()}
    return {name: zlib.crc32(part) for name, part in [("", named.encode()), *parts.items()]}


def _shape_of(column: Tensor | None) -> str:
    return "None" if column is None else str(tuple(column.shape))
