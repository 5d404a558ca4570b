"""Owners by turns, however much one of them asks for."""

from __future__ import annotations

import asyncio

import pytest

from cval_torch.service.server.turns import Turns


@pytest.mark.parametrize("slots", [1, 2])
def test_nobody_waits_for_all_of_anothers(slots: int) -> None:
    async def run() -> tuple[list[str], int]:
        turns = Turns(slots)
        order: list[str] = []
        inside = most = 0

        async def ask(owner: str) -> None:
            nonlocal inside, most
            async with turns.turn(owner):
                inside += 1
                most = max(most, inside)
                order.append(owner)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(ask(owner) for owner in "aaaaaabbc"))
        async with asyncio.timeout(5) if hasattr(asyncio, "timeout") else turns.turn("a"):
            await ask("a")
        return order, most

    order, most = asyncio.run(run())
    assert most == slots
    assert sorted(order) == sorted("aaaaaabbca")
    assert order.index("c") <= slots + 3
    assert order.index("b") <= slots + 2


def test_who_gives_up_waiting_keeps_no_place() -> None:
    async def run() -> None:
        turns = Turns(1)
        held = turns.turn("a")
        await held.__aenter__()
        waiting = [asyncio.create_task(turns.turn(owner).__aenter__()) for owner in "abab"]
        await asyncio.sleep(0)
        waiting[0].cancel()  # while it waits
        await asyncio.sleep(0)
        await held.__aexit__(None, None, None)
        waiting[1].cancel()  # when it was let through already
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        await asyncio.wait_for(waiting[2], 5)

    asyncio.run(run())
