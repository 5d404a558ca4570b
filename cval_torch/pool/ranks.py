"""`Ranks`: the processes that work together under `torch.distributed`, and how they come to agree.

Everything collective goes through `exchange`: each process does its own work, tells the others what came of it, and
an error in one is an error in all. Objects are pickled, so the processes trust each other, as those of a training do.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from cval_torch.errors import InvalidInputError, RankError

T = TypeVar("T")

_CHUNK = 2**26  # bytes of a tensor that travel at a time
_HEAD = 2**14  # bytes of a value that travel with its length


class Ranks:
    """The processes of `torch.distributed`'s default group, or this process alone.

    Args:
        distributed: None: all processes, if `torch.distributed` is initialised. True: the same, and an error where it
            is not. False: this process alone.
        device: where this process computes; what NCCL sends has to be there. None: the current CUDA device.

    Attributes:
        rank: of this process, from 0.
        size: how many processes there are.

    Raises:
        InvalidInputError: `distributed=True` without an initialised group.

    >>> Ranks().size, Ranks().exchange(lambda: "mine")
    (1, ['mine'])
    """

    def __init__(self, distributed: bool | None = None, *, device: torch.device | str | None = None) -> None:
        ready = dist.is_available() and dist.is_initialized()
        if distributed and not ready:
            raise InvalidInputError(
                "`distributed=True` needs torch.distributed.init_process_group(), which torchrun's scripts call first"
            )
        together = ready and distributed is not False
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1
        self._device = torch.device("cpu")
        if together and dist.get_backend() == dist.Backend.NCCL:
            wanted = torch.device("cuda" if device is None else device)
            self._device = wanted if wanted.type == "cuda" else torch.device("cuda")

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.size}"

    def exchange(self, work: Callable[[], T]) -> list[T]:
        """Do `work` here, and learn what it returned in every process, by rank. Every process must call this.

        Args:
            work: its value must be picklable, and small: every process gets all of them. It must not itself wait for
                the other processes.

        Raises:
            Exception: whatever `work` raised here.
            RankError: it raised in another process, or a process died. One that neither answers nor ends is given up
                after the timeout of the process group (`init_process_group(timeout=...)`).
        """
        if self.size == 1:
            return [work()]
        failure, content = None, b""
        try:
            content = pickle.dumps(work())
        except BaseException as error:  # also Ctrl-C: the others must hear of it before it goes on
            failure = error
        note = None if failure is None else f"{type(failure).__name__}: {failure}"
        try:
            answers = self._all_gather((note, content))
        except RankError:
            if failure is None:
                raise
        if failure is not None:
            raise failure
        for rank, (failed, _) in enumerate(answers):
            if failed is not None:
                raise RankError(f"rank {rank} of {self.size} failed: {failed}", rank=rank)
        return [pickle.loads(content) for _, content in answers]  # noqa: S301 - from our own processes

    def exchange_local(self, work: Callable[[], T]) -> T:
        """Do `work` here, and go on once it succeeded in every process; its value stays here. Raises as `exchange`."""
        made: list[T] = []
        self.exchange(lambda: made.append(work()))
        return made[0]

    def from_rank_zero(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, in every process. Every process must call this; `work` runs on rank 0 alone.

        Args:
            work: its value must be picklable. It must not itself wait for the other processes, which give rank 0 up
                if it takes longer than the timeout of the process group (`init_process_group(timeout=...)`).

        Raises:
            Exception: whatever `work` raised, on rank 0.
            RankError: on the other ranks, with what it raised.
        """
        if self.size == 1:
            return work()
        made: list[Any] = [None]

        def on_rank_zero() -> None:
            if self.rank == 0:
                made[0] = work()
                pickle.dumps(made[0])  # what cannot travel must fail here, where the others hear of it

        self.exchange(on_rank_zero)
        return cast(T, self.tell(made[0]))

    def tell(self, value: Any) -> Any:
        """What rank 0 has, in every process. Every process must call this; what cannot be pickled fails before that."""
        if self.size == 1:
            return value
        content = pickle.dumps(value) if self.rank == 0 else b""
        numbers = self._copy(_head(content), source=0)
        length = _length(numbers)
        if length > _HEAD:
            rest = _bytes(content[_HEAD:]) if self.rank == 0 else torch.empty(length - _HEAD, dtype=torch.uint8)
            numbers = torch.cat([numbers, self._copy(rest, source=0)])
        return value if self.rank == 0 else pickle.loads(_content(numbers, length))  # noqa: S301 - from our own process

    def send(self, tensor: Tensor, *, source: int, to: int | None = None) -> Tensor:
        """Copy `tensor` from the process `source` over `tensor` in process `to`, or in all; returns it there.

        Args:
            tensor: contiguous, on the CPU, of one shape and dtype in all processes that take part.
            source: the rank that has the numbers.
            to: the rank that gets them; None: every one.
        """
        if not tensor.numel() or self.size == 1 or source == to or (to is not None and self.rank not in (source, to)):
            return tensor
        return self._copy(tensor, source=source, to=to)

    def _copy(self, tensor: Tensor, *, source: int, to: int | None = None) -> Tensor:
        numbers = tensor.view(-1).view(torch.uint8)  # bytes: no backend knows every dtype
        with self._at_device(), _answering():
            for chunk in torch.split(numbers, _CHUNK):
                there = chunk.to(self._device)
                if to is None:
                    dist.broadcast(there, src=source)
                elif self.rank == source:
                    dist.send(there, dst=to)
                else:
                    dist.recv(there, src=source)
                if self.rank != source and there is not chunk:
                    chunk.copy_(there)
        return tensor

    def add_up(self, numbers: Tensor) -> Tensor:
        """The sum over all processes of (...) numbers of one shape, on rank 0. Every process must call this."""
        if self.size == 1:
            return numbers
        total = numbers.cpu().contiguous().clone()
        with self._at_device(), _answering():
            for chunk in torch.split(total.view(-1), _CHUNK // total.element_size()):
                there = chunk.to(self._device)
                dist.reduce(there, dst=0)
                if there is not chunk:
                    chunk.copy_(there)
        return total.to(numbers.device)

    def _all_gather(self, value: Any) -> list[Any]:
        """One message where all values are small, which most are, and two else: each costs the time that it takes."""
        content = pickle.dumps(value)
        with self._at_device(), _answering():
            parts = self._gathered(_head(content))
            lengths = [_length(part) for part in parts]
            longest = max(lengths)
            if longest > _HEAD:
                rest = torch.zeros(longest - _HEAD, dtype=torch.uint8)
                mine = _bytes(content[_HEAD:])
                rest[: len(mine)] = mine
                parts = [torch.cat(both) for both in zip(parts, self._gathered(rest), strict=True)]
        contents = [_content(part, length) for part, length in zip(parts, lengths, strict=True)]
        return [pickle.loads(content) for content in contents]  # noqa: S301 - from our own processes

    def _gathered(self, numbers: Tensor) -> list[Tensor]:
        mine = numbers.to(self._device)
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine)
        return [part.cpu() for part in parts]

    def _at_device(self) -> Any:
        """What NCCL sends is put on the current CUDA device."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _head(content: bytes) -> Tensor:
    """The length of a content, and as much of it as there is room for."""
    head = torch.zeros(8 + _HEAD, dtype=torch.uint8)
    head[:8] = torch.tensor([len(content)], dtype=torch.int64).view(torch.uint8)
    first = _bytes(content[:_HEAD])
    head[8 : 8 + len(first)] = first
    return head


def _length(head: Tensor) -> int:
    return int(head[:8].clone().view(torch.int64))


def _content(numbers: Tensor, length: int) -> bytes:
    return numbers[8 : 8 + length].numpy().tobytes()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankError(
            "the other processes did not answer: one of them died, or did not call the same function within the "
            f"timeout of the process group ({type(error).__name__}: {error})",
            rank=None,
        ) from error


def processes() -> int:
    """How many processes work together; 1 outside torch.distributed."""
    return Ranks().size


def is_rank_zero() -> bool:
    """Whether this is the process that decides; True outside torch.distributed."""
    return Ranks().rank == 0


def from_rank_zero(work: Callable[[], T]) -> T:
    """`Ranks().from_rank_zero(work)`: made on rank 0, and the same everywhere."""
    return Ranks().from_rank_zero(work)


_FIRST_ROUND, _LONGEST_ROUND = 1.0, 30.0  # seconds of work between two times that the processes hear of each other


def show_nothing(_: int) -> None:
    """No bar."""


def in_rounds(steps: Iterator[int], ranks: Ranks, show: Callable[[int], object] = show_nothing) -> None:
    """Work through `steps`, and hear now and then of the other processes: how far they are, and whether one failed.

    So a failure is known everywhere within half a minute and a batch, and no process waits for a slower one longer
    than that at a time, however long the work is: the timeout of the process group does not have to be longer.

    Args:
        steps: each yields how many frames it was.
        ranks: the processes; all must call this.
        show: is told how many frames are done, of all processes as far as is known.
    """
    seconds = _FIRST_ROUND
    own = others = 0

    def work() -> tuple[bool, int]:
        nonlocal own
        until = time.monotonic() + seconds
        for frames in steps:
            own += frames
            show(own + others)
            if ranks.size > 1 and time.monotonic() > until:
                return False, own
        return True, own

    while True:
        answers = ranks.exchange(work)
        others = sum(frames for _, frames in answers) - own
        show(own + others)
        if all(finished for finished, _ in answers):
            return
        seconds = min(2 * seconds, _LONGEST_ROUND)
