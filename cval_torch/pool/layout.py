"""Columns on their way to a `Pool`: batches gathered one by one, alike in what columns they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.growing import GrowingColumn
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Activation, IdSource, Pool

_BYTES_OF_AN_ID = 120  # a short string, and its place in a list and in a set


@dataclass(frozen=True)
class Layout:
    """Which columns there are, and of what kind: what must not change between the batches of one pass.

    Attributes:
        activation: of the probabilities.
        columns: of each column but `offsets` the name, the dtype, and the width; None for a vector.
        ids_from: where the ids come from.
    """

    activation: Activation | None
    columns: tuple[tuple[str, torch.dtype, int | None], ...]
    ids_from: IdSource | None = None

    @classmethod
    def of(cls, pool: Pool) -> Layout:
        """The layout of a pool."""
        columns = (
            (name, column.dtype, None if column.ndim == 1 else column.shape[1])
            for name, column in pool.columns()
            if name != "offsets"
        )
        return cls(pool.activation, tuple(columns), pool.ids_from)

    def check_same(self, other: Layout) -> None:
        """Raise an `InvalidInputError` that names what `other` has and this has not."""
        if other == self:
            return
        names, now = [name for name, *_ in self.columns], [name for name, *_ in other.columns]
        if names != now or self.activation != other.activation:
            raise InvalidInputError(
                f"the columns were {', '.join(names)} ({self.activation}); now they are "
                f"{', '.join(now)} ({other.activation})"
            )
        if self.ids_from != other.ids_from:
            raise InvalidInputError(f"the ids were from {self.ids_from}; now they are from {other.ids_from}")
        for (name, dtype, width), (_, new_dtype, new_width) in zip(self.columns, other.columns, strict=True):
            if (dtype, width) != (new_dtype, new_width):
                raise InvalidInputError(
                    f"`{name}` had {width} numbers a row, of {dtype}; now it has {new_width}, of {new_dtype}"
                )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        columns = [[name, str(dtype).removeprefix("torch."), width] for name, dtype, width in self.columns]
        return {"activation": self.activation, "columns": columns, "ids_from": self.ids_from}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """From what `to_json` gave."""
        columns = tuple((name, getattr(torch, dtype), width) for name, dtype, width in value["columns"])
        return cls(value["activation"], columns, value.get("ids_from"))


class Gathered:
    """The columns of many batches, in memory once, also while they are joined.

    Attributes:
        layout: what every batch has; None before the first.
        frame_ids: of all frames so far.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        self.layout: Layout | None = None
        self.frame_ids: list[str] = []
        self._counts = GrowingColumn()
        self._columns: dict[str, GrowingColumn] = {}
        if layout is not None:
            self._begin(layout)

    def __len__(self) -> int:
        return len(self.frame_ids)

    def add(self, pool: Pool) -> None:
        """Take a batch in.

        Raises:
            InvalidInputError: it has other columns, or other widths, than the batches before it.
        """
        layout = Layout.of(pool)
        if self.layout is not None:
            self.layout.check_same(layout)
        self.add_rows(layout, pool.frame_ids, pool.counts, dict(pool.columns()))

    def add_rows(self, layout: Layout, frame_ids: Sequence[str], counts: Tensor, columns: Mapping[str, Tensor]) -> None:
        """Take in rows that were checked before."""
        if self.layout is None:
            self._begin(layout)
        for name, column in self._columns.items():
            column.append(columns[name])
        self.frame_ids += frame_ids
        self._counts.append(counts)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take, with an estimate for the ids."""
        return _BYTES_OF_AN_ID * len(self) + sum(column.nbytes for column in (self._counts, *self._columns.values()))

    def _begin(self, layout: Layout) -> None:
        self.layout = layout
        self._counts.append(torch.empty(0, dtype=torch.int64))
        for name, dtype, width in layout.columns:
            self._columns[name] = GrowingColumn()
            self._columns[name].append(torch.empty(0 if width is None else (0, width), dtype=dtype))

    def join(self) -> tuple[Tensor, dict[str, Tensor]]:
        """(F,) int64 boxes of each frame, and the columns; what was gathered is gone then."""
        return self._counts.join(), {name: self._columns.pop(name).join() for name in list(self._columns)}

    def pool(self) -> Pool:
        """All of it as one pool, on the CPU; what was gathered is gone then.

        Raises:
            InvalidInputError: nothing was gathered; an id twice.
        """
        if self.layout is None or not self.frame_ids:
            raise InvalidInputError("`loader` must yield at least one frame; got none")
        counts, columns = self.join()
        joined: dict[str, Any] = dict(columns)
        layout = self.layout
        return Pool(
            self.frame_ids, offsets_of(counts), activation=layout.activation, ids_from=layout.ids_from, **joined
        )
