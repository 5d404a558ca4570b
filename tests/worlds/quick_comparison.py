"""Comparisons over small frames whose objects are known, in no time."""

from __future__ import annotations

from typing import Any

import torch
from shades import OneBox, Tiny
from tiny_rcnn import pairs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from cval_torch import PassOptions, compare
from cval_torch.comparison import Comparison


class Known(Dataset[Any]):
    """Frame `row` is one shade; it has `row % 3` objects, of classes that `row` gives. It counts its reads."""

    def __init__(self, n: int = 30, *, target: Any = None) -> None:
        self.shades = torch.rand(n, generator=torch.Generator().manual_seed(3))
        self.target, self.reads = target, 0

    def __len__(self) -> int:
        return len(self.shades)

    def labels(self, row: int) -> list[int]:
        return [(row * row + k) % 5 for k in range(row % 3)]

    def __getitem__(self, row: int) -> tuple[Tensor, Any]:
        self.reads += 1
        labels = self.labels(row)
        boxes = [[0.0, 0.0, 1.0 + k, 2.0] for k in range(len(labels))]
        target = {"labels": torch.tensor(labels, dtype=torch.int64), "boxes": torch.tensor(boxes)}
        return self.shades[row].expand(1, 2, 2), target if self.target is None else self.target(row, target)


def loader_of(dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 7, "collate_fn": pairs, **options})


def quick(dataset: Any = None, strategies: Any = ("least", "k_center"), **options: Any) -> Comparison:
    loader = loader_of(Known() if dataset is None else dataset) if not isinstance(dataset, DataLoader) else dataset
    how = PassOptions(adapter=options.pop("adapter", OneBox()), progress=options.pop("progress", False))
    given = {"num_of_samples": 4, "draws": 6, "options": how, **options}
    with torch.random.fork_rng(devices=[]):
        model = Tiny()
    return compare(model, loader, strategies, **given)


def same(one: Comparison, other: Comparison) -> None:
    assert one.strategies == other.strategies
    assert one.random == other.random
    assert one.curves == other.curves
    assert one.random_curves == other.random_curves


class Scenes(Dataset[Any]):
    """Noise with light squares, some frames empty, and every true box where the square is."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(row)
        image = 0.3 * torch.rand(3, 48, 48, generator=generator)
        boxes, labels = [], []
        for number in range(row % 4):
            x, y = torch.randint(0, 30, (2,), generator=generator).tolist()
            image[:, y : y + 12, x : x + 12] += 0.6
            boxes.append([x, y, x + 12, y + 12])
            labels.append(1 + (row + number) % 4)
        target = {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": torch.tensor(labels).long()}
        return image, {**target, "image_id": f"scene-{row:02d}"}


class Trainer:
    """Trains a `Tiny` whose bias hangs on the frames and on torch's random numbers; measures that bias."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.trained: list[tuple[str, ...]] = []

    def __call__(self, frames: Subset[Any]) -> nn.Module:
        if len(self.trained) == self.fail_at:
            raise KeyboardInterrupt
        self.trained.append(tuple(frames.frame_ids))  # type: ignore[attr-defined]
        model = Tiny()
        shades = torch.stack([frames[row][0].mean() for row in range(len(frames))])
        with torch.no_grad():
            model.linear.bias.fill_(-float(shades.mean()) - 0.01 * float(torch.rand(())))
        return model

    @staticmethod
    def evaluate(model: nn.Module) -> float:
        return float(model.linear.bias.detach())  # type: ignore[union-attr, operator]


def trained(trainer: Trainer, **options: Any) -> Comparison:
    given = {"labeled": ["1", "2"], "rounds": 3, "trained_draws": 2, **options}
    return quick(train=trainer, evaluate=trainer.evaluate, **given)
