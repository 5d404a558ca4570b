"""Several processes played by threads: `Ranks` whose messages go through memory, each with work of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import RankError
from cval_torch.pool.ranks import Ranks

SECONDS = 60  # after which a thread that waits for another gives up


class _Meeting:
    """A place where all threads meet, each with something to tell."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size)
        self.told: list[Any] = [None] * size
        self.sent: list[tuple[int, int | None, int]] = []

    def exchange(self, rank: int, told: Any) -> list[Any]:
        self.told[rank] = told
        self.barrier.wait(SECONDS)
        answers = list(self.told)
        self.barrier.wait(SECONDS)
        return answers


class ThreadRanks(Ranks):
    """One of several threads."""

    def __init__(self, rank: int, meeting: _Meeting) -> None:
        super().__init__(distributed=False)
        self.rank, self.size, self._meeting = rank, len(meeting.told), meeting

    def exchange(self, work: Callable[[], Any]) -> list[Any]:
        try:
            told, failure = work(), None
        except Exception as error:
            told, failure = None, error
        answers = self._meeting.exchange(self.rank, (told, failure))
        if failure is not None:
            raise failure
        for rank, (_, failed) in enumerate(answers):
            if failed is not None:
                raise RankError(f"rank {rank} of {self.size} failed: {type(failed).__name__}: {failed}", rank=rank)
        return [told for told, _ in answers]

    def from_rank_zero(self, work: Callable[[], Any]) -> Any:
        return self.exchange(lambda: work() if self.rank == 0 else None)[0]

    def send(self, tensor: Tensor, *, source: int, to: int | None = None) -> Tensor:
        if self.rank == source:
            self._meeting.sent.append((source, to, tensor.numel()))
        theirs = self._meeting.exchange(self.rank, tensor.clone())[source]
        if to in (None, self.rank) and self.rank != source:
            tensor.copy_(theirs)
        return tensor

    def tell(self, value: Any) -> Any:
        return self._meeting.exchange(self.rank, value)[0]

    def add_up(self, numbers: Tensor) -> Tensor:
        theirs = self._meeting.exchange(self.rank, numbers.clone())
        return torch.stack(theirs).sum(0)


def as_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What `work` returns, or raises, as each of so many ranks."""
    meeting, outcomes = _Meeting(size), [None] * size

    def run(rank: int) -> None:
        try:
            outcomes[rank] = work(ThreadRanks(rank, meeting))
        except Exception as error:
            outcomes[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def sent_by(size: int, work: Callable[[Ranks], Any]) -> list[tuple[int, int | None, int]]:
    """The tensors that travelled: from whom, to whom (None: to all), and how many numbers."""
    sent: list[tuple[int, int | None, int]] = []

    def noting(ranks: Ranks) -> None:
        work(ranks)
        sent.extend(ranks._meeting.sent if ranks.rank == 0 else [])  # type: ignore[attr-defined]

    as_ranks(size, noting)
    return sent
