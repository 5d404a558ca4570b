"""A script for torchrun: every process makes two choices with a logger that writes what it is told.

torchrun --nproc-per-node 2 tests/worlds/logging_ranks.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
from round_notes import Notes
from shades import Tiny, make


def main() -> None:
    dist.init_process_group("gloo")
    notes = Notes()
    sampler = make(loggers=[notes])
    for epoch in range(2):
        assert sampler.on_epoch_end(Tiny(), epoch) is not None
    told = {"steps": notes.steps("scalars"), "labeled": list(sampler.labels.labeled_ids)}
    Path(sys.argv[1], f"rank-{os.environ['RANK']}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
