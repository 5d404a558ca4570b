"""Pools of several processes, brought together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.column_checks import rows_of
from cval_torch.pool.layout import Layout
from cval_torch.pool.offsets import offsets_of, places_of
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks


def empty_pool(layout: Layout) -> Pool:
    """A pool of no frames with these columns."""
    columns: dict[str, Any] = {
        name: torch.empty(0 if width is None else (0, width), dtype=dtype) for name, dtype, width in layout.columns
    }
    return Pool(
        [], torch.zeros(1, dtype=torch.int64), activation=layout.activation, ids_from=layout.ids_from, **columns
    )


def same_layout(pool: Pool | None, ranks: Ranks) -> Pool:
    """This process's pool; of no frames, but with the others' columns, where it had none.

    Raises:
        InvalidInputError: no process has a frame; or their columns differ.
    """
    layouts = ranks.exchange(lambda: None if pool is None else Layout.of(pool))
    first = next((layout for layout in layouts if layout is not None), None)
    if first is None:
        raise InvalidInputError("`loader` must yield at least one frame; got none")
    for rank, layout in enumerate(layouts):
        if layout is not None and layout != first:
            try:
                first.check_same(layout)
            except InvalidInputError as error:
                raise InvalidInputError(f"the processes' columns differ, in rank {rank}: {error}") from error
    return empty_pool(first) if pool is None else pool


def gather_pools(pool: Pool, places: Sequence[int], ranks: Ranks, *, to: int | None = None) -> Pool:
    """Bring the pools of all processes together as one.

    Args:
        pool: this process's frames; all processes have the same columns.
        places: for each of them its row in the whole. Those of all processes together are `range(F)`.
        ranks: the processes; all must call this.
        to: the rank that gets the whole; the others get `pool` back. None: every process gets it.

    Raises:
        InvalidInputError: an id twice among the frames of all.
        RankError: another process failed, or ran out of memory.
    """
    if ranks.size == 1:
        return pool.take(torch.tensor(places).argsort())
    layout = Layout.of(pool)
    of_boxes = [pool.offsets] if pool.embedded is None else [pool.offsets, pool.embedded_offsets]
    own_counts = torch.stack([each.diff() for each in of_boxes], 1)
    shares = ranks.exchange(lambda: (list(places), list(pool.frame_ids), own_counts.tolist()))
    frame_ids = [""] * sum(len(rows) for rows, _, _ in shares)
    counts = own_counts.new_zeros(len(frame_ids), len(of_boxes))
    for rows, ids, theirs in shares:
        counts[torch.tensor(rows, dtype=torch.int64)] = torch.tensor(theirs, dtype=torch.int64).view(-1, len(of_boxes))
        for row, frame_id in zip(rows, ids, strict=True):
            frame_ids[row] = frame_id
    offsets, embedded_offsets = offsets_of(counts[:, 0]), offsets_of(counts[:, -1])
    places_by_rank = [torch.tensor(rows, dtype=torch.int64) for rows, _, _ in shares]
    boxes_by_rank = [places_of(offsets, rows)[0] for rows in places_by_rank]
    embedded_by_rank = [places_of(embedded_offsets, rows)[0] for rows in places_by_rank]
    whole: dict[str, Any] = {}
    for name, _, _ in layout.columns:
        targets = rows_of(name, frames=places_by_rank, boxes=boxes_by_rank, embedded=embedded_by_rank)
        whole[name] = gather_rows(getattr(pool, name), targets, ranks, to=to)
    if to is not None and to != ranks.rank:
        ranks.exchange(lambda: None)  # in which they hear how the others fare below
        return pool
    return ranks.exchange_local(
        lambda: Pool(frame_ids, offsets, activation=layout.activation, ids_from=layout.ids_from, **whole)
    )


def gather_rows(column: Tensor, places: Sequence[Tensor], ranks: Ranks, *, to: int | None = None) -> Tensor:
    """Bring the rows of a column of all processes together.

    Args:
        column: (n, ...), this process's; of one dtype and width in all of them.
        places: for each rank the (n,) int64 places of its rows in the whole, which together are `range(N)`.
        ranks: the processes; all must call this.
        to: the rank that gets the whole; the others get no rows. None: every process gets it.

    Raises:
        RankError: another process failed, or ran out of memory.
    """
    receiving = to is None or to == ranks.rank
    rows = sum(map(len, places)) if receiving else 0
    whole = ranks.exchange_local(lambda: column.new_empty(rows, *column.shape[1:]))
    step = max(2**26 // max(column.element_size() * math.prod(column.shape[1:]), 1), 1)  # the same in all processes
    for source, targets in enumerate(places):
        for start in range(0, len(targets), step):
            part = targets[start : start + step]
            if ranks.rank == source:
                piece = column[start : start + step].contiguous()
            else:
                piece = column.new_empty(len(part), *column.shape[1:])
            ranks.send(piece, source=source, to=to)
            if receiving:
                whole[part] = piece
    return whole
