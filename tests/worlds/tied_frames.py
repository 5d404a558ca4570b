"""Frames with every column and with ties among their scores."""

from __future__ import annotations

import torch

from cval_torch.pool.pool import Pool

UNCERTAIN = ("least", "margin", "ratio", "entropy")


def make_tied_pool(
    counts: list[int], *, seed: int = 0, classes: int = 4, activation: str | None = "softmax", width: int = 6
) -> Pool:
    """A pool with every column; scores on a coarse grid, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)
    boxes = sum(counts)
    probabilities = torch.rand(boxes, classes, generator=generator)
    if activation == "softmax":
        probabilities = probabilities / probabilities.sum(1, keepdim=True)
    return Pool(
        [f"frame{row:04d}" for row in torch.randperm(len(counts), generator=generator).tolist()],
        torch.tensor([0, *counts]).cumsum(0),
        scores=torch.randint(0, 11, (boxes,), generator=generator) / 10,
        indices=torch.arange(len(counts)) * 3,
        labels=torch.randint(0, classes, (boxes,), generator=generator),
        probabilities=None if activation is None else probabilities,
        activation=activation,  # type: ignore[arg-type]
        box_embeddings=torch.randn(boxes, width, generator=generator).half(),
        frame_embeddings=torch.randn(len(counts), width, generator=generator).half(),
    )
