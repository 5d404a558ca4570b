"""Numbers with few digits that are the same float32 numbers. It needs numpy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_BLOCK = 1 << 15  # elements at a time: intermediates stay in the cache
_EXACT_POWER = 22  # 10**22 is the largest power of ten that a double holds exactly


def shortest_doubles(values: npt.NDArray[np.float32]) -> Doubles:
    """Doubles that are the same float32 numbers, and that print with few digits.

    Args:
        values: any shape.

    Returns:
        The same shape. For a float32 `x`, `float32(result) == x`, and `repr(result)` has at most 9 significant
        digits unless `x` is so small or large (beyond about 1e-14 and 1e22) that it is left with all of a double's.

    >>> shortest_doubles(np.array([0.1, 0.25], dtype=np.float32)).tolist()
    [0.1, 0.25]
    """
    singles = np.ascontiguousarray(values)
    result = singles.astype(np.float64)
    flat = result.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        _shorten(flat[start : start + _BLOCK], singles.reshape(-1)[start : start + _BLOCK])
    return result


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
