"""What a dataset lists for its rows, such as files: whether a row is still the frame that it was, and where that is."""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, Subset

from cval_torch.extraction.ids import PATH_ATTRIBUTES, innermost, length_of, own_ids


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
    return [_mark(*_part_of(dataset, row)) for row in rows]


def path_of(dataset: Any, row: int) -> str | None:
    """The file of a row, if the dataset lists it; else None.

    It is what stands in an attribute such as `paths`, or in the annotations of a `CocoDetection`. Elsewhere it is the
    first name listed for the row that is a file on the disk, as it is or below a folder that the dataset names.

    >>> from torch.utils.data import Subset
    >>> class Files(Dataset):
    ...     paths = ["a.jpg", "b.jpg"]
    ...     def __len__(self):
    ...         return 2
    >>> path_of(Subset(Files(), [1]), 0)
    'b.jpg'
    """
    dataset, row = _part_of(dataset, row)
    path = _listed_path(dataset, row)
    if path is not None:
        return path
    folders = ["", *(text for _, text in _own_strings(dataset))]
    names = [name for _, name in _listed(dataset, row)]
    return next((str(Path(folder, name)) for name in names for folder in folders if _is_file(folder, name)), None)


def _is_file(folder: str, name: str) -> bool:
    try:
        return Path(folder, name).is_file()
    except (OSError, ValueError):  # such as a text too long for a path
        return False


def _listed_path(dataset: Any, row: int) -> str | None:
    """What stands for a row where datasets keep their paths."""
    for attribute in PATH_ATTRIBUTES:
        path = _string_at(getattr(dataset, attribute, None), row, length_of(dataset))
        if path is not None:
            return path
    images, ids = getattr(getattr(dataset, "coco", None), "imgs", None), getattr(dataset, "ids", None)
    if isinstance(images, Mapping) and isinstance(ids, Sequence) and row < len(ids):
        name = images.get(ids[row], {}).get("file_name")
        return None if name is None else str(Path(getattr(dataset, "root", ""), name))
    return None


def frame_marks(dataset: Any, rows: Sequence[int]) -> list[bytes] | None:
    """16 bytes a row, by which its frame is found again after files were added or removed; None if that is not sure.

    They are made of the id, the file, the names that the dataset lists for the row, and the dataset's own strings and
    paths, such as its folder. A number alone is no mark: another annotation file may give it to another image. Nor are
    names that two rows share.
    """
    ids = own_ids(dataset)
    owners: dict[int, list[tuple[str, str]]] = {}
    marks = []
    for row in rows:
        inner, inner_row = _part_of(dataset, row)
        if id(inner) not in owners:
            owners[id(inner)] = _own_strings(inner)
        name = None if ids is None or str(ids[row]).isdigit() else str(ids[row])
        path, listed = _listed_path(inner, inner_row), _listed(inner, inner_row)
        if all(text is None or text.isdigit() for text in [name, path, *(text for _, text in listed)]):
            return None
        text = repr([name, path, listed, owners[id(inner)]])
        marks.append(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16])
    return marks if len(set(marks)) == len(marks) else None


def _own_strings(dataset: Any, within: tuple[int, ...] = ()) -> list[tuple[str, str]]:
    """The attributes of a dataset, and of datasets within it, that are strings or paths; `within`: as for `_listed`."""
    found: list[tuple[str, str]] = []
    for name, value in sorted(getattr(dataset, "__dict__", {}).items()):
        if isinstance(value, (str, os.PathLike)):
            found.append((name, os.fspath(value)))
        elif isinstance(value, Dataset) and id(dataset) not in within:
            found += [(f"{name}.{inner}", text) for inner, text in _own_strings(value, (*within, id(dataset)))]
    return found


def _part_of(dataset: Any, row: int) -> tuple[Any, int]:
    """The dataset within all `Subset`s and `ConcatDataset`s that has the row, and its row there."""
    while isinstance(dataset, (Subset, ConcatDataset)):
        if isinstance(dataset, Subset):
            dataset, row = dataset.dataset, int(dataset.indices[row])
        else:
            part = bisect.bisect_right(dataset.cumulative_sizes, row)
            row -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
    return dataset, row


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
        elif (name := _string_at(value, row, length)) is not None:
            found.append((attribute, name))
    return found


def _string_at(values: Any, row: int, length: int | None) -> str | None:
    """The string or path at a row of values in memory, alone or in front of others there; None if there is none."""
    if not isinstance(values, (list, tuple)) and not (hasattr(values, "dtype") and getattr(values, "ndim", 0) == 1):
        return None
    if len(values) != length:
        return None
    item = values.iloc[row] if hasattr(values, "iloc") else values[row]
    first = item[0] if isinstance(item, (list, tuple)) and item else item
    return os.fspath(first) if isinstance(first, (str, os.PathLike)) else None
