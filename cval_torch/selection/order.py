"""Orders that do not depend on the order in which a loader brought the frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_by_id(frame_ids: Sequence[str], rows: Tensor) -> Tensor:
    """(n,) `rows` in the order of their frame ids."""
    return rows[order_of_ids(frame_ids, rows)]


def order_of_ids(frame_ids: Sequence[str], rows: Tensor) -> Tensor:
    """(n,) positions in `rows`, in the order of their frame ids."""
    ids = [frame_ids[row] for row in rows.tolist()]
    return torch.tensor(sorted(range(len(ids)), key=ids.__getitem__), dtype=torch.int64, device=rows.device)


def shuffled(n: int, seed: int) -> Tensor:
    """A permutation of `range(n)`, drawn on the CPU so that a GPU gives the same one."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
