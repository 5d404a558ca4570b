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
    if _are_finite(maps):
        return
    broken = [_first_frame(values) for values in maps if not is_finite(values)]
    if broken:
        raise NotFiniteError(min(broken), what)


class FiniteChecks:
    """Several of these checks, which wait for the device once if all is well. `check` makes them, in their order.

    >>> checks = FiniteChecks().maps([torch.ones(2, 3)], "a map").rows(torch.ones(2), torch.tensor([0, 1]), "rows")
    >>> checks.check()
    """

    def __init__(self) -> None:
        self._asked: list[tuple[list[Tensor], Tensor | None, str]] = []

    def maps(self, maps: Iterable[Tensor], what: str) -> FiniteChecks:
        """Add `check_maps`."""
        self._asked.append((list(maps), None, what))
        return self

    def rows(self, values: Tensor, frames: Tensor, what: str) -> FiniteChecks:
        """Add `check_rows`."""
        self._asked.append(([values], frames, what))
        return self

    def check(self) -> None:
        """Make them all. Raises a `NotFiniteError` as the first of them that fails."""
        if _are_finite([values for several, _, _ in self._asked for values in several]):
            return
        for several, frames, what in self._asked:
            if frames is None:
                check_maps(several, what)
            else:
                check_rows(several[0], frames, what)


def is_finite(values: Tensor) -> bool:
    """Whether `values` has neither NaN nor inf."""
    if not values.is_floating_point():
        return True
    # A sum is the cheapest look at everything: it is not finite if one of its terms is not. The other way round it
    # may have overflowed, so only then every number is asked.
    return bool(_sum(values).isfinite()) or bool(values.isfinite().all())


def _are_finite(several: list[Tensor]) -> bool:
    """Whether all sums are finite, and so all numbers; with one wait for the device, however many tensors there are."""
    sums = [_sum(values) for values in several if values.is_floating_point()]
    return not sums or bool(torch.stack([each.to(sums[0].device, torch.float32) for each in sums]).isfinite().all())


def _sum(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.promote_types(values.dtype, torch.float32))


def _first_frame(values: Tensor) -> int:
    return int((~values.isfinite()).flatten(1).any(1).nonzero()[0, 0])
