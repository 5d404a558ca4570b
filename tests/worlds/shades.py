"""Shades of grey, a detector that is one linear layer, and a `SamplerCallback` over both: to be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cval_torch.extraction.options import PassOptions
from cval_torch.hooks.base import FrameBatch
from cval_torch.pipeline import SelectedFrames
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training import SamplerCallback
from cval_torch.training.labels import LabelPool


class Shades(Dataset[Any]):
    """Frame `row` is 1 x 2 x 2 pixels of one shade; its target is whether it is light. Some names, for ids."""

    def __init__(self, n: int, *, image_ids: bool = False, noise: float = 0.0) -> None:
        self.shades = torch.rand(n, generator=torch.Generator().manual_seed(1))
        self.image_ids, self.noise = image_ids, noise

    def __len__(self) -> int:
        return len(self.shades)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        shade = self.shades[row] + self.noise * torch.rand(())
        target: dict[str, Any] = {"light": float(self.shades[row] > 0.5)}
        if self.image_ids:
            target["image_id"] = row + 1  # as in COCO: another frame's row
        return shade.expand(1, 2, 2), target


class Tiny(nn.Module):
    """A "detector" with all that an extraction must leave alone: batch statistics, dropout, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(1, 1)
        with torch.no_grad():
            self.linear.weight.fill_(1.0)
            self.linear.bias.fill_(-0.3)

    def forward(self, means: Tensor) -> Tensor:
        return self.linear(self.drop(self.norm(means)))


class OneBox:
    """The adapter of `Tiny`: one box a frame, its score the sigmoid of the output, and (1, shade) as the embedding."""

    name = "one box"

    def matches(self, model: nn.Module) -> bool:
        return isinstance(model, Tiny)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"linear": model.linear}  # type: ignore[dict-item]

    def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Tensor:
        return model(torch.stack([image.mean().reshape(1) for image in images]))

    def read(self, model: nn.Module, recording: Any, output: Tensor) -> FrameBatch:
        n = len(output)
        return FrameBatch(
            counts=torch.ones(n, dtype=torch.int64),
            boxes=torch.zeros(n, 4),
            labels=torch.zeros(n, dtype=torch.int64),
            scores=output[:, 0].sigmoid(),
            frame_embeddings=nn.functional.pad(recording["linear"][0].args[0], (1, 0), value=1.0),
        )


def collate(samples: list[Any]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*samples, strict=True))


def make_loader(subset: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(subset, **{"batch_size": 4, "collate_fn": collate, **options})


def all_of(selected: SelectedFrames) -> tuple[str, ...]:
    return selected.frame_ids


STAGE = DetectionSampling(selection_strategy="least", num_of_samples=3)


def make(n: int = 20, *, dataset: Dataset[Any] | None = None, **options: Any) -> SamplerCallback:
    dataset = Shades(n) if dataset is None else dataset
    labels = LabelPool(dataset, labeled=["0", "1", "2"])
    how = PassOptions(adapter=options.pop("adapter", OneBox()), progress=False)
    defaults: dict[str, Any] = {"annotate": all_of, "options": how}
    return SamplerCallback(
        labels, options.pop("make_loader", make_loader), options.pop("stages", STAGE), **{**defaults, **options}
    )


def train_epoch(model: Tiny, dataset: Dataset[Any]) -> float:
    """One plain epoch, in which the order and the dropout come from torch's global random state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    total = 0.0
    for images, targets in DataLoader(dataset, batch_size=3, shuffle=True, collate_fn=collate):
        if len(images) == 1:
            continue  # batch statistics need two
        light = torch.tensor([[target["light"]] for target in targets])
        means = torch.stack([image.mean().reshape(1) for image in images])
        loss = nn.functional.binary_cross_entropy_with_logits(model(means), light)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach())
    return total


def naive_choice(model: Tiny, dataset: Shades, rows: Sequence[int], n: int) -> tuple[list[str], list[float]]:
    """The n rows whose score is the nearest to one half, by the definition of `least`, one by one."""
    model.eval()
    scored = []
    for row in rows:
        with torch.no_grad():
            score = float(model(dataset[row][0].mean().reshape(1, 1)).sigmoid())
        scored.append((2 * (1 - max(score, 1 - score)), str(row)))
    model.train()
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return [name for _, name in scored[:n]], [score for score, _ in scored[:n]]
