"""NaN and inf in what a detector computes. A score threshold drops them silently, so they are looked for before it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError


class NotFiniteError(InvalidInputError):
    """A number of one frame is NaN or inf.

    Attributes:
        place: the frame's position in the batch.
        what: what has the number, such as "the class logits".
    """

    def __init__(self, place: int, what: str) -> None:
        super().__init__(f"NaN or inf in {what} of image {place} of the batch")
        self.place, self.what = place, what


def check_rows(values: Tensor, frames: Tensor, what: str) -> None:
    """Make sure that every number of `values (R, ...)` is finite; `frames (R,)` are the frames of the rows.

    Raises:
        NotFiniteError: for the first row that has NaN or inf.
    """
    if not is_finite(values):
        first = (~values.isfinite()).flatten(1).any(1).nonzero()[0, 0]
        raise NotFiniteError(int(frames[first]), what)


def check_maps(maps: Iterable[Tensor], what: str) -> None:
    """Make sure that every number of `maps`, each (N, ...), is finite.

    Raises:
        NotFiniteError: for the first frame that has NaN or inf.
    """
    maps = [values for values in maps if values.is_floating_point()]
    sums = [_sum(values).to(maps[0].device, torch.float32) for values in maps]
    if not sums or bool(torch.stack(sums).isfinite().all()):
        return  # the one wait for the device, however many maps there are
    broken = [_first_frame(values) for values in maps if not is_finite(values)]
    if broken:
        raise NotFiniteError(min(broken), what)


def is_finite(values: Tensor) -> bool:
    """Whether `values` has neither NaN nor inf."""
    if not values.is_floating_point():
        return True
    # A sum is the cheapest look at everything: it is not finite if one of its terms is not. The other way round it
    # may have overflowed, so only then every number is asked.
    return bool(_sum(values).isfinite()) or bool(values.isfinite().all())


def _sum(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.promote_types(values.dtype, torch.float32))


def _first_frame(values: Tensor) -> int:
    return int((~values.isfinite()).flatten(1).any(1).nonzero()[0, 0])
