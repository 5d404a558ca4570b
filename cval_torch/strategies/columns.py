"""Which columns of a `Pool` a strategy reads, and what to do where one is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from cval_torch.errors import InvalidInputError, callable_name
from cval_torch.pool.column_checks import BOX_COLUMNS
from cval_torch.pool.pool import Pool

Needs = tuple[tuple[str, ...], ...]
"""Columns that must be there. Of each inner tuple one is enough."""

CONFIDENCES: Needs = (("scores",),)
UNCERTAIN: Needs = (("probabilities", "scores"),)
EMBEDDINGS: Needs = (("box_embeddings", "frame_embeddings"),)
OBJECTS: Needs = (("box_embeddings",), ("labels",))
UNCERTAIN_OBJECTS: Needs = (*OBJECTS, *UNCERTAIN)
UNCERTAIN_CLASSES: Needs = (("labels",), ("scores", "probabilities"), *EMBEDDINGS)

DESCRIBED = ("labels", "scores", "box_embeddings", "frame_embeddings")
"""What the descriptor of a frame is made of."""

COLUMNS = (*BOX_COLUMNS, "frame_embeddings")
"""What a callable may need."""

_WAYS = {
    ("scores",): "extract() gives it, and payloads with `score`",
    ("labels",): "extract() gives it, and payloads with `category_id`",
    ("probabilities", "scores"): "extract() gives both, a payload one of them",
    ("scores", "probabilities"): "extract() gives both, a payload one of them",
    ("box_embeddings",): (
        "extract(..., box_embeddings=True), or upload embeddings and give boxes their `embedding_id`"
    ),
    ("box_embeddings", "frame_embeddings"): "extract(..., box_embeddings=True), or upload embeddings",
}


def check_columns(pool: Pool, needs: Needs, strategy: str, *, name: str = "pool") -> None:
    """See that a pool has the columns that a strategy reads.

    Args:
        pool: what the strategy is to look at. A pool without any boxes lacks nothing.
        needs: the columns.
        strategy: its name, for the message.
        name: what to call the pool in the message.

    Raises:
        InvalidInputError: a column is missing; the message names it and how to get it.

    >>> import torch
    >>> check_columns(Pool(["a"], torch.tensor([0, 1])), OBJECTS, "ppal")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    cval_torch.errors.InvalidInputError: 'ppal' needs the column `box_embeddings` of `pool`: extract(...
    """
    if pool.num_boxes == 0:
        return
    for columns in needs:
        if all(getattr(pool, column) is None for column in columns):
            raise InvalidInputError(f"{strategy!r} needs the column {_either(columns)} of `{name}`: {_WAYS[columns]}")


Function = TypeVar("Function", bound=Callable[..., Any])


def needs(*columns: str) -> Callable[[Function], Function]:
    """Declare which columns of a `Pool` a callable strategy looks at: a decorator.

    `select` then keeps nothing else for it, so that more frames fit into memory. A callable that declares nothing gets
    all columns. The decorator sets an attribute `needs`, which a class may also have.

    Args:
        columns: of `COLUMNS`; none for a callable that looks at ids, indices and counts alone.

    Raises:
        InvalidInputError: a column that no pool has.

    >>> @needs("scores")
    ... def surest(pool):
    ...     return [float(pool.scores[first:last].max()) for first, last in zip(pool.offsets, pool.offsets[1:])]
    >>> surest.needs
    ('scores',)
    """
    _check_names(columns, "needs")

    def declare(function: Function) -> Function:
        function.needs = columns  # type: ignore[attr-defined]
        return function

    return declare


def columns_needed(function: Callable[..., Any]) -> tuple[str, ...]:
    """What a callable declares by `needs`, or all.

    Raises:
        InvalidInputError: it declares something else than columns.
    """
    declared = getattr(function, "needs", COLUMNS)
    if isinstance(declared, str) or not isinstance(declared, Iterable):
        raise InvalidInputError(
            f"`needs` of {callable_name(function)!r} must be names of columns, such as ('scores',); got {declared!r}"
        )
    columns = tuple(declared)
    _check_names(columns, f"`needs` of {callable_name(function)!r}")
    return columns


def _check_names(columns: Sequence[Any], name: str) -> None:
    for column in columns:
        if column not in COLUMNS:
            raise InvalidInputError(f"{name} must be of {', '.join(COLUMNS)}; got {column!r}")


def _either(columns: Sequence[str]) -> str:
    return " or ".join(f"`{column}`" for column in columns)
