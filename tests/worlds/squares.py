"""Light squares on noise, small or large by class, and a sampler over them: for the hosts that train real detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tiny_rcnn import pairs
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cval_torch.extraction.options import PassOptions
from cval_torch.pipeline import SelectedFrames
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training import SamplerCallback, Schedule
from cval_torch.training.labels import LabelPool


class Squares(Dataset[Any]):
    """Frame `row` is 3 x 48 x 48; its target has one box, of class 1 or 2."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(row)
        image = 0.3 * torch.rand(3, 48, 48, generator=generator)
        x, y = torch.randint(0, 30, (2,), generator=generator).tolist()
        side = 10 + 6 * (row % 2)
        image[:, y : y + side, x : x + side] += 0.6
        return image, {
            "boxes": torch.tensor([[x, y, x + side, y + side]]).float(),
            "labels": torch.tensor([1 + row % 2]),
        }


def make_loader(subset: Dataset[Any]) -> DataLoader[Any]:
    return DataLoader(subset, batch_size=8, collate_fn=pairs)


class Oracle:
    """Knows every label, and keeps who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, selected: SelectedFrames) -> tuple[str, ...]:
        self.asked.append(selected.frame_ids)
        return selected.frame_ids


def make_sampler(
    *,
    annotate: Any = None,
    schedule: Schedule | None = None,
    n: int = 24,
    kind: type[SamplerCallback] = SamplerCallback,
    **options: Any,
) -> Any:
    """Four frames labelled of `n`; four more at each choice, by entropy."""
    labels = LabelPool(Squares(n), labeled=["0", "1", "2", "3"])
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=4)
    how = PassOptions(progress=False)
    return kind(labels, make_loader, stage, annotate=annotate, schedule=schedule, options=how, **options)


class Listener:
    """A schedule that is never due, and keeps what it is asked."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked = names, list[tuple[float | None, ...]]()

    def due(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        values = (metrics.get(name) for name in self.names)
        self.asked.append((epoch, *(None if value is None else round(value, 4) for value in values)))
        return False

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
