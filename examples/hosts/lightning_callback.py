"""One Lightning fit whose train set grows: frames are chosen after every second epoch, and trained on from the next.

    pip install -e ".[examples,lightning]" && python examples/hosts/lightning_callback.py

Two things make it work: `train_dataloader` makes its loader from `labels.labeled`, and the Trainer reloads it every
epoch. Checkpoints hold the labels too: `trainer.fit(..., ckpt_path="last")` goes on with the same choices. It is
the same with `import pytorch_lightning as pl`, and with `devices=2`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, PassOptions
from cval_torch.training import EveryEpochs, SamplerCallback
from cval_torch.training.labels import LabelPool
from cval_torch.training.lightning import LightningSampler
from digits_on_photos import PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped


class Detector(pl.LightningModule):
    """Any module will do; the sampler finds the detector in it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[list[Tensor], list[dict[str, Any]]], _: int) -> Tensor:
        """The sum of the detector's own losses."""
        images, targets = batch
        losses: dict[str, Tensor] = self.model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Digits(pl.LightningDataModule):
    """The labelled frames, as many as there are by now."""

    def __init__(self, labels: LabelPool) -> None:
        super().__init__()
        self.labels = labels

    def train_dataloader(self) -> DataLoader[Any]:
        """Made anew every epoch."""
        return DataLoader(self.labels.labeled, batch_size=8, shuffle=True, collate_fn=collate)


class Report(pl.Callback):
    """Prints a line an epoch; it stands after the sampler, so it sees what was chosen."""

    def __init__(self, labels: LabelPool) -> None:
        self.labels = labels

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """How many frames the epoch was trained on is what there was before the choice after it."""
        loss = float(trainer.callback_metrics["loss"])
        chosen = [round_ for round_ in self.labels.rounds if round_.epoch == trainer.current_epoch]
        more = f"; then {len(chosen[0].frame_ids)} more were labelled" if chosen else ""
        print(f"epoch {trainer.current_epoch}: loss {loss:.3f}{more}", flush=True)


def main() -> None:
    """Fit, and say what was labelled when."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--frames", type=int, default=600, help="size of the pool")
    parser.add_argument("--folder", type=Path, default=Path("lightning_callback"), help="for the checkpoints")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    warnings.filterwarnings("ignore", category=FutureWarning)
    pl.seed_everything(0, verbose=False)

    pool = pool_frames(PoolSettings(frames=options.frames))
    first = [pool.frame_ids[row] for row in torch.randperm(len(pool))[:40]]
    labels = LabelPool(pool, labeled=first)
    sampler = SamplerCallback(
        labels,
        make_loader,
        [
            DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=80),
            DetectionSampling(selection_strategy="clustering", num_of_samples=20),
        ],
        schedule=EveryEpochs(2),
        annotate=lambda chosen: chosen.frame_ids,  # the pool has every label
        options=PassOptions(progress=False),
    )
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[LightningSampler(sampler), Report(labels)],
        default_root_dir=options.folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Detector(detector_of_digits(letters_as_shipped()))
    trainer.fit(module, Digits(labels))
    print(labels)


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at: no shuffling, no augmentation."""
    return DataLoader(unlabeled, batch_size=50, collate_fn=collate)


if __name__ == "__main__":
    main()
