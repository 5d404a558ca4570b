"""Passes over a dataset that remembers what was read of it, for the tests of resuming and of several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_rcnn import Frames, loader_of, make_faster_rcnn
from torch import Tensor, nn

from cval_torch import Pool, extract


def same(one: Pool, other: Pool) -> bool:
    columns = dict(one.columns()), dict(other.columns())
    return (
        one.frame_ids == other.frame_ids
        and one.activation == other.activation
        and columns[0].keys() == columns[1].keys()
        and all(torch.equal(column, columns[1][name]) for name, column in columns[0].items())
        and all(column.dtype == columns[1][name].dtype for name, column in columns[0].items())
    )


class Watched(Frames):
    """Remembers which rows were asked for, and fails at row `breaks`, or after `most` rows."""

    def __init__(
        self, n: int = 12, *, breaks: int | None = None, error: BaseException | None = None, most: int = 1000
    ) -> None:
        super().__init__(n, size=48)
        self.breaks, self.error, self.most = breaks, error or OSError("unreadable"), most
        self.rows: list[int] = []

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        if row == self.breaks or len(self.rows) == self.most:
            raise self.error
        self.rows.append(row)
        return super().__getitem__(row)


def run(folder: Path | None, dataset: Any = None, *, model: nn.Module | None = None, **options: Any) -> Pool:
    """A pass of the small detector over 12 frames in 6 batches, 4 frames a shard."""
    loading = {name: options.pop(name) for name in ("batch_size", "shuffle", "sampler") if name in options}
    loader = loader_of(Watched() if dataset is None else dataset, **loading)
    options = {"cache_dir": folder, "frames_per_shard": 4, "progress": False, **options}
    return extract(make_faster_rcnn() if model is None else model, loader, **options)
