"""Who is let through when not all can be: owners by turns, however much one of them asks for."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

Value = TypeVar("Value")


class Turns:
    """Lets so many through at a time. Those who wait are let through by turns between owners.

    Args:
        slots: how many.
        each: how many of one owner; None: all of them.
    """

    def __init__(self, slots: int, *, each: int | None = None) -> None:
        self._free, self._each = slots, each or slots
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait until it is the owner's turn, and keep the place."""
        await self._wait(owner)
        try:
            yield
        finally:
            self._give_back(owner)

    async def _wait(self, owner: str) -> None:
        if self._may_go(owner):
            self._let_go(owner)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was let through, and is not there any more
                self._give_back(owner)
            raise

    def _may_go(self, owner: str) -> bool:
        return self._free > 0 and self._held[owner] < self._each

    def _let_go(self, owner: str) -> None:
        self._free -= 1
        self._held[owner] += 1

    def _give_back(self, owner: str) -> None:
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        for waiting in list(self._waiting):
            places = self._waiting[waiting]
            while places and self._may_go(waiting):
                place = places.popleft()
                if not place.done():
                    self._let_go(waiting)
                    place.set_result(None)
                    if places:
                        self._waiting.move_to_end(waiting)  # behind all others
                    break
            if not places:
                del self._waiting[waiting]


class Lane:
    """Threads for one kind of work, which owners have by turns.

    Args:
        name: of the threads.
        slots: how many.
        each: how many of one owner; None: all of them.
    """

    def __init__(self, name: str, slots: int, *, each: int | None = None) -> None:
        self._turns = Turns(slots, each=each)
        self._threads = ThreadPoolExecutor(slots, f"cval-torch-{name}")

    async def run(self, owner: str, act: Callable[..., Value], *arguments: object) -> Value:
        """Do it when it is the owner's turn."""
        async with self._turns.turn(owner):
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(act, *arguments))

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)
