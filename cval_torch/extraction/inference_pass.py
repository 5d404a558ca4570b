"""`InferencePass`: one pass over a loader, by one process or by several side by side, kept in memory or in a folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import nn
from tqdm import tqdm

from cval_torch.errors import CvalError, ExtractionError, InvalidInputError, LoaderOrderError, warn_user
from cval_torch.extraction.batches import parts_of
from cval_torch.extraction.comparing import Ask
from cval_torch.extraction.dealing import deal
from cval_torch.extraction.fingerprint import model_fingerprint, model_of_rank_zero
from cval_torch.extraction.identity import machine_identity, pass_identity, without_parameters
from cval_torch.extraction.ids import FrameNames
from cval_torch.extraction.inference import Inference, Keep, Watch, device_of, on_device
from cval_torch.extraction.loading import LoadingPlan
from cval_torch.extraction.moving import Move, find_move, join
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.pass_folder import PassCache
from cval_torch.extraction.probing import Probe, ask_model
from cval_torch.extraction.random_state import random_state_kept
from cval_torch.extraction.resuming import resume
from cval_torch.hooks.finding import unwrap
from cval_torch.hooks.holding import find_detector
from cval_torch.hooks.recorder import evaluating
from cval_torch.pool.gathering import gather_pools, same_layout
from cval_torch.pool.layout import Gathered
from cval_torch.pool.memory import Forecast
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks, in_rounds, show_nothing
from cval_torch.pool.skipped import SkippedFrame

_KEEP_LESS = (
    "Keep the columns on the disk, by `cache_dir=`; or leave out what you do not need, by `box_embeddings=False`, "
    "`probabilities=False` or `embedding_dtype=torch.float16`, or embeddings of all but the best boxes of a frame, by "
    "`top_boxes=`; or use `select`, which keeps what its stages read"
)


class InferencePass:
    """One pass, by one process or by several that take the same steps side by side.

    Args:
        model: the detector, wrapped or not.
        loader: what to run it over.
        options: how.
        distributed: see `extract`.
        watch: is shown every target.

    Attributes:
        ranks: the processes.
        shares: who infers what.
        skipped: the frames that were left out, of all processes, in the order of the whole.

    Raises:
        CvalError: see `extract`.
    """

    def __init__(
        self,
        model: nn.Module | Any,
        loader: Iterable[Any],
        options: PassOptions,
        *,
        distributed: bool | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.loader, self.options, self.watch = loader, options, watch
        self.ranks = Ranks(distributed, device=device_of(unwrap(model), options.device))
        found = self.ranks.exchange_local(lambda: find_detector(model, adapter=options.adapter))
        self.model, self.adapter = found.model, found.adapter
        self.device = device_of(self.model, options.device)
        with random_state_kept():
            self.shares = deal(loader, self.ranks)
        self.skipped: tuple[SkippedFrame, ...] = ()
        if options.on_error == "skip" and self.shares.plan.batches is None:
            raise LoaderOrderError(
                "on_error='skip' needs a loader whose frames have rows; a stream cannot go on after a frame that failed"
            )

    @property
    def places(self) -> list[int]:
        """For each frame that this process has inferred, its row in the whole."""
        return self.shares.places(self.ranks.rank, without={frame.index for frame in self.skipped})

    def rows_of_whole(self) -> list[int]:
        """The dataset row of each frame of the whole, in order, without those that are left out."""
        left_out = {frame.index for frame in self.skipped}
        return [row for batch in self.shares.plan.batches or () for row in batch if row not in left_out]

    def pool(self, cache_dir: str | os.PathLike[str] | None = None, *, gather: bool = True) -> Pool:
        """What `extract` returns; `gather`: whether every process gets the whole, where each infers a share."""
        found, is_whole = self.infer(cache_dir)
        if is_whole or not gather:
            return found
        return gather_pools(found, self.places, self.ranks).with_skipped(self.skipped)

    def infer(self, cache_dir: str | os.PathLike[str] | None = None) -> tuple[Pool, bool]:
        """The rows of this pass, and whether these are all of them or this process's share.

        Args:
            cache_dir: a folder in which the pass survives the process; then all processes get the whole.
        """
        if cache_dir is not None:
            return self.cached(cache_dir), True
        return self.share(), self.ranks.size == 1

    def share(self) -> Pool:
        """Infer this process's share: all of it, where there is one process."""
        gathered = Gathered()
        forecast = self.forecast("the pool", _KEEP_LESS)

        def add(pool: Pool) -> None:
            gathered.add(pool)
            if forecast.is_due(len(gathered)):
                forecast.look(len(gathered), each=gathered.nbytes)

        self.stream(add)
        return self._own(gathered).with_skipped(self.skipped)

    def _own(self, gathered: Gathered) -> Pool:
        """What this process has gathered; of no frames, but with the others' columns, where that is nothing."""
        if self.ranks.size == 1:
            return gathered.pool()
        own = self.ranks.exchange_local(lambda: gathered.pool() if len(gathered) else None)
        return same_layout(own, self.ranks)

    def forecast(self, what: str, remedy: str) -> Forecast:
        """Says early if what this process keeps of its share is not going to fit into memory."""
        plan = self.shares.plan
        numbers = self.shares.numbers(self.ranks.rank)
        total = None
        if plan.batches is not None and numbers is not None:
            total = sum(len(plan.batches[number]) for number in numbers)
        return Forecast(total, limit=self.options.memory_limit, what=what, remedy=remedy)

    def known_ids(self) -> list[str] | None:
        """The ids of all frames in the order of the whole, on rank 0; None where only inference can tell them.

        One frame is loaded, to see whether it is its target that names it.
        """
        plan = self.shares.plan
        if self.options.frame_id is not None or not plan.batches:
            return None
        names, (first, *others) = FrameNames(plan.dataset), (row for batch in plan.batches for row in batch)
        try:
            ((_, data),) = plan.load([[first]])
            parts = parts_of(data, self.adapter, self.options.split, single=plan.single, largest=plan.largest_batch)
            frame_ids = names.name([first], parts.targets)
        except Exception:  # it will be raised, and told better, by the pass
            return None
        if names.source == "target":
            return None
        return frame_ids + names.name(others, None)

    def stream(self, add: Callable[[Pool], None], *, options: PassOptions | None = None) -> None:
        """Infer this process's share, and give `add` its rows batch by batch; `options` say which columns."""
        numbers = self.shares.numbers(self.ranks.rank)
        with model_of_rank_zero(self.model, self.ranks, model_fingerprint):
            skipped = self._infer(self.shares.plan, numbers, _rows_to(add), options=options)
        self._tell_skipped([frame for part in self.ranks.exchange(lambda: list(skipped)) for frame in part])

    def again(self, rows: Sequence[int], options: PassOptions) -> Pool:
        """Infer a few rows of the dataset once more; every process must call this, and rank 0 gets all of them.

        Args:
            rows: distinct ones, in the order wanted.
            options: which columns to keep.

        Raises:
            ExtractionError: a frame cannot be loaded now.
        """
        plan, ranks, gathered = self.shares.plan, self.ranks, Gathered()
        size = plan.largest_batch or 1
        batches = [list(rows[begin : begin + size]) for begin in range(0, len(rows), size)]
        numbers = list(range(ranks.rank, len(batches), ranks.size))
        keep, once_more = _rows_to(gathered.add), replace(plan, batches=batches)
        with model_of_rank_zero(self.model, ranks, model_fingerprint):
            self._infer(once_more, numbers, keep, options=replace(options, on_error="raise"), what="predictions")
        places = [place for number in numbers for place in range(number * size, number * size + len(batches[number]))]
        return gather_pools(self._own(gathered), places, ranks, to=0)

    def _tell_skipped(self, skipped: Sequence[SkippedFrame]) -> None:
        """Remember what all processes left out, and warn of it."""
        rows = [row for batch in self.shares.plan.batches or () for row in batch]
        found = {frame.index: frame for frame in skipped}
        self.skipped = tuple(found[row] for row in rows if row in found)
        if not self.skipped:
            return
        what = f"{len(self.skipped)} of {len(rows)} frames were left out; the first: {self.skipped[0]}"
        if len(self.skipped) == len(rows):
            raise InvalidInputError(what)
        if self.ranks.rank == 0:
            warn_user(f"{what}. `skipped` of the pool lists them")

    def cached(self, folder: str | os.PathLike[str]) -> Pool:
        """The whole, in every process; each infers its share of what `folder` has not."""
        ranks = self.ranks
        if self.shares.plan.batches is None:
            raise LoaderOrderError("`cache_dir` needs a loader whose frames have rows; those of a stream have none")
        cache = PassCache(Path(folder), frames_per_shard=self.options.frames_per_shard)
        with random_state_kept(), model_of_rank_zero(self.model, ranks, model_fingerprint), _disk_errors(cache):
            self._fill(cache, self.shares.plan, [self.shares.numbers(rank) or [] for rank in range(ranks.size)])
            pool = ranks.exchange_local(cache.pool)
        self._tell_skipped(pool.skipped)
        return pool

    def _fill(self, cache: PassCache, plan: LoadingPlan, shares: list[list[int]]) -> None:
        """Infer what `cache` has not of a plan. If its dataset was another one, what is the same in both is kept."""
        ranks, ask = self.ranks, functools.cache(self._ask)
        identity = pass_identity(self.model, self.adapter, plan, self.options, self.device)
        machine = machine_identity(self.device, self.model, self.adapter)
        with cache:
            move = ranks.from_rank_zero(lambda: self._move(cache, plan, identity, machine, ask))
            if move is not None:
                more = cache.folder / "more"
                if move.missing:
                    inner = PassCache(more, frames_per_shard=self.options.frames_per_shard)
                    dealt = [list(range(rank, len(move.missing), ranks.size)) for rank in range(ranks.size)]
                    self._fill(inner, replace(plan, batches=move.missing), dealt)
                steps = join(cache, more, move, plan.dataset, identity=identity, machine=machine, ask=ask)
                in_rounds(steps if ranks.rank == 0 else iter(()), ranks)
            plan, shares = resume(
                cache, plan, shares, ranks, loader=self.loader, identity=identity, machine=machine, ask=ask
            )
            missing = sum(len(cache.batches[number]) for share in shares for number in share)
            if missing:
                try:
                    self._infer(plan, shares[ranks.rank], cache.add, done=(plan.num_frames or 0) - missing)
                except BaseException:  # what is whole is kept, also at Ctrl-C
                    with suppress(OSError):
                        cache.flush()
                    raise
                ranks.exchange_local(cache.flush)
            in_rounds(cache.finish(alone=not missing) if ranks.rank == 0 else iter(()), ranks)

    def _move(
        self, cache: PassCache, plan: LoadingPlan, identity: Mapping[str, Any], machine: Mapping[str, Any], ask: Ask
    ) -> Move | None:
        return find_move(
            cache,
            plan,
            identity=identity,
            machine=machine,
            ask=ask,
            loader=self.loader,
            retry=self.options.on_error == "raise",
        )

    def _ask(self) -> Probe | None:
        return ask_model(self.model, self.adapter, self.options, self.device, without_parameters)

    def _infer(
        self,
        plan: LoadingPlan,
        numbers: list[int] | None,
        keep: Keep,
        *,
        done: int = 0,
        options: PassOptions | None = None,
        what: Literal["extract", "predictions"] = "extract",
    ) -> list[SkippedFrame]:
        """Infer some batches; the frames that were left out."""
        ranks = self.ranks
        watch = self.watch if what == "extract" else None  # who watches has seen what is inferred again
        options = self.options if options is None else options
        with ExitStack() as stack:
            stack.enter_context(random_state_kept(self.device))
            where = ranks.exchange_local(lambda: stack.enter_context(on_device(self.model, options.device)))
            stack.enter_context(evaluating(self.model))
            stack.enter_context(torch.no_grad())
            if options.autocast is not None:
                stack.enter_context(torch.autocast(where.type, dtype=options.autocast))
            inference = Inference(
                self.model,
                self.adapter,
                plan,
                where,
                options,
                done=done,
                process=f"{ranks!r}, " if ranks.size > 1 else "",
                watch=watch,
            )
            show: Callable[[int], object] = show_nothing
            if options.progress and ranks.rank == 0:  # even a bar that is off takes a lock that forked processes share
                bar = tqdm(total=plan.num_frames, initial=done, unit="frame", desc=what)
                show = partial(_show, stack.enter_context(bar), done, inference.skipped)
            names = ranks.exchange_local(lambda: FrameNames(plan.dataset, options.frame_id))
            steps = stack.enter_context(closing(inference.run(names, keep, numbers)))
            try:
                in_rounds(steps, ranks, show)
            except CvalError:
                raise
            except Exception as error:  # a worker's death is a signal, and may strike outside the batch too
                raise inference.failure(error) from error
            by_target = ranks.exchange(lambda: names.by_target)
            if True in by_target and False in by_target:
                raise InvalidInputError(
                    f"either every target has an `image_id` or none; those of rank {by_target.index(False)} have none, "
                    f"those of rank {by_target.index(True)} have one. Pass `frame_id=` to name frames yourself"
                )
        return inference.skipped


def _rows_to(add: Callable[[Pool], None]) -> Keep:
    """Gives `add` the rows of every batch that has some."""

    def keep(_: int, pool: Pool | None, __: list[SkippedFrame]) -> None:
        if pool is not None:
            add(pool)

    return keep


def _show(bar: tqdm[NoReturn], done: int, skipped: Sequence[SkippedFrame], frames: int) -> None:
    """Move the bar to `frames` after those that were done before."""
    if skipped:
        bar.set_postfix(skipped=len(skipped), refresh=False)
    bar.update(done + frames - bar.n)


@contextmanager
def _disk_errors(cache: PassCache) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExtractionError(
            f"`cache_dir` {str(cache.folder)!r} could not be read or written: {error}. The shards before are whole",
            batch=0,
            frames_done=0,
        ) from error
