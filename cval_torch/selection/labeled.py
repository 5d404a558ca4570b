"""`Labeled`: of frames that are annotated already, what stages look at; a `Pool` has all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cval_torch.pool.pool import Pool
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.descriptor import Descriptors, check_described

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Labeled:
    """L annotated frames as some stages look at them. It is much smaller than a `Pool` with embeddings of boxes.

    Attributes:
        frame_ids: L ids.
        vectors: where the frames lie, for strategies that see vectors, and for a `min_distance`; else None.
        contents: for strategies that see these; else None.
        pool: the frames themselves, for strategies that see boxes; else None.
    """

    frame_ids: Sequence[str]
    vectors: Descriptors | None = None
    contents: Contents | None = None
    pool: Pool | None = None

    def __len__(self) -> int:
        return len(self.frame_ids)


def vectors_of(labeled: Pool | Labeled | None) -> Descriptors | None:
    """Where annotated frames lie; None if there are none.

    Raises:
        InvalidInputError: a pool without embeddings.
        ValueError: a `Labeled` that was made for other stages.
    """
    if labeled is None:
        return None
    return Descriptors.of(labeled, part=True) if isinstance(labeled, Pool) else _known(labeled.vectors)


def contents_of(labeled: Pool | Labeled | None) -> Contents | None:
    """The contents of annotated frames; None if there are none.

    Raises:
        InvalidInputError: a column is missing.
        ValueError: a `Labeled` that was made for other stages.
    """
    if labeled is None:
        return None
    if isinstance(labeled, Pool):
        return Contents.of(labeled, name="labeled")
    contents = _known(labeled.contents)
    check_described(contents.descriptors)
    return contents


def boxes_of(labeled: Pool | Labeled | None) -> Pool | None:
    """The annotated frames themselves; None if there are none.

    Raises:
        ValueError: a `Labeled` that was made for other stages.
    """
    return labeled if labeled is None or isinstance(labeled, Pool) else _known(labeled.pool)


def _known(part: T | None) -> T:
    if part is None:
        raise ValueError("this `Labeled` was made for stages that look at something else")
    return part
