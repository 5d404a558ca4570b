"""The processes of one `torchrun`: joined for a run, and parted after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


@contextmanager
def joined_processes() -> Iterator[int]:
    """Join the processes that torchrun started, if it did; this process's rank, 0 where it is alone.

    Processes with a GPU each talk by NCCL, others by gloo.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ and "RANK" not in os.environ:
        yield 0
        return
    if dist.is_initialized():
        yield dist.get_rank()
        return
    own_gpu = torch.cuda.is_available() and torch.cuda.device_count() > int(os.environ.get("LOCAL_RANK", "0"))
    if own_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if own_gpu else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()
