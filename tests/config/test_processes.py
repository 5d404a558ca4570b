"""The processes of one `torchrun`: joined for a run, and parted after it.

`test_configs.py` has two of them, which share a pass.
"""

from __future__ import annotations

import pytest
import torch.distributed as dist
from fresh_process import free_port

from cval_torch.config.processes import joined_processes


def test_alone_it_is_rank_0_and_nothing_is_joined() -> None:
    with joined_processes() as rank:
        assert rank == 0
        assert not dist.is_initialized()


def test_a_process_of_torchrun_joins_the_others_once_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with joined_processes() as rank:
        with joined_processes() as again:
            assert (rank, again, dist.get_world_size()) == (0, 0, 1)
        assert dist.is_initialized(), "who joined them parts them"
    assert not dist.is_initialized()
