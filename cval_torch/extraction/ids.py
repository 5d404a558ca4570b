"""What frames are called: by the user, by their targets, by their dataset, or by their rows."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from cval_torch.errors import InvalidInputError
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH
from cval_torch.pool.pool import IdSource

FrameIdOf = Callable[[int, Any], str]
"""`(row of the dataset, the frame's target or None) -> the frame's id`."""

_ID_ATTRIBUTES = ("frame_ids", "image_ids", "ids")
PATH_ATTRIBUTES = ("image_paths", "im_files", "images", "samples", "imgs", "paths", "files")
_ROOT_ATTRIBUTES = ("root", "img_path", "img_dir", "image_dir", "images_dir", "image_root", "data_dir")
_TAIL = 100  # characters that are kept of a path that is too long for an id


class NamedSubset(Subset[Any]):
    """A `Subset` whose frames have names already, as a `LabelPool` gives them: a choice from it has these.

    Attributes:
        frame_ids: one distinct id a row.
        rows_of: the dataset whose rows the ids are; None if they are no rows.
    """

    def __init__(
        self, dataset: Dataset[Any], indices: Sequence[int], frame_ids: Sequence[str], *, rows_of: Any = None
    ) -> None:
        super().__init__(dataset, indices)
        self.frame_ids = tuple(frame_ids)
        self.rows_of = rows_of


class FrameNames:
    """Gives frames their ids, and refuses an id twice.

    The first of these that there is names every frame: the user's `frame_id`; the ids of a `NamedSubset`; the target's
    `image_id`; the dataset's own ids (`CocoDetection.ids`, paths of files); the row. The row is that of the innermost
    dataset: two parts of one dataset never share one.

    An `image_id` that is the dataset's own id of the frame says nothing new. So where they agree, the ids are those of
    the dataset, and targets without an `image_id` may stand beside others, as in torchvision's wrapped `CocoDetection`.
    """

    def __init__(self, dataset: Any, frame_id: FrameIdOf | None = None) -> None:
        self._dataset = dataset
        self._frame_id = frame_id
        self._own = None if frame_id is not None else own_ids(dataset)
        self._named = frame_id is None and is_named(dataset)
        self._by_target: bool | None = None
        self._rows: dict[str, int] = {}

    @property
    def by_target(self) -> bool | None:
        """Whether targets name the frames; None before the first."""
        return None if self._frame_id is not None else self._by_target

    @property
    def source(self) -> IdSource:
        """Where the ids come from, once a frame has been named."""
        if self._frame_id is not None:
            return "frame_id"
        if self._named:
            return "labels"
        if self._by_target:
            return "target"
        return "row" if self._own is None else "dataset"

    def known(self, index: int) -> str | None:
        """The id of a frame that cannot be loaded, so its target is not there; None if only the target tells it."""
        if self._by_target:
            return None
        try:
            name: Any = self._of_row(index) if self._frame_id is None else self._frame_id(index, None)
        except Exception:  # a function of the user's, which may need the target
            return None
        return name if isinstance(name, str) and name else None

    def _of_row(self, index: int) -> Any:
        """What the dataset calls a frame; else its row."""
        return str(innermost(self._dataset, index)[1]) if self._own is None else self._own[index]

    def name(self, indices: Sequence[int], targets: Sequence[Any] | None) -> list[str]:
        """The ids of the frames at `indices`.

        Raises:
            InvalidInputError: an id that another frame has, or that is not a string of 1 to 128 characters;
                targets of which some have an `image_id` that the dataset does not know and some have none.
        """
        given = [None] * len(indices) if targets is None else targets
        names = [self._name(index, target) for index, target in zip(indices, given, strict=True)]
        if names and self._by_target is None:
            self._by_target = False  # all that there was, the dataset says too
        for index, name in zip(indices, names, strict=True):
            check_frame_id(name, index)
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
        own = None if self._own is None else self._own[index]
        image_id = target.get("image_id") if isinstance(target, Mapping) else None
        given = None if image_id is None else _plain_id(image_id)
        if own is not None and isinstance(given, str) and given == own:
            return own
        if self._by_target is None:
            self._by_target = given is not None
        if self._by_target != (given is not None):
            raise InvalidInputError(
                f"{self._disagreement(index, own, given)}. Pass `frame_id=` to name frames yourself"
            )
        if given is not None:
            return given
        return self._of_row(index)

    def _disagreement(self, index: int, own: str | None, given: Any) -> str:
        if own is not None and given is not None:
            return (
                f"the dataset calls row {index} {own!r}, but its target has the `image_id` {given!r}, and the frames "
                "before have the ids of the dataset"
            )
        return (
            f"either every target has an `image_id` or none; the target of row {index} "
            f"{'has none' if self._by_target else 'has one'}"
        )


def check_frame_id(name: Any, row: int) -> None:
    """Raise an `InvalidInputError` if `name`, of the frame at `row`, is no id."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_FRAME_ID_LENGTH:
        raise InvalidInputError(
            f"a frame id must be a string of 1 to {MAX_FRAME_ID_LENGTH} characters; got {name!r} for row {row}"
        )


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
    """The ids that a dataset has of its own, one a row, or None: looked for through `Subset` and `ConcatDataset`.

    An id depends on its frame alone, never on what other frames there are.
    """
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
        ids = _values(getattr(dataset, attribute, None), length)
        if ids is not None:
            return [_plain_id(value) for value in ids]
    for attribute in PATH_ATTRIBUTES:
        paths = _paths(_values(getattr(dataset, attribute, None), length))
        if paths is not None:
            roots = [getattr(dataset, name, None) for name in _ROOT_ATTRIBUTES]
            return [_path_id(path, roots) for path in paths]
    return None


def is_named(dataset: Any) -> bool:
    """Whether a dataset is a `NamedSubset`, or a `Subset` of one."""
    return named_part(dataset) is not None


def named_part(dataset: Any) -> NamedSubset | None:
    """The outermost `NamedSubset` of a `Subset` of a `Subset` ...; None if there is none."""
    while isinstance(dataset, Subset) and not isinstance(dataset, NamedSubset):
        dataset = dataset.dataset
    return dataset if isinstance(dataset, NamedSubset) else None


def innermost(dataset: Any, index: int) -> tuple[Any, int]:
    """The dataset within all `Subset`s, and its row that is row `index` of `dataset`."""
    while isinstance(dataset, Subset):
        dataset, index = dataset.dataset, int(dataset.indices[index])
    return dataset, index


def _values(values: Any, length: int | None) -> list[Any] | None:
    """The values of a list, array, tensor, column, or view of keys, if it has `length` of them; else None."""
    if values is None or isinstance(values, (str, bytes, Mapping, Dataset)):
        return None
    if not isinstance(values, Sized) or not isinstance(values, Iterable) or len(values) != length:
        return None
    dimensions = getattr(values, "ndim", 1)
    if dimensions > 2:  # images, not their names
        return None
    plain: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    return plain


def _paths(values: list[Any] | None) -> list[Path] | None:
    if not values:
        return None
    firsts = [value[0] if isinstance(value, (tuple, list)) and value else value for value in values]
    if not all(isinstance(first, (str, os.PathLike)) for first in firsts):
        return None
    return [Path(first) for first in firsts]


def _path_id(path: Path, roots: Iterable[Any]) -> str:
    """The path of a file below the dataset's root; as it is, where there is no such root. With its suffix, posix."""
    for root in roots:
        if isinstance(root, (str, os.PathLike)) and path.is_relative_to(root):
            path = path.relative_to(root)
            break
    name = path.as_posix()
    if len(name) <= MAX_FRAME_ID_LENGTH:
        return name
    return f"{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}/{name[-_TAIL:]}"


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
