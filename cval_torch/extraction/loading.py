"""Which dataset row every frame of a loader comes from.

A `DataLoader` does not say which rows it yields. So the rows are drawn from its own sampler first, and the data are
loaded in that order: shuffled, sampled, batched by hand or nested, a frame and its row never part.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from cval_torch.errors import InvalidInputError, LoaderOrderError
from cval_torch.extraction.ids import length_of

OnFailure = Callable[[int, Exception], None]
"""Is told of a row of the dataset that cannot be loaded, and why."""


@dataclass(frozen=True)
class LoadingPlan:
    """What will be loaded, batch by batch, known before anything is.

    Attributes:
        dataset: the loader's dataset; None where the loader is a plain iterable of batches.
        batches: the dataset rows of each batch, no row twice; None where rows have no numbers (an
            `IterableDataset`, a plain iterable).
        single: each "batch" is one sample as the dataset gives it (`DataLoader(batch_size=None)`).
        listed: the dataset is asked for a list of rows at a time (`batch_size=None` with a sampler of lists).
        loader: what the batches are loaded with.
    """

    dataset: Any
    batches: list[list[int]] | None
    loader: Iterable[Any]
    single: bool = False
    listed: bool = False

    @property
    def num_frames(self) -> int | None:
        """How many frames there are, or None if that is not known before the end."""
        return None if self.batches is None else sum(map(len, self.batches))

    @property
    def batch_size(self) -> int | None:
        """What the loader says; None if it does not."""
        size = getattr(self.loader, "batch_size", None)
        return size if size is not None else getattr(getattr(self.loader, "batch_sampler", None), "batch_size", None)

    @cached_property  # every batch asks
    def largest_batch(self) -> int | None:
        """The most frames of a batch; None: not known."""
        return max(map(len, self.batches)) if self.batches else None

    def load(
        self, batches: Sequence[list[int]] | None = None, *, on_failure: OnFailure | None = None
    ) -> Iterator[tuple[list[int] | None, Any]]:
        """Load `batches` (all of the plan's, if None) in order, each with its rows.

        The user's loader is left as it was: a new one with its settings does the work.

        Args:
            batches: the rows of each.
            on_failure: where a batch cannot be loaded, each of its rows is loaded alone, and this is told of those that
                fail. If it does not raise, the batch goes on without these rows; without any row, its data are None.
                None: a batch that cannot be loaded raises what the loader raised.
        """
        loader = self.loader
        if self.batches is None or not isinstance(loader, DataLoader):
            if isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__:
                loader = _same_loader(loader, {"batch_size": loader.batch_size, "drop_last": False})
            for data in loader:
                yield None, data
            return
        wanted = self.batches if batches is None else list(batches)
        loaded = iter(_same_loader(loader, self._order(wanted)))
        for rows in wanted:
            try:
                found: tuple[list[int], Any] = rows, next(loaded)
            except StopIteration:  # as of a loader that was patched; it must not end this generator in silence
                raise LoaderOrderError(f"the loader ended before it gave rows {rows[0]} ... {rows[-1]}") from None
            except Exception as error:
                if on_failure is None or not _is_of_the_data(error, loader):
                    raise
                found = self._without_failures(loader, rows, error, on_failure)
            yield found
        next(loaded, None)  # there is no more, upon which the workers end

    def _order(self, batches: list[list[int]]) -> dict[str, Any]:
        """The options by which a `DataLoader` loads these batches."""
        if self.listed:
            return {"batch_size": None, "sampler": batches}
        if self.single:
            return {"batch_size": None, "sampler": [row for batch in batches for row in batch]}
        return {"batch_sampler": batches}

    def _without_failures(
        self, loader: DataLoader[Any], rows: list[int], error: Exception, on_failure: OnFailure
    ) -> tuple[list[int], Any]:
        """Those of `rows` that can be loaded alone, and their data. Raises `error` if all can, as none is at fault."""
        if loader.num_workers:  # the text has the worker's stack; ours would keep the loader in a circle of references
            error.__traceback__ = None
        failed = {rows[0]: error} if len(rows) == 1 else self._failures(loader, rows)
        if not failed:
            raise error
        for row, reason in failed.items():
            on_failure(row, reason)
        left = [row for row in rows if row not in failed]
        again = _same_loader(loader, self._order([left]), num_workers=min(loader.num_workers, 1))
        return left, next(iter(again)) if left else None

    def _failures(self, loader: DataLoader[Any], rows: list[int]) -> dict[int, Exception]:
        """What each of `rows` raises that cannot be loaded alone, by a loader with the user's settings."""
        alone = _same_loader(
            loader,
            self._order([[row] for row in rows]),
            num_workers=min(loader.num_workers, 1),
            collate_fn=None if self.listed else _nothing_of,
        )
        loaded, failed = iter(alone), {}
        for row in rows:
            try:
                next(loaded)
            except Exception as error:
                if not _is_of_the_data(error, loader):
                    raise
                failed[row] = error.with_traceback(None) if loader.num_workers else error  # as above
        return failed


def _nothing_of(samples: Any) -> None:
    """A `collate_fn` for samples of which only the loading is of interest."""


def _is_of_the_data(error: Exception, loader: DataLoader[Any]) -> bool:
    """Whether the dataset or the `collate_fn` raised it; else it is a lack of memory, or a worker that died or hung."""
    if isinstance(error, MemoryError):
        return False
    return not loader.num_workers or str(error).startswith("Caught ")  # how torch hands on what was raised in a worker


def plan_loading(loader: Iterable[Any]) -> LoadingPlan:
    """Find out which rows `loader` yields, each row once; an incomplete last batch is never dropped.

    Args:
        loader: a torch `DataLoader`, or any iterable of batches (whose frames then have no rows).

    Raises:
        InvalidInputError: `loader` is not iterable, or is a bare dataset.
        LoaderOrderError: the rows cannot be told: the loader's class has an `__iter__` of its own, its
            sampler yields something else than rows of the dataset, or never ends.
    """
    if not isinstance(loader, DataLoader):
        if not isinstance(loader, Iterable) or isinstance(loader, (Tensor, torch.utils.data.Dataset)):
            raise InvalidInputError(f"`loader` must be a DataLoader or an iterable of batches; got {_kind(loader)}")
        _check_not_wrapped(loader)
        return LoadingPlan(None, None, loader)
    if isinstance(loader.dataset, IterableDataset):
        return LoadingPlan(loader.dataset, None, loader, single=loader.batch_size is None)
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise LoaderOrderError(
            f"`loader` is a {_kind(loader)}, which iterates in a way of its own, so the rows it yields cannot be told; "
            "pass the plain torch DataLoader beneath it"
        )
    with _random_state_kept(loader):
        keys = iter(_sampled(loader))
        first = list(itertools.islice(keys, 1))
        unbatched = loader.batch_sampler is None
        listed = unbatched and any(isinstance(key, (list, tuple)) for key in first)
        sampled = ([key] if unbatched and not listed else list(key) for key in itertools.chain(first, keys))
        batches = _distinct_rows(sampled, length_of(loader.dataset))
    return LoadingPlan(loader.dataset, batches, loader, single=unbatched and not listed, listed=listed)


def _check_not_wrapped(loader: Iterable[Any]) -> None:
    """Raise a `LoaderOrderError` if an iterable hides a DataLoader: its frames would be called by their positions."""
    for name, value in getattr(loader, "__dict__", {}).items():
        if isinstance(value, DataLoader):
            raise LoaderOrderError(
                f"`loader` is a {_kind(loader)} around a DataLoader, so the rows it yields cannot be told; pass the "
                f"DataLoader itself, which is its `{name}`"
            )


def share_of(loader: Iterable[Any]) -> tuple[int, int] | None:
    """`(rank, number of ranks)` of a loader that yields one rank's share, by a `DistributedSampler`; else None."""
    sampler = _sampler_of(loader)
    return (sampler.rank, sampler.num_replicas) if isinstance(sampler, DistributedSampler) else None


def order_varies(loader: Iterable[Any]) -> bool:
    """Whether the loader's sampler draws its order anew each time: asked from other random states, it answers else."""
    if not isinstance(loader, DataLoader):
        return False
    orders = []
    for seed in (1, 2):
        with _random_state_kept(loader, seed=seed):
            orders.append([list(key) if isinstance(key, (list, tuple)) else key for key in _sampled(loader)])
    return orders[0] != orders[1]


def _sampler_of(loader: Any) -> Any:
    """What draws the rows, beneath the batches."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    return getattr(loader if batch_sampler is None else batch_sampler, "sampler", None)


def _sampled(loader: DataLoader[Any]) -> Iterable[Any]:
    """What the loader's sampler draws: a list of rows a batch, an incomplete last one included; or row by row."""
    batch_sampler: Any = loader.batch_sampler
    if batch_sampler is None:
        return _undropped(loader.sampler)
    if type(batch_sampler) is BatchSampler:
        return BatchSampler(_undropped(batch_sampler.sampler), batch_sampler.batch_size, drop_last=False)
    return batch_sampler  # type: ignore[no-any-return]


def _undropped(sampler: Iterable[Any]) -> Iterable[Any]:
    """A `DistributedSampler(drop_last=True)` leaves out up to a frame a rank: the same one, but without that."""
    if not isinstance(sampler, DistributedSampler) or not sampler.drop_last:
        return sampler
    if type(sampler) is not DistributedSampler:
        raise LoaderOrderError(
            f"`loader` has a {_kind(sampler)} with drop_last=True, which leaves frames out; make it without"
        )
    whole: DistributedSampler[Any] = DistributedSampler(
        sampler.dataset,
        num_replicas=sampler.num_replicas,
        rank=sampler.rank,
        shuffle=sampler.shuffle,
        seed=sampler.seed,
        drop_last=False,
    )
    whole.set_epoch(sampler.epoch)
    return whole


def _distinct_rows(sampled: Iterable[list[Any]], length: int | None) -> list[list[int]]:
    """Keep each row where it comes first: padding and replacement repeat a frame, and it is inferred once."""
    seen: set[int] = set()
    batches, drawn = [], 0
    for keys in sampled:
        batch = []
        for key in keys:
            row = _as_row(key, length)
            drawn += 1
            if row not in seen:
                seen.add(row)
                batch.append(row)
        if batch:
            batches.append(batch)
        if length is not None and drawn > 100 * (length + 100):
            raise LoaderOrderError(
                f"the loader's sampler does not end: it yielded {drawn} rows of a dataset of {length}; "
                "pass a loader that goes over the frames once"
            )
    return batches


def _as_row(key: Any, length: int | None) -> int:
    try:
        row = operator.index(key)
    except (TypeError, RuntimeError):
        raise LoaderOrderError(f"the loader's sampler must yield rows of its dataset; got {key!r}") from None
    if row < 0 or (length is not None and row >= length):
        raise LoaderOrderError(
            f"the loader's sampler yielded row {row}, which a dataset of {length} frames does not have"
        )
    return row


def _same_loader(
    loader: DataLoader[Any],
    order: dict[str, Any],
    *,
    num_workers: int | None = None,
    collate_fn: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """A loader like the user's, in `order`, that draws nothing from the user's random state."""
    return DataLoader(
        loader.dataset,
        **order,
        num_workers=loader.num_workers if num_workers is None else num_workers,
        collate_fn=collate_fn or loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
    )


@contextmanager
def _random_state_kept(loader: DataLoader[Any], *, seed: int | None = None) -> Iterator[None]:
    """Drawing rows from a shuffling sampler must not shift the random numbers of the user's training.

    With a `seed`, the draw begins from that instead of from the user's random state.
    """
    generators = {
        id(generator): generator
        for owner in (loader, loader.sampler, loader.batch_sampler, _sampler_of(loader))
        if isinstance(generator := getattr(owner, "generator", None), torch.Generator)
    }
    states = {key: generator.get_state() for key, generator in generators.items()}
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
                for generator in generators.values():
                    generator.manual_seed(seed)
            yield
    finally:
        for key, generator in generators.items():
            generator.set_state(states[key])


def _kind(value: Any) -> str:
    return type(value).__name__
