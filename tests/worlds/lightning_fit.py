"""A small detector as a module of either Lightning package, its data, and a Trainer that is quiet."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from squares import Squares, make_loader
from tiny_rcnn import make_faster_rcnn, pairs
from torch.utils.data import DataLoader

from cval_torch.training.labels import LabelPool


def host(package: str) -> tuple[ModuleType, type[Any], type[Any]]:
    """The package, and a module and a data module of its own classes."""
    pl = importlib.import_module(package)

    class Module(pl.LightningModule):  # type: ignore[name-defined]
        """Everything random is seeded by the step: the host draws other numbers when it resumes."""

        def __init__(self) -> None:
            super().__init__()
            self.model = make_faster_rcnn(num_classes=3)
            self.model.backbone.eval()

        def training_step(self, batch: Any, number: int) -> Any:
            torch.manual_seed(100 * self.current_epoch + number)
            return sum(self.model(list(batch[0]), [dict(target) for target in batch[1]]).values())

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("map", 0.5, batch_size=1)

        def test_step(self, batch: Any, number: int) -> None:
            pass

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    class Data(pl.LightningDataModule):  # type: ignore[name-defined]
        def __init__(self, labels: LabelPool) -> None:
            super().__init__()
            self.labels, self.sizes = labels, []

        def train_dataloader(self) -> DataLoader[Any]:
            self.sizes.append(len(self.labels.labeled))
            # a shuffle that does not depend on how often the host asks for an iterator: more often when resuming
            order = torch.randperm(self.sizes[-1], generator=torch.Generator().manual_seed(self.sizes[-1]))
            return DataLoader(self.labels.labeled, 4, sampler=order.tolist(), collate_fn=pairs)

        def val_dataloader(self) -> DataLoader[Any]:
            return make_loader(Squares(2))

    return pl, Module, Data


def trainer_of(pl: ModuleType, root: Path, *callbacks: Any, **options: Any) -> Any:
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    grows = {"reload_dataloaders_every_n_epochs": 1, "enable_checkpointing": False, "default_root_dir": root}
    return pl.Trainer(**{**quiet, **grows, **options}, callbacks=list(callbacks))
