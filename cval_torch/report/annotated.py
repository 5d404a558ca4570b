"""What a report is told of frames that are annotated already, in any of the ways in which it may be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.report.wording import visible
from cval_torch.selection.checks import check_apart


@runtime_checkable
class KnowsLabeled(Protocol):
    """What has the ids of labelled frames; `LabelPool` is one."""

    @property
    def labeled_ids(self) -> Sequence[str]:
        """The ids of the labelled frames."""
        ...


@runtime_checkable
class ForecastsGain(Protocol):
    """What knows what was measured as labels grew; `LearningCurve` is one."""

    @property
    def metrics(self) -> Sequence[str]:
        """The names of what was measured."""
        ...

    def forecast(self, metric: str, added: int) -> object | None:
        """What more frames may be expected to change, which `str` puts into words; None: not known."""
        ...


def expected_gains(labeled: object, learning_curve: ForecastsGain | None, added: int) -> list[str]:
    """In words, what each metric may be expected to change by.

    Args:
        labeled: what was annotated; a `LabelPool` has a `learning_curve`.
        learning_curve: is asked in place of that one.
        added: frames to be annotated.
    """
    curve = getattr(labeled, "learning_curve", None) if learning_curve is None else learning_curve
    if not isinstance(curve, ForecastsGain):
        return []
    found = (curve.forecast(metric, added) for metric in curve.metrics)
    return [visible(str(each)) for each in found if each is not None]


@dataclass(frozen=True)
class Annotated:
    """The frames that were annotated before the choice.

    Attributes:
        frame_ids: their ids; None: nobody said.
        pool: what the detector says of them; None: not known. Where there are none, so is this.
    """

    frame_ids: tuple[str, ...] | None = None
    pool: Pool | None = None

    @property
    def is_none(self) -> bool:
        """Whether it is known that nothing was annotated."""
        return self.frame_ids == ()

    @property
    def is_described(self) -> bool:
        """Whether everything is known of them: their predictions, or that there are none."""
        return self.is_none or self.pool is not None


def part_pool(
    pool: Pool | None, labeled: Pool | KnowsLabeled | Sequence[str] | None, chosen: Sequence[str]
) -> tuple[Annotated, Pool | None]:
    """What was annotated, and the frames of `pool` that were chosen from.

    Frames that were chosen do not count as annotated: a `LabelPool` may have them as labelled by now.

    Args:
        pool: F frames, perhaps annotated ones among them; None: not known.
        labeled: frames by the same model, or ids.
        chosen: ids.

    Raises:
        InvalidInputError: `labeled` is something else; a frame of its pool is in `pool` too, and was not chosen; a
            chosen frame is not in `pool`.
    """
    taken = set(chosen)
    if pool is not None and (strangers := taken - set(pool.frame_ids)):
        raise InvalidInputError(
            f"`pool` must hold the frames that were chosen; {min(strangers)!r} is not in it. Pass the pool that "
            "`extract` gave for the same loader"
        )
    if labeled is None:
        return Annotated(), pool
    if isinstance(labeled, Pool):
        kept = [row for row, frame_id in enumerate(labeled.frame_ids) if frame_id not in taken]
        theirs = labeled if len(kept) == len(labeled) else labeled.take(kept)
        if pool is not None:
            check_apart(pool.frame_ids, theirs)
        return Annotated(tuple(theirs.frame_ids), theirs if len(theirs) else None), pool
    found = labeled.labeled_ids if isinstance(labeled, KnowsLabeled) else labeled
    if isinstance(found, (str, bytes)) or not all(isinstance(each, str) for each in found):
        raise InvalidInputError(
            f"`labeled` must be a Pool, a LabelPool or ids, which are strings; got {type(labeled).__name__}"
        )
    ids = tuple(frame_id for frame_id in dict.fromkeys(found) if frame_id not in taken)
    if pool is None or not ids:
        return Annotated(ids), pool
    named = set(ids)
    inside = torch.tensor([frame_id in named for frame_id in pool.frame_ids], dtype=torch.bool)
    if not bool(inside.any()):
        return Annotated(ids), pool
    rows = inside.nonzero().squeeze(1)
    return Annotated(ids, pool.take(rows) if len(rows) == len(ids) else None), pool.take((~inside).nonzero().squeeze(1))
