"""One decision for all processes: made on rank 0, and the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from cval_torch.errors import CvalError

T = TypeVar("T")


def processes() -> int:
    """How many processes train together; 1 outside torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_rank_zero() -> bool:
    """Whether this is the process that decides; True outside torch.distributed."""
    return processes() == 1 or dist.get_rank() == 0


def from_rank_zero(work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, on every rank. Every rank must call this; `work` runs on rank 0 alone.

    Args:
        work: its value must be picklable, if there are several processes.

    Raises:
        Exception: whatever `work` raised, on rank 0.
        CvalError: on the other ranks, with what it raised: none of them is left waiting.
    """
    if processes() == 1:
        return work()
    if dist.get_rank() == 0:
        try:
            value = work()
        except BaseException as error:
            dist.broadcast_object_list([False, f"rank 0 failed: {type(error).__name__}: {error}"], src=0)
            raise
        dist.broadcast_object_list([True, value], src=0)
        return value
    answer: list[object] = [None, None]
    dist.broadcast_object_list(answer, src=0)
    if not answer[0]:
        raise CvalError(str(answer[1]))
    return answer[1]  # type: ignore[return-value]
