"""What frames are called: by the user, by their targets, by their dataset, or by their rows."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from cval_torch.errors import InvalidInputError
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH

FrameIdOf = Callable[[int, Any], str]
"""`(row of the dataset, the frame's target or None) -> the frame's id`."""

_ID_ATTRIBUTES = ("frame_ids", "image_ids", "ids")
_PATH_ATTRIBUTES = ("image_paths", "im_files", "images", "samples", "imgs", "paths", "files")


class NamedSubset(Subset[Any]):
    """A `Subset` whose frames have names already, as a `LabelPool` gives them: a choice from it has these.

    Attributes:
        frame_ids: one distinct id a row.
    """

    def __init__(self, dataset: Dataset[Any], indices: Sequence[int], frame_ids: Sequence[str]) -> None:
        super().__init__(dataset, indices)
        self.frame_ids = tuple(frame_ids)


class FrameNames:
    """Gives frames their ids, and refuses an id twice.

    The first of these that there is names every frame: the user's `frame_id`; the ids of a `NamedSubset`; the target's
    `image_id`; the dataset's own ids (`CocoDetection.ids`, file stems); the row.
    """

    def __init__(self, dataset: Any, frame_id: FrameIdOf | None = None) -> None:
        self._frame_id = frame_id
        self._own = None if frame_id is not None else own_ids(dataset)
        self._named = frame_id is None and _is_named(dataset)
        self._by_target: bool | None = None
        self._rows: dict[str, int] = {}

    @property
    def by_target(self) -> bool | None:
        """Whether targets name the frames; None before the first."""
        return None if self._frame_id is not None else self._by_target

    def name(self, indices: Sequence[int], targets: Sequence[Any] | None) -> list[str]:
        """The ids of the frames at `indices`.

        Raises:
            InvalidInputError: an id that another frame has, or that is not a string of 1 to 128 characters;
                targets of which some have an `image_id` and some have none.
        """
        given = [None] * len(indices) if targets is None else targets
        names = [self._name(index, target) for index, target in zip(indices, given, strict=True)]
        for index, name in zip(indices, names, strict=True):
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_FRAME_ID_LENGTH:
                raise InvalidInputError(
                    f"a frame id must be a string of 1 to {MAX_FRAME_ID_LENGTH} characters; "
                    f"got {name!r} for row {index}"
                )
            if name in self._rows:
                raise InvalidInputError(
                    f"frame ids must be distinct; rows {self._rows[name]} and {index} are both {name!r}. "
                    "Pass `frame_id=` to name frames yourself"
                )
            self._rows[name] = index
        return names

    def _name(self, index: int, target: Any) -> Any:
        if self._frame_id is not None:
            return self._frame_id(index, target)
        if self._named and self._own is not None:
            return self._own[index]
        image_id = target.get("image_id") if isinstance(target, Mapping) else None
        if self._by_target is None:
            self._by_target = image_id is not None
        if self._by_target != (image_id is not None):
            raise InvalidInputError(
                f"either every target has an `image_id` or none; the target of row {index} "
                f"{'has none' if self._by_target else 'has one'}. Pass `frame_id=` to name frames yourself"
            )
        if image_id is not None:
            return _plain_id(image_id)
        return self._own[index] if self._own is not None else str(index)


def frame_ids_of(dataset: Any, frame_id: FrameIdOf | None = None) -> list[str]:
    """The ids of all frames of a dataset, without loading one: `frame_id(row, None)`, its own ids, or the rows.

    Args:
        dataset: with a length.
        frame_id: names a frame by its row.

    Raises:
        InvalidInputError: the dataset has no length, or an id is not distinct.
    """
    length = length_of(dataset)
    if length is None:
        raise InvalidInputError(f"`dataset` must have a length; got {type(dataset).__name__}")
    return FrameNames(dataset, frame_id).name(range(length), None)


def own_ids(dataset: Any) -> Sequence[str] | None:
    """The ids that a dataset has of its own, one a row, or None: looked for through `Subset` and `ConcatDataset`."""
    if isinstance(dataset, NamedSubset):
        return dataset.frame_ids
    if isinstance(dataset, Subset):
        base = own_ids(dataset.dataset)
        return None if base is None else [base[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [own_ids(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [name for part in parts for name in part or ()]
    length = length_of(dataset)
    for attribute in _ID_ATTRIBUTES:
        ids = getattr(dataset, attribute, None)
        if isinstance(ids, (Sequence, Tensor)) and not isinstance(ids, str) and len(ids) == length:
            return [_plain_id(value) for value in ids]
    for attribute in _PATH_ATTRIBUTES:
        paths = _paths(getattr(dataset, attribute, None))
        if paths and len(paths) == length:
            return _path_ids(paths)
    return None


def _is_named(dataset: Any) -> bool:
    while isinstance(dataset, Subset) and not isinstance(dataset, NamedSubset):
        dataset = dataset.dataset
    return isinstance(dataset, NamedSubset)


def _paths(values: Any) -> list[PurePath] | None:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    firsts = [value[0] if isinstance(value, tuple) and value else value for value in values]
    if not all(isinstance(first, (str, os.PathLike)) for first in firsts):
        return None
    return [Path(first) for first in firsts]


def _path_ids(paths: list[PurePath]) -> list[str] | None:
    """File stems; where two files share one, paths from the folder that all share; where those are too long, none."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    try:
        root = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # absolute and relative paths, or two drives
        return None
    names = [path.relative_to(root).as_posix() for path in paths]
    return names if max(map(len, names)) <= MAX_FRAME_ID_LENGTH and len(set(names)) == len(names) else None


def _plain_id(value: Any) -> Any:
    """An `image_id` as a string: from an integer or a string, or from a tensor or list of one of them."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    try:
        return str(operator.index(value))
    except TypeError:
        return value  # refused by name where ids are checked


def length_of(dataset: Any) -> int | None:
    """How many rows a dataset has; None where it does not say."""
    return len(dataset) if isinstance(dataset, Sized) else None
