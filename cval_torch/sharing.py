"""How the batches of one pass are dealt among processes, and how their rows come together again.

A batch is never split, and goes to one process whole, so what is read of it does not depend on how many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cval_torch.distributed import Ranks
from cval_torch.errors import InvalidInputError, LoaderOrderError
from cval_torch.gathering import FRAME_COLUMNS, Layout
from cval_torch.identity import changes, dataset_identity
from cval_torch.loading import LoadingPlan, plan_loading, shard_of
from cval_torch.pool import Pool, offsets_of, places_of


@dataclass(frozen=True)
class Shares:
    """One plan for all processes.

    Attributes:
        plan: the batches of all processes together, in the order of the whole; the loader is this process's.
        owners: the rank of each batch; None where there are no batches to count (a stream, in one process).
    """

    plan: LoadingPlan
    owners: list[int] | None

    def numbers(self, rank: int) -> list[int] | None:
        """Which batches `rank` is to infer; None: all there are."""
        return None if self.owners is None else [n for n, owner in enumerate(self.owners) if owner == rank]

    def places(self, rank: int) -> list[int]:
        """For each frame that `rank` infers, in order, its row in the whole."""
        places: list[int] = []
        start = 0
        for batch, owner in zip(self.plan.batches or (), self.owners or (), strict=True):
            places += range(start, start + len(batch)) if owner == rank else ()
            start += len(batch)
        return places


def deal(loader: Iterable[Any], ranks: Ranks) -> Shares:
    """Agree on one plan, and on who infers what of it.

    Loaders that yield the same frames in every process, in whatever order: rank 0's plan is everybody's, and its
    batches are dealt in turn. Loaders that have a `DistributedSampler`, or that yield disjoint frames: each process
    keeps its own batches, less the frames that another had before it (padding).

    Raises:
        LoaderOrderError: the processes' loaders overlap in part, without a `DistributedSampler` that says why; their
            samplers leave a rank out; or a stream, whose frames have no rows.
        InvalidInputError: the processes' datasets differ.
        RankError: another process failed.
    """
    if ranks.size == 1:
        plan = plan_loading(loader)
        return Shares(plan, None if plan.batches is None else [0] * len(plan.batches))
    plans: list[LoadingPlan] = []

    def look() -> dict[str, Any]:
        plans.append(_with_rows(plan_loading(loader)))
        rows = [row for batch in plans[0].batches or () for row in batch]
        return {
            "dataset": dataset_identity(plans[0].dataset),
            "shard": shard_of(loader),
            "frames": hashlib.sha256(torch.tensor(sorted(rows), dtype=torch.int64).numpy().tobytes()).hexdigest(),
        }

    seen = ranks.exchange(look)
    for rank, view in enumerate(seen):
        form = f"{{name}} is {{old}} in rank 0 and {{new}} in rank {rank}"
        if differing := changes(seen[0]["dataset"], view["dataset"], form=form):
            raise InvalidInputError(
                f"the processes' datasets differ: {'; '.join(differing)}. Give each the same: frames are dealt among "
                "the processes without your help"
            )
    plan = plans[0]
    shards = [view["shard"] for view in seen]
    if all(shard is None for shard in shards) and len({view["frames"] for view in seen}) == 1:
        batches = ranks.from_rank_zero(lambda: plan.batches or [])
        return Shares(replace(plan, batches=batches), [number % ranks.size for number in range(len(batches))])
    _check_shards(shards)
    batches, owners = _interleaved(ranks.exchange(lambda: plan.batches or []), disjoint=shards[0] is None)
    return Shares(replace(plan, batches=batches), owners)


def _with_rows(plan: LoadingPlan) -> LoadingPlan:
    if plan.batches is None:
        raise LoaderOrderError(
            "a stream's frames have no rows, so it cannot be told whether two processes infer the same ones; give a "
            "dataset with rows, or pass `distributed=False` and put the processes' pools together yourself"
        )
    return plan


def _check_shards(shards: Sequence[tuple[int, int] | None]) -> None:
    """Samplers that shard must leave no rank out; two of one rank are one share twice."""
    if all(shard is None for shard in shards):
        return
    given = {shard for shard in shards if shard is not None}
    sizes = {size for _, size in given}
    if None in shards or len(sizes) != 1 or {rank for rank, _ in given} != set(range(*sizes)):
        told = ", ".join("none" if shard is None else f"{shard[0]} of {shard[1]}" for shard in shards)
        raise LoaderOrderError(
            f"the processes' DistributedSamplers must make up all shares; they are for the ranks: {told}"
        )


def _interleaved(all_batches: Sequence[list[list[int]]], *, disjoint: bool) -> tuple[list[list[int]], list[int]]:
    """The processes' batches in turn, each row once; `disjoint`: an error if it comes twice."""
    seen: dict[int, int] = {}
    batches, owners = [], []
    for turn in range(max(map(len, all_batches), default=0)):
        for rank, own in enumerate(all_batches):
            drawn = own[turn] if turn < len(own) else []
            if disjoint and (twice := [row for row in drawn if row in seen]):
                raise LoaderOrderError(
                    f"the processes' loaders yield different frames, but row {twice[0]} is drawn by ranks "
                    f"{seen[twice[0]]} and {rank}: are the samplers' seeds different? Give every process a loader of "
                    "the same frames, or of its own share by a DistributedSampler"
                )
            if batch := [row for row in drawn if row not in seen]:
                seen.update(dict.fromkeys(batch, rank))
                batches.append(batch)
                owners.append(rank)
    return batches, owners


def empty_pool(layout: Layout) -> Pool:
    """A pool of no frames with these columns."""
    columns: dict[str, Any] = {
        name: torch.empty(0 if width is None else (0, width), dtype=dtype) for name, dtype, width in layout.columns
    }
    return Pool([], torch.zeros(1, dtype=torch.int64), activation=layout.activation, **columns)


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
    shares = ranks.exchange(lambda: (list(places), list(pool.frame_ids), pool.counts.tolist()))
    frame_ids = [""] * sum(len(rows) for rows, _, _ in shares)
    counts = torch.zeros(len(frame_ids), dtype=torch.int64)
    for rows, ids, boxes in shares:
        counts[torch.tensor(rows, dtype=torch.int64)] = torch.tensor(boxes, dtype=torch.int64)
        for row, frame_id in zip(rows, ids, strict=True):
            frame_ids[row] = frame_id
    offsets = offsets_of(counts)
    receiving = to is None or to == ranks.rank
    whole = ranks.exchange_local(lambda: _room_for(layout, offsets) if receiving else {})
    for source, (rows, _, _) in enumerate(shares):
        frame_rows = torch.tensor(rows, dtype=torch.int64)
        box_rows, _ = places_of(offsets, frame_rows)
        for name, dtype, width in layout.columns:
            target = frame_rows if name in FRAME_COLUMNS else box_rows
            step = max(2**26 // (dtype.itemsize * (width or 1)), 1)
            for start in range(0, len(target), step):
                part = target[start : start + step]
                if ranks.rank == source:
                    piece = getattr(pool, name)[start : start + step].contiguous()
                else:
                    piece = torch.empty((len(part),) if width is None else (len(part), width), dtype=dtype)
                ranks.send(piece, source=source, to=to)
                if receiving:
                    whole[name][part] = piece
    if not receiving:
        ranks.exchange(lambda: None)  # in which they hear how the others fare below
        return pool
    return ranks.exchange_local(lambda: Pool(frame_ids, offsets, activation=layout.activation, **whole))


def _room_for(layout: Layout, offsets: Tensor) -> dict[str, Any]:
    frames, boxes = len(offsets) - 1, int(offsets[-1])
    rows = {name: frames if name in FRAME_COLUMNS else boxes for name, _, _ in layout.columns}
    return {
        name: torch.empty(rows[name] if width is None else (rows[name], width), dtype=dtype)
        for name, dtype, width in layout.columns
    }
