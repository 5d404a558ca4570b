"""Points for the tests of strategies on vectors: noise, blobs that lie far apart, and points that count."""

from __future__ import annotations

import torch
from torch import Tensor


def noise(rows: int, width: int = 5, seed: int = 0) -> Tensor:
    """(rows, width) draws from the normal distribution."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def squares(points: Tensor, others: Tensor) -> Tensor:
    """(N, M) squared distances between all pairs of points, in float64."""
    return (points.double()[:, None] - others.double()).square().sum(2)


def blobs(sizes: list[int], *, width: int = 8, spread: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points about distant unit vectors, in random order, and the blob of each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    points = torch.eye(width)[labels] * 3 + spread * torch.randn(len(labels), width, generator=generator)
    order = torch.randperm(len(labels), generator=generator)
    return points[order], labels[order]


def blobs_in_order(sizes: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same points, one blob after the other."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.eye(8)[labels] * 3 + 0.05 * noise(len(labels), 8, seed), labels


class Recorded:
    """Points of half precision that remember how many rows they were asked for at a time."""

    def __init__(self, points: Tensor) -> None:
        self.points, self.shape, self.device, self.most = points, tuple(points.shape), points.device, 0

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        found = self.points[rows]
        self.most = max(self.most, len(found))
        return found
