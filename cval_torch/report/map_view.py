"""A map of the pool: where the chosen and the annotated frames lie among the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.report.neighbours import Places
from cval_torch.report.plane import MapMethod, plane_of
from cval_torch.report.wording import counted, visible

SIDE = 400
_MARGIN = 12
MOST_POOL, MOST_ANNOTATED, MOST_CHOSEN = 3000, 1000, 1000


@dataclass(frozen=True)
class MapView:
    """Points in a square of `SIDE`.

    Attributes:
        pool: a path of SVG, one dot a frame of the pool.
        annotated: the same of annotated frames.
        chosen: places of the chosen frames in rank order.
        names: ids of the frames of `pool`, then of those of `annotated`.
        points: their places, x and y in turn.
        num_pool: how many of the names are of the pool.
        said: how the map was made and what was left out.
    """

    pool: str
    annotated: str
    chosen: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    points: tuple[int, ...]
    num_pool: int
    said: str


def map_view(
    places: Places, pool: Pool, chosen: Tensor, annotated: Pool | None, *, method: MapMethod, seed: int
) -> MapView:
    """Lay out the pool in a plane, thinned to some thousand frames.

    Args:
        places: where the frames lie.
        pool: F frames.
        chosen: (n,) rows of it, in rank order.
        annotated: annotated frames; None: none are known.
        method: see `plane_of`.
        seed: of the thinning, by the order of ids, and of the method.
    """
    is_chosen = torch.zeros(len(pool), dtype=torch.bool)
    is_chosen[chosen] = True
    rest = _thinned(pool, (~is_chosen).nonzero().squeeze(1).tolist(), MOST_POOL, seed)
    theirs = [] if annotated is None else _thinned(annotated, list(range(len(annotated))), MOST_ANNOTATED, seed)
    first = chosen[:MOST_CHOSEN]
    rows = torch.cat([torch.tensor(rest, dtype=torch.int64), first])
    plane = plane_of(places.vectors(rows, theirs), method, seed=seed)
    dots = (_MARGIN + plane.points * (SIDE - 2 * _MARGIN)).round().long().tolist()
    ours, taken, others = dots[: len(rest)], dots[len(rest) : len(rows)], dots[len(rows) :]
    names = [visible(pool.frame_ids[row]) for row in rest]
    names += [] if annotated is None else [visible(annotated.frame_ids[row]) for row in theirs]
    said = plane.said
    if (left := int((~is_chosen).sum()) - len(rest)) > 0:
        said += (
            f" Of the frames that were not chosen {len(rest):,} are shown, drawn with seed {seed}, and {left:,} not."
        )
    if annotated is not None and len(theirs) < len(annotated):
        said += f" Of {counted(len(annotated), 'annotated frame')} {len(theirs):,} are shown."
    if len(first) < len(chosen):
        said += f" Of {len(chosen):,} chosen frames the first {len(first):,} are shown."
    return MapView(
        _dots(ours),
        _dots(others),
        tuple((x, y) for x, y in taken),
        tuple(names),
        tuple(number for dot in [*ours, *others] for number in dot),
        len(ours),
        said,
    )


def _thinned(pool: Pool, rows: list[int], most: int, seed: int) -> list[int]:
    if len(rows) <= most:
        return rows
    by_id = sorted(rows, key=pool.frame_ids.__getitem__)
    drawn = torch.randperm(len(by_id), generator=torch.Generator().manual_seed(seed))[:most]
    return sorted(by_id[place] for place in drawn.tolist())


def _dots(dots: list[list[int]]) -> str:
    return "".join(f"M{x} {y}h0" for x, y in dots)
