"""`SharedRows`: the long vectors of F frames, of which several processes have some each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from cval_torch.pool.team import Team
from cval_torch.strategies.descriptor import Descriptors, LongRows, no_shares
from cval_torch.strategies.parts import Part, Workers
from cval_torch.strategies.points import Points, Taken

W = TypeVar("W")


@dataclass(eq=False)
class Keeps:
    """What one process has of the frames of all.

    Attributes:
        places: (f,) int64, which of the F frames they are.
        columns: by name, (f, ...), their long vectors.
        vectors: by name of their looks, the frames as `Descriptors`; without those of which there are no frames here.
        worker: what `SharedRows.workers` made here last.
        worker_rows: which of the points that it was made for its own are.
    """

    places: Tensor
    columns: Mapping[str, Tensor]
    vectors: Mapping[str, Descriptors]
    worker: Any = None
    worker_rows: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sorted, self.order = self.places.sort()
        self.worker_rows = self.places[:0]

    def find(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of (n,) rows of the whole those that are here: where they are here, and their places among `rows`."""
        if not len(self.sorted):
            return rows[:0], rows[:0]
        near = torch.searchsorted(self.sorted, rows).clamp_max_(len(self.sorted) - 1)
        found = (self.sorted[near] == rows).nonzero().squeeze(1)
        return self.order[near[found]], found


class SharedRows:
    """(F, W) rows that lie in several processes; what is asked for comes to rank 0, which alone may ask.

    Args:
        team: the processes, which keep `Keeps`, while rank 0 leads.
        name: of the column.
        like: (0, W), its width and dtype.
        length: F.
        width: W, if it is to be more than that of `like`: rows are filled up with zeros.
    """

    def __init__(self, team: Team, name: str, like: Tensor, length: int, *, width: int | None = None) -> None:
        self._team, self.name, self.like, self._length = team, name, like, length
        self._width = like.shape[1] if width is None else width

    def widened(self, width: int) -> SharedRows:
        """The same with zeros to the right, to another width."""
        return SharedRows(self._team, self.name, self.like, self._length, width=width)

    def __len__(self) -> int:
        return self._length

    @property
    def shape(self) -> tuple[int, int]:
        """(F, W)."""
        return self._length, self._width

    @property
    def device(self) -> torch.device:
        """Where what is asked for comes."""
        return self.like.device

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """(r, W), the rows at (r,) int64 `rows` or of a slice."""
        if isinstance(rows, slice):
            rows = torch.arange(self._length)[rows]
        if not len(rows):
            return self.like.new_zeros(0, self._width)
        return _widened(self._team.rows(_rows_here, self.name, rows, self.like), self._width)

    def workers(
        self, frames: Descriptors, new: Callable[..., W], *args: Any, beside: Sequence[LongRows] = ()
    ) -> Workers[W]:
        """Workers for frames that have these looks; see `parts.workers_of`.

        Each is made by `new(part, *others, *args)`, where `others` are its rows, as points, of what is `beside`.
        """
        rows = torch.arange(self._length) if frames.rows is None else frames.rows
        bare = replace(
            frames,
            looks=self.like,
            is_null=frames.is_null[:0],
            shares=None if frames.shares is None else no_shares(0, self.like),
            rows=rows[:0],
            elsewhere=None,
        )
        others = [(each.name, each.like) for each in beside]
        self._team.each(_make_worker, rows, (self.name, bare, self._width), others, (new, args))
        return _Apart(self._team)

    def points(self, rows: Tensor | None) -> Points:
        """The rows at (n,) int64 `rows`, or all, as points: workers for them are made where they are."""
        return _SharedPoints(self, torch.arange(self._length) if rows is None else rows)

    def workers_at(self, rows: Tensor, new: Callable[..., W], *args: Any) -> Workers[W]:
        """Workers for the rows at (n,) int64 `rows` alone, whatever they belong to."""
        self._team.each(_make_plain_worker, self.name, self.like, rows, (new, args))
        return _Apart(self._team)


class _SharedPoints(Taken):
    """Some of the rows, as points."""

    def __init__(self, shared: SharedRows, rows: Tensor) -> None:
        super().__init__(shared, rows)
        self._shared = shared

    def workers(self, new: Callable[..., W], *args: Any) -> Workers[W]:
        """See `parts.workers_of`."""
        return self._shared.workers_at(self.rows, new, *args)


class _Apart(Workers[W]):
    """The workers in all processes that a `Team` leads."""

    def __init__(self, team: Team) -> None:
        self._team = team

    @property
    def count(self) -> int:
        return self._team.ranks.size

    def each(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        return self._team.each(_ask, work, args, kwargs)

    def total(self, work: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        return self._team.total(_ask, work, args, kwargs)

    def column(self, work: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        return self._team.rows(_ask_column, work, args, kwargs)


def _rows_here(keeps: Keeps, name: str, rows: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    here, places = keeps.find(rows)
    return (keeps.columns[name][here] if len(here) else like[:0].clone()), places


def _make_worker(
    keeps: Keeps,
    rows: Tensor,
    frames: tuple[str, Descriptors, int],
    beside: Sequence[tuple[str, Tensor]],
    how: tuple[Callable[..., W], Sequence[Any]],
) -> None:
    (name, bare, width), (new, args), (here, places) = frames, how, keeps.find(rows)
    own = keeps.vectors.get(name, bare)
    shares = own.shares
    if bare.shares is not None and shares is None:  # frames beside which there are now some with boxes
        shares = no_shares(len(own.is_null), own.looks)
    mine = replace(bare, looks=_widened(own.looks, width), is_null=own.is_null, shares=shares, rows=here)
    others = [Taken(keeps.columns.get(column, like), here) for column, like in beside]
    keeps.worker, keeps.worker_rows = new(Part(mine, places, len(rows)), *others, *args), places


def _make_plain_worker(
    keeps: Keeps, name: str, like: Tensor, rows: Tensor, how: tuple[Callable[..., W], Sequence[Any]]
) -> None:
    (new, args), (here, places) = how, keeps.find(rows)
    part = Part(Taken(keeps.columns.get(name, like), here), places, len(rows))
    keeps.worker, keeps.worker_rows = new(part, *args), places


def _ask(keeps: Keeps, work: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return work(keeps.worker, *args, **kwargs)


def _ask_column(
    keeps: Keeps, work: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    return work(keeps.worker, *args, **kwargs), keeps.worker_rows


def _widened(rows: Tensor, width: int) -> Tensor:
    return rows if rows.shape[1] == width else torch.nn.functional.pad(rows, (0, width - rows.shape[1]))
