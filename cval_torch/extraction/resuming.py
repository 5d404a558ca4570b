"""Where a pass with a `cache_dir` goes on: what is done, what is missing, and whether it is the same pass at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cval_torch.errors import InvalidInputError, LoaderOrderError
from cval_torch.extraction.comparing import Ask, changed_answers, pass_changes, with_answers
from cval_torch.extraction.identity import SETTINGS, UNREAD, WEIGHTS, changes
from cval_torch.extraction.listing import frame_marks
from cval_torch.extraction.loading import LoadingPlan, order_varies, share_of
from cval_torch.extraction.pass_folder import PassCache
from cval_torch.pool.ranks import Ranks

OF_ONE_PROCESS = (SETTINGS, UNREAD, WEIGHTS)  # say a rank that a module remembers; weights are compared elsewhere


def _nobody() -> None:
    """Stands for a model that cannot be asked."""


def resume(
    cache: PassCache,
    plan: LoadingPlan,
    shares: Sequence[list[int]],
    ranks: Ranks,
    *,
    loader: Iterable[Any],
    identity: Mapping[str, Any],
    machine: Mapping[str, Any],
    ask: Ask = _nobody,
) -> tuple[LoadingPlan, list[list[int]]]:
    """Begin the pass in `cache`, or find out where it goes on, and lock it unless nothing is left to do.

    Args:
        cache: the folder.
        plan: what is to be loaded, by all processes together.
        shares: for each rank the numbers of its batches, if the folder is empty.
        ranks: the processes; every one must call this.
        loader: this process's.
        identity: what the pass is over, and its options.
        machine: what must not change before the pass is finished.
        ask: asks the model what it answers to test images.

    Returns:
        The plan, with the batches that the pass was begun with; and for each rank the numbers of those that it is to
        infer. They are dealt anew among however many processes there are now.

    Raises:
        LoaderOrderError: the loader is a stream.
        InvalidInputError: it is another pass, or in use; or the processes do not see the same folder.
        OSError: the folder cannot be read or written.
        RankError: another process failed.
    """
    if plan.batches is None:
        raise LoaderOrderError("`cache_dir` needs a loader whose frames have rows; a stream's cannot be found again")
    compared = {name: value for name, value in identity.items() if name not in OF_ONE_PROCESS}
    everyones = ranks.exchange(lambda: compared)
    for rank, other in enumerate(everyones):
        if differing := changes(everyones[0], other, form=f"{{name}} is {{old}} in rank 0 and {{new}} in rank {rank}"):
            raise InvalidInputError(f"the processes' calls differ: {'; '.join(differing)}")

    def look() -> tuple[list[list[int]], list[int], str]:
        missing = _look(cache, plan, loader, identity=identity, machine=machine, ask=ask)
        if missing and ranks.size > 1:
            cache.lock(alone=False)  # so that the other processes may hold it too
        return cache.batches, missing, cache.token

    batches, missing, token = ranks.from_rank_zero(look)

    def follow() -> None:
        if ranks.rank != 0:
            cache.read()
            if cache.token != token:
                raise InvalidInputError(
                    f"`cache_dir` {str(cache.folder)!r} must be a folder that all processes see, on a disk they share; "
                    f"{ranks!r} does not see what rank 0 wrote there"
                )
            if missing:
                cache.lock(alone=False)
        if missing:
            cache.write_as(ranks.rank)

    ranks.exchange_local(follow)
    fresh = len(missing) == len(batches) and batches == plan.batches
    shared = list(shares) if fresh else [missing[rank :: ranks.size] for rank in range(ranks.size)]
    return replace(plan, batches=batches), shared


def _look(
    cache: PassCache,
    plan: LoadingPlan,
    loader: Iterable[Any],
    *,
    identity: Mapping[str, Any],
    machine: Mapping[str, Any],
    ask: Ask,
) -> list[int]:
    """The batches that are missing. If there are any, the lock is held and nothing damaged is left."""
    manifest = cache.read()
    if manifest is None:
        cache.lock(alone=True)
        manifest = cache.read()  # another run may have begun, and ended, meanwhile
        if manifest is None:
            batches = plan.batches or []
            marks = frame_marks(plan.dataset, [row for batch in batches for row in batch])
            cache.begin(with_answers(identity, ask), machine, batches, batch_size=plan.batch_size, marks=marks)
            return list(range(len(cache.batches)))
    same_machine = not changes(manifest["made_with"], machine)
    differing = pass_changes(manifest["of"], identity, ask, same_machine=same_machine)
    if differing := differing + _plan_changes(cache.batches, plan, loader):
        raise cache.refusal(differing)
    # a look at the sizes first: what is unfinished will be read whole under the lock, and once is enough
    if not cache.missing(cache.parts(verify=False)) and not cache.missing(cache.parts(verify=True)):
        return []
    if differing := changes(manifest["made_with"], machine) or changed_answers(manifest["of"], ask):
        raise cache.refusal(differing)
    cache.lock(alone=True)
    return cache.missing(cache.mend())


def _plan_changes(then: list[list[int]], plan: LoadingPlan, loader: Iterable[Any]) -> list[str]:
    """How the loader differs from that of the pass, where that is not the doing of chance."""
    now = plan.batches or []
    if now == then:
        return []
    old, new = ({row for batch in batches for row in batch} for batches in (then, now))
    if old != new:
        row = min(old ^ new)
        return [
            f"the loader's frames were {len(old)} and are {len(new)} now (row {row} is "
            f"{'gone' if row in old else 'new'})"
        ]
    sizes = [max(map(len, batches)) for batches in (then, now)]
    if sizes[0] != sizes[1]:
        return [f"the loader's batch size was {sizes[0]} and is {sizes[1]} now"]
    if share_of(loader) is None and not order_varies(loader):
        number = next(n for n, (one, other) in enumerate(zip(then, now, strict=False)) if one != other)
        return [f"the loader's batch {number} was of rows {then[number]} and is of {now[number]} now"]
    return []
