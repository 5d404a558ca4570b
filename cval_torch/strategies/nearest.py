"""Distances to centres, of which each depends on its own row and the centres alone.

Matrix products round differently with the shape of a block, so that what is nearest by a hair may change with the rows
that are looked at beside it. Here a product only says which centres may be the nearest. Where there are several, and
for the distance itself, differences decide.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Squared distances below this share of the squared lengths are rounding (expanded square): the same point.
SAME_POINT = {torch.float32: 1e-5, torch.float64: 1e-12}
# By this share of the squared lengths, times the root of the width, a product may be wrong: some standard deviations.
_ROUNDING = {torch.float32: 2.0**-22, torch.float64: 2.0**-51}
_BLOCK_ELEMENTS = 2**20


def squared_distances(rows: Tensor, centres: Tensor, row_squares: Tensor | None = None) -> Tensor:
    """(N, k) squared distances in their precision, exactly 0 where rounding cannot tell two points apart.

    Points should lie about the origin: expanded squares lose the digits that all of them share. `row_squares` are the
    (N,) squared lengths of the rows, for who has them.
    """
    row_squares = (rows * rows).sum(1) if row_squares is None else row_squares
    return expanded_distances(rows, row_squares, centres, (centres * centres).sum(1))


def expanded_distances(rows: Tensor, row_squares: Tensor, centres: Tensor, centre_squares: Tensor) -> Tensor:
    """As `squared_distances`, of rows and centres whose squared lengths are known."""
    lengths = row_squares[:, None] + centre_squares
    distances = torch.addmm(lengths, rows, centres.T, alpha=-2)
    return distances.masked_fill_(distances <= SAME_POINT[rows.dtype] * lengths, 0)


def closest_of(rows: Tensor, row_squares: Tensor, centres: Tensor, closest: Tensor) -> Tensor:
    """(N,) squared distances of rows to the nearest of (k, D) centres, or `closest` (N,), where that is less."""
    for begin in range(0, len(centres), 256):
        distances = squared_distances(rows, centres[begin : begin + 256], row_squares)
        closest = torch.minimum(closest, distances.amin(1))
    return closest


def nearest_centres(rows: Tensor, centres: Tensor, squares: Tensor) -> Tensor:
    """(r,) int64, the nearest of (k, D) centres to each of (r, D) rows; of equally near ones the first.

    Args:
        rows: about the origin.
        centres: at least one.
        squares: (k,) their squared lengths.
    """
    partial = torch.addmm(squares, rows, centres.T, alpha=-2)  # without the row's own length, which moves no minimum
    least, labels = partial.min(1)
    share = _ROUNDING[rows.dtype] * math.sqrt(rows.shape[1] + 1)
    bound = least + 2 * share * ((rows * rows).sum(1) + squares.amax())
    partial.scatter_(1, labels[:, None], torch.inf)
    doubtful = (partial.amin(1) <= bound).nonzero().squeeze(1)
    if len(doubtful):
        some = partial[doubtful].scatter_(1, labels[doubtful, None], -torch.inf)
        pairs = (some <= bound[doubtful, None]).nonzero()
        labels[doubtful] = _nearest_by_differences(rows[doubtful], centres, pairs)
    return labels


def distances_to_own(rows: Tensor, centres: Tensor, squares: Tensor, labels: Tensor) -> Tensor:
    """(r,) squared distances of (r, D) rows to the centres at (r,) `labels`, by differences.

    0 where expanded squares could not tell two points apart.
    """
    distances = (rows - centres[labels]).square_().sum(1)
    same = distances <= SAME_POINT[rows.dtype] * ((rows * rows).sum(1) + squares[labels])
    return distances.masked_fill_(same, 0)


def _nearest_by_differences(rows: Tensor, centres: Tensor, pairs: Tensor) -> Tensor:
    """(r,) of each row the nearest of the centres that (p, 2) `pairs` name for it; each row has one."""
    owners, columns = pairs.unbind(1)
    distances = torch.empty(len(pairs), dtype=torch.float64, device=rows.device)
    step = max(_BLOCK_ELEMENTS // max(rows.shape[1], 1), 1)
    for begin in range(0, len(pairs), step):
        some = slice(begin, begin + step)
        distances[some] = (rows[owners[some]].double() - centres[columns[some]]).square_().sum(1)
    least = distances.new_full((len(rows),), torch.inf).scatter_reduce_(0, owners, distances, "amin")
    first = distances == least[owners]
    found = columns.new_full((len(rows),), len(centres))
    return found.scatter_reduce_(0, owners[first], columns[first], "amin")
