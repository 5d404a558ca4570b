"""An adapter that needs no detector: a box a frame, its numbers chosen by the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cval_torch.hooks.base import FrameBatch


class OneBox:
    """An adapter of the tests: one box a frame, its numbers made by `number` from the frame's mean."""

    name = "one box"

    def __init__(self, **columns: Callable[[Tensor], Tensor]) -> None:
        self.columns = columns

    def matches(self, model: nn.Module) -> bool:
        return False

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"layer": model}

    def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Tensor:
        return torch.stack([model(image.mean().reshape(1)) for image in images])

    def read(self, model: nn.Module, recording: Any, output: Tensor) -> FrameBatch:
        n = len(output)
        columns: dict[str, Any] = {
            "counts": torch.ones(n, dtype=torch.int64),
            "boxes": torch.zeros(n, 4),
            "labels": torch.zeros(n, dtype=torch.int64),
            "scores": torch.full((n,), 0.5),
        }
        columns |= {name: make(output) for name, make in self.columns.items()}
        return FrameBatch(**columns)
