"""`Standard`: means and deviations of vectors, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.strategies.exact_sums import FixedPoint
from cval_torch.strategies.parts import Part, workers_of
from cval_torch.strategies.points import Points, blocks_of


@dataclass(frozen=True, eq=False)
class Standard:
    """Means and deviations (D,) of points, float64. They are the same in whatever processes the points lie."""

    middle: Tensor
    spread: Tensor

    @classmethod
    def of(cls, pools: Sequence[Points | None]) -> Standard | None:
        """Those of all points of one or more clouds, (N, D) each; None if one of these is None.

        >>> found = Standard.of([torch.tensor([[3.0], [3.0]]), torch.tensor([[5.0], [5.0]])])
        >>> found and (found.middle, found.spread)
        (tensor([4.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
        """
        clouds = [points for points in pools if points is not None]
        if len(clouds) < len(pools):
            return None
        shares, device = [workers_of(points, _Share) for points in clouds], clouds[0].device
        count = sum(map(len, clouds))
        largest = torch.stack([most.to(device) for share in shares for most in share.each(_Share.largest)]).amax(0)
        # Numbers are brought below 1, coordinate by coordinate, so that small coordinates keep their digits.
        scale = torch.pow(torch.tensor(2.0, dtype=torch.float64, device=device), -torch.frexp(largest).exponent)

        def total(point: FixedPoint, around: Tensor | None) -> Tensor:
            words = [share.total(_Share.sums, point, scale, around).to(device) for share in shares]
            return point.value(torch.stack(words).sum(0))[0]

        middle = total(FixedPoint(1.0, count, fine=True), None) / count
        squares = total(FixedPoint(4.0, count, fine=True), middle)
        spread = (squares / count).sqrt() / scale
        return cls(middle / scale, spread.clamp_min(torch.finfo(torch.float64).tiny))

    def standardised(self, points: Tensor) -> Tensor:
        """(r, D) float64, of (r, D) points, float64, which are written over."""
        return points.sub_(self.middle).div_(self.spread)


class _Share:
    """The points of one process."""

    def __init__(self, part: Part) -> None:
        self.points = part.points

    def largest(self) -> Tensor:
        """(D,) float64, the greatest absolute values."""
        most = torch.zeros(self.points.shape[1], dtype=torch.float64, device=self.points.device)
        for _, block in blocks_of(self.points):
            most = torch.maximum(most, block.abs().amax(0).double())
        return most

    def sums(self, point: FixedPoint, scale: Tensor, around: Tensor | None) -> Tensor:
        """The words of the sums of the scaled points, or of their squared differences from (D,) `around`."""
        device = self.points.device
        words = point.zeros(1, self.points.shape[1], device=device)
        scale, around = scale.to(device), None if around is None else around.to(device)
        for _, block in blocks_of(self.points):
            values = block.double() * scale
            if around is not None:
                values = values.sub_(around).square_()
            point.add(words, values, torch.zeros(len(values), dtype=torch.int64, device=device))
        return words
