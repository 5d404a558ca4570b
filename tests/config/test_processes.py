"""The processes of one `torchrun`: joined for a run, and parted after it."""

from __future__ import annotations

import subprocess
import sys

import torch.distributed as dist

from cval_torch.config.processes import joined_processes

SCRIPT = """
import os
import torch.distributed as dist
from cval_torch.config.processes import joined_processes
with joined_processes() as rank:
    with joined_processes() as again:
        os.write(1, f"{rank} {again} {dist.get_world_size()}\\n".encode())  # in one piece
assert not dist.is_initialized()
"""


def test_alone_it_is_rank_0_and_nothing_is_joined() -> None:
    with joined_processes() as rank:
        assert rank == 0
        assert not dist.is_initialized()


def test_processes_of_torchrun_are_joined() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "--no-python", sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "0 0 2", "1 1 2"]
