"""How the batches of one pass are dealt among processes, and how their rows come together again.

A batch is never split, and goes to one process whole, so what is read of it does not depend on how many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cval_torch.errors import InvalidInputError, LoaderOrderError
from cval_torch.extraction.identity import changes, dataset_identity
from cval_torch.extraction.loading import LoadingPlan, plan_loading, share_of
from cval_torch.pool.ranks import Ranks


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

    def places(self, rank: int, *, without: Collection[int] = ()) -> list[int]:
        """For each frame that `rank` infers, in order, its row in the whole.

        Args:
            rank: the process.
            without: rows of the dataset that are left out, of all processes; the whole has no place for them.
        """
        places: list[int] = []
        start = 0
        for batch, owner in zip(self.plan.batches or (), self.owners or (), strict=True):
            left = len(batch) - sum(row in without for row in batch) if without else len(batch)
            places += range(start, start + left) if owner == rank else ()
            start += left
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
            "share": share_of(loader),
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
    told = [view["share"] for view in seen]
    if all(share is None for share in told) and len({view["frames"] for view in seen}) == 1:
        batches = ranks.from_rank_zero(lambda: plan.batches or [])
        return Shares(replace(plan, batches=batches), [number % ranks.size for number in range(len(batches))])
    _check_samplers(told)
    batches, owners = _interleaved(ranks.exchange(lambda: plan.batches or []), disjoint=told[0] is None)
    return Shares(replace(plan, batches=batches), owners)


def _with_rows(plan: LoadingPlan) -> LoadingPlan:
    if plan.batches is None:
        raise LoaderOrderError(
            "a stream's frames have no rows, so it cannot be told whether two processes infer the same ones; give a "
            "dataset with rows, or pass `distributed=False` and put the processes' pools together yourself"
        )
    return plan


def _check_samplers(told: Sequence[tuple[int, int] | None]) -> None:
    """The samplers of all processes must make up the whole: none may be left out, and none may come twice."""
    if all(share is None for share in told):
        return
    given = {share for share in told if share is not None}
    sizes = {size for _, size in given}
    if None in told or len(sizes) != 1 or {rank for rank, _ in given} != set(range(*sizes)):
        named = ", ".join("none" if share is None else f"{share[0]} of {share[1]}" for share in told)
        raise LoaderOrderError(
            f"the processes' DistributedSamplers must make up all shares; they are for the ranks: {named}"
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
