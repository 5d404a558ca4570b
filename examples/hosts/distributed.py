"""Many processes, one choice: each infers its share of the pool, and all get the same frames to annotate.

    torchrun --nproc-per-node 2 examples/hosts/distributed.py

Each process takes a GPU of its own where there is one. The run may be killed: with `--cache-dir` the next one goes on
where it stopped, with as many processes as you give it. Without torchrun the same script runs in one process, and
chooses the same frames.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, SelectedFrames, select
from cval_torch.pool.ranks import from_rank_zero, is_rank_zero, processes
from digits_on_photos import PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped, small_fcos

STAGES = [
    DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=100),
    DetectionSampling(selection_strategy="clustering", num_of_samples=20),
]


def main(arguments: list[str] | None = None) -> SelectedFrames:
    """Choose 20 frames; every process returns the same ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=600, help="size of the pool")
    parser.add_argument("--cache-dir", type=Path, help="a folder that all processes see; a killed run goes on from it")
    options = parser.parse_args(arguments)
    device = join_the_others()

    def trained() -> dict[str, Any]:
        weights: dict[str, Any] = detector_of_digits(letters_as_shipped()).state_dict()
        return weights

    model = small_fcos(10).to(device)
    model.load_state_dict(from_rank_zero(trained))  # yours is read from a file, in every process
    loader = DataLoader(pool_frames(PoolSettings(frames=options.frames)), batch_size=16, collate_fn=collate)
    chosen = select(model, loader, stages=STAGES, cache_dir=options.cache_dir)  # in every process
    if is_rank_zero():
        print(f"{chosen!r} in {processes()} process(es): {', '.join(chosen.frame_ids[:5])}, ...")
    return chosen


def join_the_others() -> torch.device:
    """Join the processes that torchrun started, if it did; returns where this one computes."""
    if "RANK" not in os.environ:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl")
    return device


if __name__ == "__main__":
    main()
    if dist.is_initialized():
        dist.destroy_process_group()
