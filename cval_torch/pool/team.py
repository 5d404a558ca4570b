"""`Team`: rank 0 decides, and what it asks for is done in every process, where the data is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from cval_torch.errors import RankError
from cval_torch.pool.gathering import gather_rows
from cval_torch.pool.ranks import Ranks

T = TypeVar("T")

_FEW_BYTES = 2**16


@dataclass(frozen=True)
class _Order:
    """What every process is to do: `work(keeps, *args)`, and how the answers come to rank 0; or why it is over."""

    how: Literal["each", "total", "rows", "over"]
    work: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    failure: str | None = None


class Team:
    """The processes while rank 0 leads them.

    Args:
        ranks: the processes.
        keeps: what this process has, and what is done with it from order to order; the first argument of all work.
    """

    def __init__(self, ranks: Ranks, keeps: Any) -> None:
        self.ranks, self._keeps = ranks, keeps
        self._failed_together = False

    def lead(self, work: Callable[[], T]) -> T | None:
        """Do `work` on rank 0, which may give orders in it. The others obey until it ends. Every process must call it.

        Returns:
            What `work` returned, on rank 0; None on the others.

        Raises:
            Exception: whatever `work` raised, on rank 0, or what an order raised here.
            RankError: it raised in another process, or a process died.
        """
        if self.ranks.rank != 0:
            self._obey()
            return None
        self._failed_together = False
        try:
            result = work()
        except BaseException as error:
            if not self._failed_together:
                with suppress(RankError):  # whoever is gone need not hear of it
                    self._tell(_Order("over", failure=f"{type(error).__name__}: {error}"))
            raise
        self._tell(_Order("over"))
        return result

    def each(self, work: Callable[..., T], *args: Any) -> list[T]:
        """What `work(keeps, *args)` returns in every process, by rank: small, since every process is sent all of it."""
        answers: list[T] = self._give(_Order("each", work, args))
        return answers

    def total(self, work: Callable[..., Tensor], *args: Any) -> Tensor:
        """The sum of the tensors that it returns, of one shape in all processes."""
        total: Tensor = self._give(_Order("total", work, args))
        return total

    def rows(self, work: Callable[..., tuple[Tensor, Tensor]], *args: Any) -> Tensor:
        """(n, ...), the rows that it returns in all processes, put in place.

        `work` returns (r, ...) rows and their (r,) int64 places, which are `range(n)` in all processes together.
        """
        rows: Tensor = self._give(_Order("rows", work, args))
        return rows

    def _give(self, order: _Order) -> Any:
        if self.ranks.rank != 0:
            raise ValueError("only rank 0 gives orders")
        self._tell(order)  # what cannot travel fails here, and the others are told
        try:
            return self._perform(order)
        except BaseException:
            self._failed_together = True  # the others have heard of it, or are gone
            raise

    def _tell(self, order: _Order) -> None:
        self.ranks.tell(order)

    def _obey(self) -> None:
        while True:
            order: _Order = self.ranks.tell(None)
            if order.how == "over":
                if order.failure is not None:
                    raise RankError(f"rank 0 of {self.ranks.size} failed: {order.failure}", rank=0)
                return
            self._perform(order)

    def _perform(self, order: _Order) -> Any:
        work = order.work
        if work is None:
            raise ValueError("an order needs work to do")
        if order.how == "each":
            return self.ranks.exchange(lambda: work(self._keeps, *order.args))
        if order.how == "total":
            return self.ranks.add_up(self.ranks.exchange_local(lambda: work(self._keeps, *order.args)))
        return self._rows(lambda: work(self._keeps, *order.args))

    def _rows(self, work: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
        """The rows of all processes on rank 0. Where all have few, these travel with their places."""
        mine: list[Tensor] = []

        def told() -> tuple[Tensor, Tensor | None]:
            rows, places = work()
            mine.append(rows)
            return places.clone(), rows.clone() if rows.nbytes <= _FEW_BYTES else None  # a view would travel whole

        places, few = zip(*self.ranks.exchange(told), strict=True)
        rows = [each for each in few if each is not None]
        if len(rows) < len(few):
            return gather_rows(mine[0], places, self.ranks, to=0)
        return torch.cat(rows)[torch.cat(places).argsort()]
