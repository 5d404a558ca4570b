"""Frames of predicted and annotated boxes, drawn by a seed, for the tests of what looks wrong in annotations."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool

Target = dict[str, Tensor]


def drawn_boxes(n: int, rng: torch.Generator, *, side: float = 100.0) -> Tensor:
    corners = torch.rand(n, 2, generator=rng, dtype=torch.float64) * side
    return torch.cat([corners, corners + 4 + torch.rand(n, 2, generator=rng, dtype=torch.float64) * 40], 1)


def pool_of(frames: list[tuple[Tensor, Tensor, Tensor]], **columns: object) -> Pool:
    """Frames "f0", ... of (boxes, labels, scores)."""
    return Pool(
        [f"f{number}" for number in range(len(frames))],
        offsets_of(torch.tensor([len(boxes) for boxes, _, _ in frames], dtype=torch.int64)),
        boxes=torch.cat([torch.zeros(0, 4, dtype=torch.float64), *(boxes for boxes, _, _ in frames)]),
        labels=torch.cat([torch.zeros(0, dtype=torch.int64), *(labels for _, labels, _ in frames)]),
        scores=torch.cat([torch.zeros(0, dtype=torch.float64), *(scores for _, _, scores in frames)]),
        **columns,
    )


def noisy_world(seed: int, *, frames: int = 12, classes: int = 3) -> tuple[Pool, list[Target]]:
    """Annotations at random, and predictions near them and elsewhere, some of another class; some frames have none."""
    rng = torch.Generator().manual_seed(seed)
    predicted, targets = [], []
    for _ in range(frames):
        n = int(torch.randint(0, 5, (1,), generator=rng))
        boxes, labels = drawn_boxes(n, rng), torch.randint(0, classes, (n,), generator=rng)
        targets.append({"boxes": boxes, "labels": labels})
        shift = torch.randn(n, 4, generator=rng, dtype=torch.float64) * 3
        moved = boxes + shift
        moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
        strays = drawn_boxes(int(torch.randint(0, 4, (1,), generator=rng)), rng)
        seen = torch.cat([moved, strays])
        said = torch.cat([labels, torch.randint(0, classes, (len(strays),), generator=rng)])
        swap = torch.rand(len(seen), generator=rng) < 0.3
        said = torch.where(swap, (said + 1) % classes, said)
        predicted.append((seen, said, torch.rand(len(seen), generator=rng, dtype=torch.float64) ** 0.3))
    return pool_of(predicted), targets


def clean_world(seed: int, *, frames: int = 20, classes: int = 4) -> tuple[Pool, list[Target]]:
    """Three objects a frame, far apart, and one sure prediction at nearly each one's place; annotated without fault."""
    rng = torch.Generator().manual_seed(seed)
    predicted, targets = [], []
    for _ in range(frames):
        corners = torch.tensor([[0.0, 0.0], [150.0, 10.0], [40.0, 170.0]], dtype=torch.float64)
        boxes = torch.cat([corners, corners + 40 + torch.rand(3, 2, generator=rng, dtype=torch.float64) * 30], 1)
        labels = torch.randint(0, classes, (3,), generator=rng)
        targets.append({"boxes": boxes.clone(), "labels": labels.clone()})
        seen = boxes + torch.randn(3, 4, generator=rng, dtype=torch.float64)
        predicted.append((seen, labels, 0.96 + 0.03 * torch.rand(3, generator=rng, dtype=torch.float64)))
    return pool_of(predicted), targets
