"""accelerate: a training loop whose saved states hold the labels too.

    pip install -e ".[examples]" accelerate && python examples/hosts/accelerate_loop.py

`register_for_checkpointing(sampler)` makes `save_state` and `load_state` take the labels, the history and the pending
frames along. At the end the script loads the state of the first epoch, to show that the labels go back to it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, LabelPool, PassOptions, SamplerCallback
from digits_on_photos import PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped


def main() -> None:
    """Train for some epochs, label 20 more frames after each, and go back to the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--frames", type=int, default=600, help="size of the pool")
    options = parser.parse_args()
    torch.manual_seed(0)
    pool = pool_frames(PoolSettings(frames=options.frames))
    labels = LabelPool(pool, labeled=[pool.frame_ids[row] for row in torch.randperm(len(pool))[:40]])
    sampler = SamplerCallback(
        labels,
        make_loader,
        DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=20),
        annotate=lambda chosen: chosen.frame_ids,  # the pool has every label
        options=PassOptions(progress=False),
    )
    accelerator = Accelerator(cpu=True)
    detector = detector_of_digits(letters_as_shipped())
    model, optimizer = accelerator.prepare(detector, torch.optim.AdamW(detector.parameters(), lr=1e-3))
    accelerator.register_for_checkpointing(sampler)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(options.epochs):
            frames = DataLoader(labels.labeled, batch_size=8, shuffle=True, collate_fn=collate)
            model.train()
            for images, targets in accelerator.prepare(frames):
                loss = sum(model(images, targets).values())
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
            print(f"epoch {epoch + 1}: {len(labels.labeled)} frames, last loss {float(loss.detach()):.3f}")
            sampler.on_epoch_end(model, epoch)
            accelerator.save_state(f"{folder}/{epoch}")
        print(labels)
        accelerator.load_state(f"{folder}/0")
        print(f"back at the first epoch: {labels}")


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at: no shuffling, no augmentation."""
    return DataLoader(unlabeled, batch_size=50, collate_fn=collate)


if __name__ == "__main__":
    main()
