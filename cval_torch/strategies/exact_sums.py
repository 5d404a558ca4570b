"""`FixedPoint`: sums by label that are the same in whatever order the numbers come."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Integers of a sum are below 2^52, which float64 adds without rounding, and several times as fast as int64 is added.
_BITS = 52


@dataclass(frozen=True)
class FixedPoint:
    """Sums in fixed point: numbers are cut off once, and integers are added without rounding.

    Floating-point sums depend on the order of the numbers in their last bits. These do not, so that processes may add
    up what they have, and their sums may be added up.

    Attributes:
        largest: no number is greater, nor its negative.
        count: so many numbers go into a sum at the most.
        fine: whether numbers that are far smaller than `largest` matter, where they are among themselves: two words are
            kept of each sum, and not one. A word of a million numbers has 32 bits of the largest.

    >>> point = FixedPoint(largest=3.0, count=3)
    >>> words = point.zeros(2, 1, device="cpu")
    >>> point.add(words, torch.tensor([[1.0], [0.5], [-3.0]]), torch.tensor([0, 0, 1]))
    >>> point.value(words)
    tensor([[ 1.5000],
            [-3.0000]], dtype=torch.float64)
    """

    largest: float
    count: int
    fine: bool = False

    @property
    def _scales(self) -> list[float]:
        """By what a number is multiplied for the first word, and what is left of it for the next."""
        bits = max(self.count, 1).bit_length()  # count < 2^bits
        exponent = math.frexp(self.largest)[1]  # largest < 2^exponent
        return [2.0 ** (_BITS - bits - exponent)] + [2.0 ** (_BITS - bits)] * self.fine

    def zeros(self, sums: int, width: int, *, device: torch.device | str) -> Tensor:
        """(w, K, D) float64 integers, the words of K sums of D numbers each. They can be added to those of others."""
        return torch.zeros(len(self._scales), sums, width, dtype=torch.float64, device=device)

    def add(self, words: Tensor, values: Tensor, labels: Tensor) -> None:
        """Add (r, D) values to (w, K, D) `words` in place, each row to the sum that (r,) `labels` says."""
        first, *others = self._scales
        rest = values * first  # a power of two: exact
        for word, scale in zip(words, others, strict=False):
            whole = rest.trunc()
            word.index_add_(0, labels, whole.double())
            rest.sub_(whole).mul_(scale)
        words[-1].index_add_(0, labels, rest.trunc_().double())

    def value(self, words: Tensor) -> Tensor:
        """(K, D) float64, the sums that some words are."""
        total, unit = torch.zeros(words.shape[1:], dtype=torch.float64, device=words.device), 1.0
        for word, scale in zip(words, self._scales, strict=True):
            unit /= scale
            total += word * unit
        return total
