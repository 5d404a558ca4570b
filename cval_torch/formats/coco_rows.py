"""Lists of COCO's records, such as annotations, as checked columns: a million records take seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from cval_torch.errors import InvalidInputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def checked_rows(value: Any, where: str) -> Sequence[Mapping[str, Any]]:
    """A list of objects.

    Args:
        value: what should be one.
        where: what to call it in messages, such as "`images` of FILE".
    """
    if not isinstance(value, (list, tuple)):
        raise InvalidInputError(f"{where} must be a list; got {_kind_of(value)}")
    _check_types(value, lambda kind: issubclass(kind, Mapping), where, "an object", key=None)
    return value


def values_of(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> list[Any]:
    """What each row has under `key`; all of them must have it."""
    try:
        return [row[key] for row in rows]
    except KeyError:
        number = next(number for number, row in enumerate(rows) if key not in row)
        has = ", ".join(map(str, rows[number])) or "none"
        raise InvalidInputError(f"number {number} of {where} has no `{key}`; its keys are {has}") from None


def ids_of(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> list[int | str]:
    """Ids, integers or strings."""
    values: list[int | str] = values_of(rows, key, where)
    _check_types(values, _is_id, where, "an integer or a string", key=key)
    return values


def strings_of(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> list[str]:
    """Strings, none of them empty."""
    values: list[str] = values_of(rows, key, where)
    _check_types(values, lambda kind: issubclass(kind, str), where, "a string", key=key)
    if not all(values):
        raise InvalidInputError(f"number {values.index('')} of {where} must have a `{key}`; it is empty")
    return values


def integers_of(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> Integers:
    """(N,) int64."""
    values = values_of(rows, key, where)
    _check_types(values, _is_integer, where, "an integer", key=key)
    try:
        return np.fromiter(values, dtype=np.int64, count=len(values))
    except OverflowError:
        number = next(number for number, value in enumerate(values) if not -(2**63) <= value < 2**63)
        raise InvalidInputError(
            f"number {number} of {where} must have an integer of 64 bits as `{key}`; got {values[number]}"
        ) from None


def flags_of(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> npt.NDArray[np.bool_]:
    """(N,) bool, from 0 and 1 or false and true; false where a row has no `key`."""
    values = [row.get(key, 0) for row in rows]
    _check_types(values, lambda kind: _is_integer(kind) or kind is bool, where, "0 or 1", key=key)
    return np.fromiter(map(bool, values), dtype=np.bool_, count=len(values))


def unit_scores_of(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> Floats:
    """(N,) float64 in [0, 1]."""
    values = values_of(rows, key, where)
    _check_types(values, _is_number, where, "a number", key=key)
    scores = _floats(values)
    wrong = ~((scores >= 0) & (scores <= 1))  # NaN is neither
    if wrong.any():
        number = int(wrong.argmax())
        raise InvalidInputError(
            f"number {number} of {where} must have a `{key}` in [0, 1]; got {values[number]}"
            + (". Divide percentages by 100" if 1 < scores[number] <= 100 else "")
        )
    return scores


def corners_of(rows: Sequence[Mapping[str, Any]], key: str, where: str) -> Floats:
    """(N, 4) float64, xyxy, from COCO's `[left, top, width, height]`."""
    values = values_of(rows, key, where)
    _check_types(values, lambda kind: issubclass(kind, (list, tuple, np.ndarray)), where, "a list", key=key)
    if set(map(len, values)) - {4}:
        number = next(number for number, value in enumerate(values) if len(value) != 4)
        raise InvalidInputError(
            f"number {number} of {where} must have [left, top, width, height] as `{key}`; got {list(values[number])}"
        )
    flat = list(chain.from_iterable(values))
    if not all(map(_is_number, set(map(type, flat)))):
        number = next(row for row, value in enumerate(flat) if not _is_number(type(value))) // 4
        raise InvalidInputError(f"number {number} of {where} must have four numbers as `{key}`; got {values[number]}")
    boxes = _floats(flat).reshape(-1, 4)
    for wrong, what in (
        (~np.isfinite(boxes).all(axis=1), "finite numbers"),
        ((boxes[:, 2:] < 0).any(axis=1), "a width and a height of 0 or more"),
    ):
        if wrong.any():
            number = int(wrong.argmax())
            raise InvalidInputError(
                f"number {number} of {where} must have {what} in `{key}`, which is [left, top, width, height]; "
                f"got {list(values[number])}"
            )
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def check_distinct(ids: Iterable[int | str], what: str, where: str) -> None:
    """Raise an `InvalidInputError` if one of the `ids` comes twice."""
    seen: set[int | str] = set()
    for each in ids:
        if each in seen:
            raise InvalidInputError(f"{where} must have distinct `{what}`s; got {each!r} twice")
        seen.add(each)


def rows_of_images(ids: Sequence[int | str], known: Sequence[int | str], where: str, images: str) -> Integers:
    """(N,) int64: for each of `ids` the position in `known`."""
    places = {each: row for row, each in enumerate(known)}
    rows = np.fromiter((places.get(each, -1) for each in ids), dtype=np.int64, count=len(ids))
    if (rows >= 0).all():
        return rows
    number = int((rows < 0).argmax())
    unknown = ids[number]
    written = {str(each): each for each in known}.get(str(unknown))
    hint = "" if written is None else f"; there it is {written!r}, of the type {type(written).__name__}"
    raise InvalidInputError(
        f"number {number} of {where} has the `image_id` {unknown!r}, which is not among the {len(known)} ids of "
        f"{images}{hint}"
    )


def _check_types(
    values: Sequence[Any], fits: Callable[[type], bool], where: str, expected: str, *, key: str | None
) -> None:
    wrong = {kind for kind in set(map(type, values)) if not fits(kind)}
    if wrong:
        number = next(number for number, value in enumerate(values) if type(value) in wrong)
        has = f"have {expected} as `{key}`" if key else f"be {expected}"
        raise InvalidInputError(f"number {number} of {where} must {has}; got {_shortened(values[number])}")


def _floats(values: Sequence[Any]) -> Floats:
    try:
        return np.fromiter(values, dtype=np.float64, count=len(values))
    except OverflowError:  # an integer of more than 300 digits
        return np.array([_float(value) for value in values], dtype=np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _is_integer(kind: type) -> bool:
    return issubclass(kind, (int, np.integer)) and kind is not bool


def _is_number(kind: type) -> bool:
    return _is_integer(kind) or issubclass(kind, (float, np.floating))


def _is_id(kind: type) -> bool:
    return _is_integer(kind) or issubclass(kind, str)


def _kind_of(value: Any) -> str:
    """How JSON calls the type of a value."""
    if isinstance(value, Mapping):
        return "an object"
    if value is None:
        return "null"
    return type(value).__name__


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
