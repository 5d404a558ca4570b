"""skorch: a callback chooses frames after each epoch; each round is one call of `partial_fit`.

    pip install -e ".[examples]" skorch && python examples/hosts/skorch_callback.py

skorch makes its loader once for each call of `partial_fit`. So one call trains one epoch on the frames that are
labeled by then, and the loop over rounds stands around it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.utils.data import DataLoader, Dataset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, LabelPool, PassOptions, SamplerCallback
from digits_on_photos import PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped


class Choose(Callback):  # type: ignore[misc]  # skorch has no types
    """Calls the sampler at the end of each epoch."""

    def __init__(self, sampler: SamplerCallback) -> None:
        self.sampler = sampler

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """The sampler sees the epoch's number and metrics."""
        row = net.history[-1]
        metrics = {name: value for name, value in row.items() if isinstance(value, float)}
        self.sampler.on_epoch_end(net.module_, row["epoch"] - 1, metrics)


class DetectorNet(NeuralNet):  # type: ignore[misc]
    """A detector computes its losses itself, so the training step differs from skorch's own."""

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """One batch: the sum of the detector's losses."""
        self._set_training(True)
        images, targets = batch
        loss = torch.stack(list(self.module_(images, targets).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss, "y_pred": None}


def main() -> None:
    """Train for some rounds, and label 20 more frames after each."""
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
    net = DetectorNet(
        detector_of_digits(letters_as_shipped()),
        criterion=torch.nn.Identity,
        optimizer=torch.optim.AdamW,
        lr=1e-3,
        max_epochs=1,
        batch_size=8,
        train_split=None,
        verbose=0,
        iterator_train__collate_fn=collate,
        iterator_train__shuffle=True,
        callbacks=[Choose(sampler)],
    ).initialize()
    for epoch in range(options.epochs):
        frames = len(labels.labeled)
        net.partial_fit(labels.labeled, None)
        print(f"epoch {epoch + 1}: {frames} frames, loss {net.history[-1, 'train_loss']:.3f}")
    print(labels)


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at: no shuffling, no augmentation."""
    return DataLoader(unlabeled, batch_size=50, collate_fn=collate)


if __name__ == "__main__":
    main()
