"""`extract`: one inference pass over a loader, and what an unmodified detector said of every frame, as a `Pool`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from tqdm import tqdm

from cval_torch.errors import CvalError, ExtractionError, InvalidInputError, LoaderOrderError, warn_user
from cval_torch.extraction.batches import Split
from cval_torch.extraction.comparing import Ask
from cval_torch.extraction.dealing import deal
from cval_torch.extraction.fingerprint import model_fingerprint, model_of_rank_zero
from cval_torch.extraction.identity import machine_identity, pass_identity, without_parameters
from cval_torch.extraction.ids import FrameIdOf, FrameNames
from cval_torch.extraction.inference import Inference, Keep, Watch, device_of, on_device
from cval_torch.extraction.loading import LoadingPlan
from cval_torch.extraction.moving import Move, find_move, join
from cval_torch.extraction.options import OnError, PassOptions
from cval_torch.extraction.pass_folder import PassCache
from cval_torch.extraction.probing import Probe, ask_model
from cval_torch.extraction.random_state import random_state_kept
from cval_torch.extraction.resuming import resume
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.hooks.finding import find_adapter, unwrap
from cval_torch.hooks.recorder import evaluating
from cval_torch.pool.gathering import gather_pools, same_layout
from cval_torch.pool.layout import Gathered
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks, in_rounds, show_nothing
from cval_torch.pool.skipped import SkippedFrame


def extract(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    adapter: DetectorAdapter | None = None,
    frame_id: FrameIdOf | None = None,
    split: Split | None = None,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    embedding_dtype: torch.dtype | None = None,
    probabilities: bool = True,
    box_embeddings: bool = True,
    frame_embeddings: bool = True,
    on_error: OnError = "raise",
    progress: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    frames_per_shard: int = PassOptions.frames_per_shard,
    distributed: bool | None = None,
    gather: bool = True,
) -> Pool:
    """Run `model` once over `loader`, and keep its predictions for every frame.

    The model is not modified. During the pass it is in eval mode and records no gradients. Afterwards each submodule
    has its own train or eval flag again, the hooks are gone, and BatchNorm statistics are unchanged. This also holds if
    the pass was interrupted. The user's loader and sampler are left alone, and so are the random states of
    Python, numpy and torch.

    With `cache_dir` the rows are written to that folder in shards, each whole or not at all. Memory holds one shard.
    If the process is killed, the same call continues where it stopped, and loads no finished frame again. A finished
    folder is read back without inference. The folder remembers the order of the pass, so shuffling loaders resume too.
    Another model or adapter (modules, weights, all that they hold, your code that they run), dataset (type, length,
    ids, transforms), loader or option is refused by name. But files may be added to the dataset, or removed from it:
    the frames that are the same by id and file are kept, and only new ones are inferred. Not noticed are images that
    changed under the same name, and code of the dataset's own class; in a finished folder also code of installed
    packages.

    If `torch.distributed` is initialized, every process must make the call, and infers its share. Whole batches of one
    plan are dealt in turn, so the result is bit for bit that of one process. Loaders with a `DistributedSampler` keep
    their shares, without its padding. An error in one process is raised in all.

    Args:
        model: a detector of a known family (torchvision; transformers and Ultralytics if installed), or any detector
            with an `adapter`. It may be wrapped in DataParallel, DistributedDataParallel or `torch.compile`.
        loader: a `DataLoader` of images (C, H, W) in [0, 1], alone or followed by targets. It may shuffle, sample or
            batch in any way. An incomplete last batch is kept. Only the `image_id` of targets is read. Floats of 0 to
            255 are warned of.
        adapter: reads a model of an unknown family; see `cval_torch.hooks.DetectorAdapter`.
        frame_id: a function `(row of loader.dataset, target) -> str` that names frames. Without it the id is the
            target's `image_id`, else the dataset's own id (`CocoDetection.ids`, paths of files), else the row.
        split: a function that takes batches of another kind apart.
        device: the device to run on. The model is moved there for the pass and back afterwards. None: where it is.
        autocast: a dtype to run with, under `torch.autocast`. None: as in the caller's context.
        embedding_dtype: the dtype in which embeddings are kept, such as `torch.float16`. None: float32.
        probabilities: whether to keep the class probabilities, (B, C) float32.
        box_embeddings: whether to keep the embeddings of boxes, (B, E).
        frame_embeddings: whether to keep the embeddings of frames, (F, D).
        on_error: what to do with a frame that the dataset cannot load, or whose image has NaN. "raise": an error that
            names its id, row and file. "skip": leave it out, list it in `Pool.skipped` with the reason, and warn once.
        progress: whether to show a bar with frames per second. With several processes rank 0 shows one bar for all.
        cache_dir: a folder for this one pass. It is created if needed. All processes must see it.
        frames_per_shard: with `cache_dir`, the number of frames written at a time; fewer after 30 seconds. A killed
            process loses at most this many.
        distributed: None: all processes of `torch.distributed` take part, if it is initialized. False: only this one.
        gather: with several processes and no `cache_dir`, whether every process gets the whole pool. False: each gets
            its own share, for pools larger than the memory of one machine.

    Returns:
        A `Pool` on the CPU, with frames in the loader's order (for shares of a `DistributedSampler`: batch by batch in
        turn) and boxes in pixels of the loader's images. `indices` are rows of `loader.dataset`, or None if it has no
        rows (`IterableDataset`, a plain iterable). With `cache_dir` the columns are mapped from the disk.

    Raises:
        UnsupportedModelError: no adapter knows the model.
        LoaderOrderError: the rows that the loader yields cannot be told, or it yields other frames than those; or a
            stream is used with `cache_dir` or in several processes.
        InvalidInputError: a batch, an id or a number (NaN, inf) is not what was expected; the message names the batch.
            Or `cache_dir` holds another pass or is in use. Or the processes differ in weights or datasets.
        HookError: a hook did not fire, or what it recorded does not fit the output.
        ExtractionError: the loader, the model or the disk raised. The original error is the cause, and the message says
            at which position.
        RankError: another process failed; the message says which one and why.
    """
    options = PassOptions(
        adapter=adapter,
        frame_id=frame_id,
        split=split,
        device=device,
        autocast=autocast,
        embedding_dtype=embedding_dtype,
        probabilities=probabilities,
        box_embeddings=box_embeddings,
        frame_embeddings=frame_embeddings,
        on_error=on_error,
        progress=progress,
        frames_per_shard=frames_per_shard,
    )
    return InferencePass(model, loader, options, distributed=distributed).pool(cache_dir, gather=gather)


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
        model: nn.Module,
        loader: Iterable[Any],
        options: PassOptions,
        *,
        distributed: bool | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.loader, self.options, self.watch = unwrap(model), loader, options, watch
        self.ranks = Ranks(distributed, device=device_of(self.model, options.device))
        self.adapter = self.ranks.exchange_local(lambda: find_adapter(self.model, options.adapter))
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
        ranks, gathered = self.ranks, Gathered()

        def keep(_: int, pool: Pool | None, __: list[SkippedFrame]) -> None:
            if pool is not None:
                gathered.add(pool)

        with model_of_rank_zero(self.model, ranks, model_fingerprint):
            skipped = self._infer(self.shares.plan, self.shares.numbers(ranks.rank), keep)
        self._tell_skipped([frame for part in ranks.exchange(lambda: list(skipped)) for frame in part])
        if ranks.size == 1:
            return gathered.pool().with_skipped(self.skipped)
        own = ranks.exchange_local(lambda: gathered.pool() if len(gathered) else None)
        return same_layout(own, ranks).with_skipped(self.skipped)

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

    def _infer(self, plan: LoadingPlan, numbers: list[int] | None, keep: Keep, *, done: int = 0) -> list[SkippedFrame]:
        """Infer some batches; the frames that were left out."""
        options, ranks = self.options, self.ranks
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
                watch=self.watch,
            )
            show: Callable[[int], object] = show_nothing
            if options.progress and ranks.rank == 0:  # even a bar that is off takes a lock that forked processes share
                bar = tqdm(total=plan.num_frames, initial=done, unit="frame", desc="extract")
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
