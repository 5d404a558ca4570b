"""Datasets and streams whose samples say which row they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    Dataset,
    IterableDataset,
)


class Rows(Dataset[Tensor]):
    """Row `i` is an image full of `i`, so that the data themselves say which row they are."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: Any) -> Tensor:
        if isinstance(row, list):
            return torch.stack([self[each] for each in row])
        return torch.full((1, 2, 2), float(row))


class Stream(IterableDataset[Tensor]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.full((1, 2, 2), float(row)) for row in range(self.n))
