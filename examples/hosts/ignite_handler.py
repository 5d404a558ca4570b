"""Ignite: a handler chooses frames after each epoch, and the running engine gets a new loader.

pip install -e ".[examples]" pytorch-ignite && python examples/hosts/ignite_handler.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.utils.data import DataLoader, Dataset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, LabelPool, PassOptions, SamplerCallback
from digits_on_photos import Item, PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped


def main() -> None:
    """Train for some epochs, and label 20 more frames after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--frames", type=int, default=600, help="size of the pool")
    options = parser.parse_args()
    torch.manual_seed(0)
    pool = pool_frames(PoolSettings(frames=options.frames))
    model = detector_of_digits(letters_as_shipped())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    labels = LabelPool(pool, labeled=[pool.frame_ids[row] for row in torch.randperm(len(pool))[:40]])
    sampler = SamplerCallback(
        labels,
        make_loader,
        DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=20),
        annotate=lambda chosen: chosen.frame_ids,  # the pool has every label
        options=PassOptions(progress=False),
    )

    def train_step(engine: Engine, batch: Any) -> float:
        images, targets = batch
        model.train()
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def loader() -> DataLoader[Item]:
        return DataLoader(labels.labeled, batch_size=8, shuffle=True, collate_fn=collate)

    def choose(engine: Engine) -> None:
        print(f"epoch {engine.state.epoch}: {len(labels.labeled)} frames, last loss {engine.state.output:.3f}")
        chosen = sampler.on_epoch_end(model, engine.state.epoch - 1, training_metrics=engine.state.metrics)
        if chosen is not None:
            engine.set_data(loader())
            engine.state.epoch_length = len(loader())  # otherwise the length of the first loader is kept

    trainer = Engine(train_step)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, choose)
    trainer.run(loader(), max_epochs=options.epochs)
    print(labels)


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at: no shuffling, no augmentation."""
    return DataLoader(unlabeled, batch_size=50, collate_fn=collate)


if __name__ == "__main__":
    main()
