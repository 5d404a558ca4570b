"""Which columns of a `Pool` a strategy reads, and what to do where one is missing."""

from __future__ import annotations

from collections.abc import Sequence

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool

Needs = tuple[tuple[str, ...], ...]
"""Columns that must be there. Of each inner tuple one is enough."""

CONFIDENCES: Needs = (("scores",),)
UNCERTAIN: Needs = (("probabilities", "scores"),)
EMBEDDINGS: Needs = (("box_embeddings", "frame_embeddings"),)
OBJECTS: Needs = (("box_embeddings",), ("labels",))
UNCERTAIN_OBJECTS: Needs = (*OBJECTS, *UNCERTAIN)
UNCERTAIN_CLASSES: Needs = (("labels",), ("scores", "probabilities"), *EMBEDDINGS)

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


def _either(columns: Sequence[str]) -> str:
    return " or ".join(f"`{column}`" for column in columns)
