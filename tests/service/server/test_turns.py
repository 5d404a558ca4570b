"""Owners by turns, however much one of them asks for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from own_server import KEY, serving_here
from running_processes import wait_until
from server_calls import OTHER, SAMPLING, Api, frames, sampling, vector

from cval_torch.service.server.settings import Limits
from cval_torch.service.server.store import Store
from cval_torch.service.server.turns import Lane, Turns
from cval_torch.service.server.worker import Worker


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


def test_one_owner_does_not_hold_all_places() -> None:
    async def run() -> list[str]:
        turns = Turns(3, each=2)
        order: list[str] = []
        over = asyncio.Event()

        async def ask(owner: str) -> None:
            async with turns.turn(owner):
                order.append(owner)
                await over.wait()

        asking = [asyncio.create_task(ask(owner)) for owner in "aaaab"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["a", "a", "b"]
        over.set()
        await asyncio.wait_for(asyncio.gather(*asking), 5)
        return order

    assert asyncio.run(run()) == ["a", "a", "b", "a", "a"]


def test_a_lane_does_its_work_in_threads_of_its_own() -> None:
    async def run() -> tuple[str, int]:
        lane = Lane("test", 1)
        try:
            with pytest.raises(ZeroDivisionError):
                await lane.run("a", lambda: 1 // 0)
            return await lane.run("a", lambda: threading.current_thread().name), await lane.run("b", max, 1, 2)
        finally:
            lane.close()

    assert asyncio.run(run()) == ("cval-torch-test_0", 2)


class Flood:
    """All that one owner can do to keep others waiting, through sockets."""

    def __init__(self, url: str, threads: ThreadPoolExecutor) -> None:
        self.api = Api(url)
        self._url, self._threads = url, threads
        self._place = url.removeprefix("http://").removesuffix("/api").partition(":")

    def ask(self, times: int, *request: Any, **options: Any) -> list[Any]:
        """The same requests at once, each on a connection of its own."""
        return [self._threads.submit(Api(self._url), *request, **options) for _ in range(times)]

    def compare(self, times: int) -> list[Any]:
        """Small requests that take long."""
        dataset_id, numbers = self.api.dataset(), random.Random(0)
        names = [f"f{row}" for row in range(300)]
        vectors = [vector(*(numbers.random() for _ in range(16)), frame_id=name) for name in names]
        self.api("POST", f"/dataset/{dataset_id}/training/embeddings", vectors)
        boxes = [{"frame_id": name, "predictions": [{"score": 0.5, "embedding_id": "0"}]} for name in names]
        request = sampling(selection_strategy="hierarchical", dataset_id=dataset_id, frames=boxes)
        return self.ask(times, "POST", SAMPLING, request)

    def drip(self, connection: socket.socket, line: str) -> None:
        """A body that never ends."""
        connection.connect((self._place[0], int(self._place[2])))
        head = f"POST /api{SAMPLING} HTTP/1.1\r\nHost: x\r\nAuthorization: user_api_key:{KEY}\r\n{line}\r\n\r\n"
        connection.sendall(head.encode() + b"1\r\n{")


def test_whatever_one_owner_asks_for_another_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletions that do not end, a queue, bodies that drip, small requests that take long, and regular expressions."""
    over, real = threading.Event(), Store.delete_dataset

    def delete(store: Store, dataset_id: str) -> None:
        over.wait()
        real(store, dataset_id)

    monkeypatch.setattr(Store, "delete_dataset", delete)
    monkeypatch.setattr("cval_torch.service.server.patterns.SECONDS", 0.3)
    keys = [(None, KEY), ("second", OTHER)]
    with (
        serving_here(tmp_path, Limits(answer_at_once=1000), keys=keys) as url,
        ThreadPoolExecutor(64) as threads,
        contextlib.ExitStack() as held,
    ):
        held.callback(over.set)
        flood, other = Flood(url, threads), Api(url, OTHER)
        mine = f"/dataset/{other.dataset()}"
        large = sampling(frames=frames(*[0.6] * 1001))
        queued = [flood.api("POST", SAMPLING, large).json()["task_id"] for _ in range(8)]
        doomed = [flood.api.dataset() for _ in range(4)]
        flood.api("POST", "/dataset", {"dataset_name": "a" * 31 + "!"})
        compared = flood.compare(12)
        deleting = [each for dataset_id in doomed for each in flood.ask(1, "DELETE", f"/dataset/{dataset_id}")]
        matched = flood.ask(6, "GET", "/datasets/all", params={"dataset_name": "(a+)+$"})
        for line in ["Content-Length: 9999"] * 20 + ["Transfer-Encoding: chunked"] * 20:
            flood.drip(held.enter_context(socket.socket()), line)
        answers = [
            other("POST", SAMPLING, sampling()),
            other("POST", f"{mine}/test/embeddings", [vector(1.0)]),
        ]
        waiting = [each for each in compared if not each.done()]
        answers += [
            other("GET", f"{mine}/test/embeddings"),
            other("PUT", mine, {"dataset_name": "mine"}),
            other("GET", "/datasets/all", params={"dataset_name": "^mine$"}),
        ]
        assert [answer.status_code for answer in answers] == [200] * 5
        assert answers[4].json()[0]["dataset_name"] == "mine"
        assert len(waiting) > 2, "it came last, and does not wait for all"
        assert sum(each.done() for each in matched) < 5, "it came last, and does not wait for all"
        assert not any(each.done() for each in deleting)
        task = other("POST", SAMPLING, large).json()["task_id"]
        ended = other.result(task)["time_end"]
        over.set()
        ends = [flood.api.result(each)["time_end"] for each in queued]
        assert ended < max(ends), "it came last, and does not wait for all"
        assert {each.result().status_code for each in deleting} == {200}
        for api in (flood.api, other):
            api.session.close()


def test_large_bodies_are_read_by_turns_between_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    all_there = threading.Event()

    def call(worker: Worker, method: str, owner: str, body: Path, *, seconds: float) -> tuple[bytes, bool]:
        order.append(owner)
        all_there.wait()
        return b"{}", False

    def are_there(bodies: int) -> bool:
        sizes = []
        for path in (tmp_path / "incoming").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the server looks whether it can write there
                sizes.append(path.stat().st_size)
        return sizes.count(2 << 20) == bodies

    monkeypatch.setattr(Worker, "call", call)
    keys = [("first", KEY), ("second", OTHER)]
    with serving_here(tmp_path, keys=keys) as url, ThreadPoolExecutor(5) as threads:
        asking = []
        for number, key in enumerate([KEY, KEY, KEY, KEY, OTHER], 1):
            asking.append(threads.submit(Api(url, key), "POST", SAMPLING, data=b" " * (2 << 20)))
            wait_until(partial(are_there, number))
        all_there.set()
        assert {each.result().status_code for each in asking} == {200}
    assert order == ["first", "first", "second", "first", "first"]
