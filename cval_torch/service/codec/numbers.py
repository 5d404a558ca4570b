"""Numbers as the wire has them: few digits, and scores strictly between 0 and 1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cval_torch.service.decimals import Doubles, shortest_doubles

NO_DETECTION = -1
LOWEST_SCORE = 1e-300
HIGHEST_SCORE = 1 - 2.0**-53


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
    return shortest_doubles(column.to(torch.float32).numpy())


def inner_scores(column: Tensor) -> Doubles:
    """Scores in [0, 1] as short decimals strictly between 0 and 1; in float32 they are the same numbers."""
    return np.clip(short_decimals(column), LOWEST_SCORE, HIGHEST_SCORE)
