"""`row_marks`: whether a row of a dataset without ids is still the frame that it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from cval_torch.extraction.ids import innermost, length_of


def row_marks(dataset: Any, rows: Sequence[int]) -> list[str | None]:
    """A digest of the names that a dataset lists for each of `rows`, such as files; None if it lists none.

    If a row has no id, its mark tells whether it still is the same frame. What counts are the attributes of the
    dataset, and of datasets within it, that have one string or path a row, or one in front of other values. Numbers do
    not count: annotations may change. No data are read.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> row_marks(TensorDataset(torch.zeros(2, 3)), [0, 1])
    [None, None]
    """
    return [_mark(*innermost(dataset, row)) for row in rows]


def _mark(dataset: Any, row: int) -> str | None:
    listed = _listed(dataset, row)
    return hashlib.sha256(repr(listed).encode("utf-8", "surrogatepass")).hexdigest()[:16] if listed else None


def _listed(dataset: Any, row: int, within: tuple[int, ...] = ()) -> list[tuple[str, str]]:
    """The names of a row, each behind that of its attribute; `within`: the datasets that this one was found in."""
    length = length_of(dataset)
    found: list[tuple[str, str]] = []
    if id(dataset) in within:  # it refers to itself, such as to a view of itself
        return found
    for attribute, value in sorted(getattr(dataset, "__dict__", {}).items()):
        if isinstance(value, Dataset):
            if length_of(value) == length:
                inner = _listed(*innermost(value, row), (*within, id(dataset)))
                found += [(f"{attribute}.{name}", listed) for name, listed in inner]
        elif _is_column(value) and len(value) == length:
            item = value.iloc[row] if hasattr(value, "iloc") else value[row]
            first = item[0] if isinstance(item, (list, tuple)) and item else item
            if isinstance(first, (str, os.PathLike)):
                found.append((attribute, os.fspath(first)))
    return found


def _is_column(value: Any) -> bool:
    """Whether these are values in memory, one a row: reading one loads nothing."""
    return isinstance(value, (list, tuple)) or (hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1)
