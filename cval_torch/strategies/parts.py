"""Work on points where they lie: in this process, or in several that have some of them each.

A strategy that looks at all points again and again has a worker in every process that holds some. The strategy itself
runs once, and has its workers do what takes long. What they answer must not depend on which points they were given:
then a choice is the same in one process and in many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from cval_torch.strategies.points import Joined, Points

W = TypeVar("W")
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Part:
    """Some of N points, those of one process.

    Attributes:
        points: (n, D); n may be 0.
        rows: (n,) int64, which of the N they are, rising.
        total: N.
    """

    points: Points
    rows: Tensor
    total: int


class Workers(ABC, Generic[W]):
    """One worker for each part. Functions and arguments go to other processes, so they must be picklable."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many there are."""

    @abstractmethod
    def each(self, work: Callable[Concatenate[W, P], T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """What every worker answers, part by part; something small, since every process is sent all answers."""

    @abstractmethod
    def total(self, work: Callable[Concatenate[W, P], Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """The sum of what the workers answer: integers, whose sum is the same in any order."""

    @abstractmethod
    def column(self, work: Callable[Concatenate[W, P], Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """(N, ...), the rows that the workers answer, one for each of their points, at the places of these points."""


class Here(Workers[W]):
    """The one worker for points that are all in this process."""

    def __init__(self, worker: W) -> None:
        self.worker = worker

    @property
    def count(self) -> int:
        """See `Workers`."""
        return 1

    def each(self, work: Callable[Concatenate[W, P], T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """See `Workers`."""
        return [work(self.worker, *args, **kwargs)]

    def total(self, work: Callable[Concatenate[W, P], Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """See `Workers`."""
        return work(self.worker, *args, **kwargs)

    def column(self, work: Callable[Concatenate[W, P], Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """See `Workers`."""
        return work(self.worker, *args, **kwargs)


@runtime_checkable
class LieApart(Protocol):
    """Points that may lie in several processes."""

    def workers(self, new: Callable[..., W], *args: Any) -> Workers[W]:
        """Workers, each made by `new(part, *args)` where its part is."""
        ...


def workers_of(points: Points, new: Callable[..., W], *args: Any) -> Workers[W]:
    """Workers for points, each made by `new(part, *args)` where its part is. They replace those made before.

    >>> ask = workers_of(torch.tensor([[1, 2], [3, 4]]), lambda part: part)
    >>> ask.total(lambda part: part.points[:].sum(0))
    tensor([4, 6])
    """
    if isinstance(points, Joined):
        return _Both(points, new, *args)
    if isinstance(points, LieApart):
        return points.workers(new, *args)
    return Here(new(Part(points, torch.arange(len(points), device=points.device), len(points)), *args))


class _Both(Workers[W]):
    """The workers of points and, in this process, one for those that stand after them."""

    def __init__(self, joined: Joined, new: Callable[..., W], *args: Any) -> None:
        known, total = len(joined.points), len(joined)
        self._ours = workers_of(joined.points, _Within(new, total), *args)
        rows = torch.arange(known, total, device=joined.device)
        self._others = Here(new(Part(joined.others.to(joined.device), rows, total), *args))

    @property
    def count(self) -> int:
        return self._ours.count + 1

    def each(self, work: Callable[Concatenate[W, P], T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return self._ours.each(work, *args, **kwargs) + self._others.each(work, *args, **kwargs)

    def total(self, work: Callable[Concatenate[W, P], Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return self._ours.total(work, *args, **kwargs) + self._others.total(work, *args, **kwargs)

    def column(self, work: Callable[Concatenate[W, P], Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return torch.cat([self._ours.column(work, *args, **kwargs), self._others.column(work, *args, **kwargs)])


@dataclass(frozen=True)
class _Within(Generic[W]):
    """Makes workers for points after which others stand."""

    new: Callable[..., W]
    total: int

    def __call__(self, part: Part, *args: Any) -> W:
        return self.new(Part(part.points, part.rows, self.total), *args)
