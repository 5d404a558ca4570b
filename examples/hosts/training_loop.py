"""A plain training loop that chooses its own next frames: `SamplerCallback` in twenty lines, after the data is set up.

    python examples/hosts/training_loop.py

The pool has the labels already, so `annotate` answers at once. With people, let it send the frames to a tool and
return None: the frames are pending then, until `sampler.confirm()`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, SelectedFrames
from cval_torch.training import EveryEpochs, SamplerCallback
from cval_torch.training.labels import LabelPool
from digits_on_photos import PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped


def main() -> None:
    """Train for some epochs, and label 20 more frames after every second one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--frames", type=int, default=600, help="size of the pool")
    options = parser.parse_args()
    torch.manual_seed(0)
    pool = pool_frames(PoolSettings(frames=options.frames))
    model = detector_of_digits(letters_as_shipped())
    first = [pool.frame_ids[row] for row in torch.randperm(len(pool))[:40]]

    # The loop: what is new in it are the two lines with `sampler`.
    labels = LabelPool(pool, labeled=first)
    sampler = SamplerCallback(labels, make_loader, STAGES, schedule=EveryEpochs(2), annotate=ask_the_oracle)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(options.epochs):
        model.train()
        losses = []
        for images, targets in DataLoader(labels.labeled, batch_size=8, shuffle=True, collate_fn=collate):
            loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch}: {len(labels.labeled)} frames, loss {sum(losses) / len(losses):.3f}")
        chosen = sampler.on_epoch_end(model, epoch)
        if chosen is not None:
            print(f"  labelled {len(chosen)} more: {', '.join(chosen.frame_ids[:3])}, ...")
    print(f"{labels}: {[round_.strategy for round_ in labels.rounds]}")


STAGES = [
    DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=80),
    DetectionSampling(selection_strategy="clustering", num_of_samples=20),
]


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at: no shuffling, no augmentation."""
    return DataLoader(unlabeled, batch_size=50, collate_fn=collate)


def ask_the_oracle(chosen: SelectedFrames) -> tuple[str, ...]:
    """Every label is there."""
    return chosen.frame_ids


if __name__ == "__main__":
    main()
