"""Pools, images and choices for reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.pool import Pool
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling


class Grey(Dataset[Any]):
    """`n` images in a few shades; those of `broken` rows raise."""

    def __init__(self, n: int, *, size: tuple[int, int] = (30, 40), broken: Sequence[int] = ()) -> None:
        self.n, self.size, self.broken = n, size, broken

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        if row in self.broken:
            raise OSError(f"image file {row} is truncated")
        return torch.full((3, *self.size), row % 7 / 6), {}


def described(
    frames: int, *, seed: int = 0, classes: int = 4, most: int = 6, prefix: str = "frame", names: Sequence[str] = ()
) -> Pool:
    """Frames with 0 to `most` boxes, and every column."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, most + 1, (frames,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    boxes = int(offsets[-1])
    corners = torch.rand(boxes, 2, generator=generator) * torch.tensor([25.0, 18.0])
    probabilities = (3 * torch.randn(boxes, classes, generator=generator)).softmax(1)
    return Pool(
        names or [f"{prefix}-{row:04d}" for row in range(frames)],
        offsets,
        scores=probabilities.amax(1),
        indices=torch.arange(frames),
        boxes=torch.cat([corners, corners + 4 + 8 * torch.rand(boxes, 2, generator=generator)], 1),
        labels=probabilities.argmax(1),
        probabilities=probabilities,
        activation="softmax",
        box_embeddings=torch.randn(boxes, 8, generator=generator),
        frame_embeddings=torch.randn(frames, 6, generator=generator),
    )


def stage(strategy: Any = "entropy", n: int = 5, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def choice(
    pool: Pool,
    *stages: DetectionSampling,
    dataset: Any = None,
    labeled: Pool | None = None,
) -> SelectedFrames:
    """What the stages choose from a pool, as `select` returns it."""
    selection = LocalBackend(labeled=labeled).select(pool, list(stages))
    return SelectedFrames(Grey(int(pool.indices.max()) + 1) if dataset is None else dataset, selection, pool)
