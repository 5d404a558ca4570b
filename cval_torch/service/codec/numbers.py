"""Numbers as the wire has them: few digits, and scores strictly between 0 and 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Doubles = npt.NDArray[np.float64]

NO_DETECTION = -1
LOWEST_SCORE = 1e-300
HIGHEST_SCORE = 1 - 2.0**-53

_BLOCK = 1 << 15  # elements at a time: intermediates stay in the cache
_EXACT_POWER = 22  # 10**22 is the largest power of ten that a double holds exactly


def short_decimals(column: Tensor) -> Doubles:
    """Doubles that are the same float32 numbers, and that print with few digits.

    Args:
        column: any shape, on the CPU. float64 is returned as it is; half precision is first widened to float32.

    Returns:
        The same shape. For a float32 `x`, `float32(result) == x`, and `repr(result)` has at most 9 significant
        digits unless `x` is so small or large (beyond about 1e-14 and 1e22) that it is left with all of a double's.

    >>> short_decimals(torch.tensor([0.1, 0.25])).tolist(), torch.tensor(0.1).double().item()
    ([0.1, 0.25], 0.10000000149011612)
    """
    if column.dtype == torch.float64:
        return column.numpy()
    values = column.to(torch.float32).contiguous().numpy()
    result = values.astype(np.float64)
    flat, singles = result.reshape(-1), values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        _shorten(flat[start : start + _BLOCK], singles[start : start + _BLOCK])
    return result


def inner_scores(column: Tensor) -> Doubles:
    """Scores in [0, 1] as short decimals strictly between 0 and 1; in float32 they are the same numbers."""
    return np.clip(short_decimals(column), LOWEST_SCORE, HIGHEST_SCORE)


def _shorten(doubles: Doubles, singles: npt.NDArray[np.float32]) -> None:
    """Round each double, in place, to 8 significant digits if its float32 is then the same, else to 9."""
    with np.errstate(divide="ignore"):
        magnitudes = np.floor(np.log10(np.abs(doubles)))
    todo = np.flatnonzero(np.abs(magnitudes) <= _EXACT_POWER - 8)  # leaves out 0, whose logarithm is -inf
    for digits in (8, 9):
        places = digits - 1 - magnitudes[todo]
        # a whole number over (or times) an exact power of ten is the double nearest to that decimal, so it prints short
        scale = np.power(10.0, np.abs(places))
        down = places < 0
        whole = np.rint(np.where(down, doubles[todo] / scale, doubles[todo] * scale))
        rounded = np.where(down, whole * scale, whole / scale)
        same = rounded.astype(np.float32) == singles[todo]
        doubles[todo[same]] = rounded[same]
        todo = todo[~same]
        if not todo.size:
            return
