"""`extract`: one inference pass over a loader, and what an unmodified detector said of every frame, as a `Pool`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cval_torch.errors import ExtractionError, HookError, InvalidInputError, LoaderOrderError
from cval_torch.hooks import find_adapter, unwrap
from cval_torch.hooks.base import BatchParts, DetectorAdapter, FrameBatch, SplitsBatches
from cval_torch.hooks.recorder import Recorder, evaluating
from cval_torch.loading import LoadingPlan, plan_loading, split_batch
from cval_torch.naming import FrameIdOf, FrameNames
from cval_torch.pool import Activation, Pool

Split = Callable[[Any], BatchParts]
"""`batch of the loader -> BatchParts`, for loaders whose batches are of a kind of their own."""

OPTIONAL_COLUMNS = ("probabilities", "box_embeddings", "frame_embeddings")


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
    progress: bool = True,
) -> Pool:
    """Run `model` once over `loader`, and keep what it says of every frame.

    Nothing of the model is replaced. It is in eval mode and without gradients during the pass; afterwards each
    submodule has its own train or eval flag again, the hooks are gone, and BatchNorm statistics are what they
    were, also when the pass was interrupted. The user's loader, sampler and random state are left alone too.

    Args:
        model: a detector of a known family (torchvision, and transformers and Ultralytics where installed), or
            any with an `adapter`; as it is, or within DataParallel, DistributedDataParallel or `torch.compile`.
        loader: a `DataLoader` of images (C, H, W) in [0, 1], alone or with targets after them; shuffled, sampled or
            batched as you like. An incomplete last batch is kept. Targets are read for their `image_id` only.
        adapter: reads a model of a family that is not known; see `cval_torch.hooks.base.DetectorAdapter`.
        frame_id: `(row of loader.dataset, target) -> str`, to name frames yourself. Without it the id is the
            target's `image_id`, else the dataset's own (`CocoDetection.ids`, file stems), else the row.
        split: takes a batch of another kind apart.
        device: where to run; the model is moved there for the pass and back after it. None: where it is.
        autocast: a dtype to run under `torch.autocast` with. None: as the caller's context is.
        embedding_dtype: what embeddings are kept as, such as `torch.float16` for half the memory. None: float32.
        probabilities: whether to keep them: (B, C) float32.
        box_embeddings: whether to keep them: (B, E).
        frame_embeddings: whether to keep them: (F, D).
        progress: whether to show a bar, with frames per second.

    Returns:
        A `Pool` on the CPU, its frames in the loader's order, boxes in pixels of the loader's images. `indices`
        are rows of `loader.dataset`, None where that has none (`IterableDataset`, a plain iterable).

    Raises:
        UnsupportedModelError: no adapter knows the model.
        LoaderOrderError: the rows that the loader yields cannot be told, or it gives other frames than those.
        InvalidInputError: a batch, an id or a number (NaN, inf) is not what was expected; the batch is named.
        HookError: a hook did not fire, or what it recorded does not fit the output.
        ExtractionError: the loader or the model raised; it is the cause, and the position is in the message.
    """
    if embedding_dtype is not None and not embedding_dtype.is_floating_point:
        raise InvalidInputError(f"`embedding_dtype` must be a floating point dtype; got {embedding_dtype}")
    core = unwrap(model)
    adapter = find_adapter(core, adapter)
    plan = plan_loading(loader)
    keep = {"probabilities": probabilities, "box_embeddings": box_embeddings, "frame_embeddings": frame_embeddings}
    dropped = tuple(name for name in OPTIONAL_COLUMNS if not keep[name])
    gathered = _Gathered()
    with ExitStack() as stack:
        where = stack.enter_context(_on_device(core, device))
        stack.enter_context(evaluating(core))
        stack.enter_context(torch.no_grad())
        if autocast is not None:
            stack.enter_context(torch.autocast(where.type, dtype=autocast))
        bar = stack.enter_context(tqdm(total=plan.num_frames, unit="frame", desc="extract", disable=not progress))
        run = _Inference(core, adapter, plan, where, split=split, dropped=dropped, embedding_dtype=embedding_dtype)
        for pool in run.pools(FrameNames(plan.dataset, frame_id), gathered):
            bar.update(len(pool))
    return gathered.pool()


class _Inference:
    """The pass itself: batches in, one checked `Pool` a batch out."""

    def __init__(
        self,
        model: nn.Module,
        adapter: DetectorAdapter,
        plan: LoadingPlan,
        device: torch.device,
        *,
        split: Split | None,
        dropped: tuple[str, ...],
        embedding_dtype: torch.dtype | None,
    ) -> None:
        self.model, self.adapter, self.plan, self.device = model, adapter, plan, device
        self.split, self.dropped, self.embedding_dtype = split, dropped, embedding_dtype
        self.done = 0

    def pools(self, names: FrameNames, gathered: _Gathered) -> Iterator[Pool]:
        """Run batch by batch, and add each to `gathered`."""
        modules = dict(self.adapter.modules(self.model))
        loaded = self.plan.load()
        number = 0
        with Recorder(modules, within=self.model) as recorder:
            while True:
                with self._position(number):
                    item = next(loaded, None)
                    if item is None:
                        return
                    pool = self._read(recorder, names, *item)
                    gathered.add(pool)
                self.done += len(pool)
                number += 1
                yield pool

    def _read(self, recorder: Recorder, names: FrameNames, indices: list[int] | None, data: Any) -> Pool:
        parts = self._parts(data)
        if indices is None:
            positions = list(range(self.done, self.done + parts.count))
        elif len(indices) != parts.count:
            raise LoaderOrderError(
                f"the loader gave {parts.count} frames for {len(indices)} rows ({indices[0]} ... {indices[-1]}), so "
                "it cannot be told which is which; its `collate_fn` must neither drop nor add frames"
            )
        else:
            positions = indices
        frame_ids = names.name(positions, parts.targets)
        recorder.clear()
        output = self.adapter.forward(self.model, _moved(parts.images, self.device))
        recorder.check()
        frames = self.adapter.read(self.model, recorder.recording, output)
        recorder.clear()
        if len(frames.counts) != parts.count:
            raise HookError(f"{self.adapter.name} read {len(frames.counts)} frames of a batch of {parts.count}")
        return self._pool(frames, frame_ids, indices)

    def _parts(self, data: Any) -> BatchParts:
        if self.split is not None:
            return self.split(data)
        parts = self.adapter.split(data) if isinstance(self.adapter, SplitsBatches) else None
        return parts or split_batch(data, single=self.plan.single)

    def _pool(self, frames: FrameBatch, frame_ids: list[str], indices: list[int] | None) -> Pool:
        """The rows of one batch, on the CPU, each number checked."""
        columns = {
            name: getattr(frames, name)
            for name in ("boxes", "labels", "scores", *OPTIONAL_COLUMNS)
            if name not in self.dropped and getattr(frames, name) is not None
        }
        for name, column in columns.items():
            dtype = column.dtype if name == "labels" else torch.float32
            if name.endswith("embeddings") and self.embedding_dtype is not None:
                dtype = self.embedding_dtype
            columns[name] = column.detach().to("cpu", dtype)
        counts = frames.counts.to("cpu", torch.int64)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Pool(
            frame_ids,
            offsets,
            indices=None if indices is None else torch.tensor(indices, dtype=torch.int64),
            activation=frames.activation if "probabilities" in columns else None,
            **columns,
        )

    @contextmanager
    def _position(self, number: int) -> Iterator[None]:
        """Say in which batch something failed; errors of our own keep their type."""
        where = f"batch {number}, after {self.done} frames"
        try:
            yield
        except (InvalidInputError, HookError) as error:
            raise type(error)(f"{where}: {error}") from error
        except Exception as error:
            message = f"{where}: {type(error).__name__}: {error}"
            raise ExtractionError(message, batch=number, frames_done=self.done) from error


class _Gathered:
    """The columns of many small pools, joined at the end; each part is let go as its column is joined."""

    def __init__(self) -> None:
        self.frame_ids: list[str] = []
        self.counts: list[Tensor] = []
        self.columns: dict[str, list[Tensor]] = {}
        self.activation: Activation | None = None

    def add(self, pool: Pool) -> None:
        """Take a batch in.

        Raises:
            InvalidInputError: it has other columns, or other widths, than the batches before it.
        """
        columns = {name: column for name, column in pool.columns() if name != "offsets"}
        if not self.counts:
            self.columns, self.activation = {name: [] for name in columns}, pool.activation
        if columns.keys() != self.columns.keys() or pool.activation != self.activation:
            raise InvalidInputError(
                f"the columns were {', '.join(self.columns)} ({self.activation}); now they are "
                f"{', '.join(columns)} ({pool.activation})"
            )
        for name, column in columns.items():
            parts = self.columns[name]
            if parts and parts[0].shape[1:] != column.shape[1:]:
                raise InvalidInputError(f"`{name}` was {tuple(parts[0].shape)}; now it is {tuple(column.shape)}")
            parts.append(column)
        self.frame_ids += pool.frame_ids
        self.counts.append(pool.counts)

    def pool(self) -> Pool:
        """All of it as one pool."""
        if not self.counts:
            raise InvalidInputError("`loader` must yield at least one frame; got none")
        counts = torch.cat(self.counts)
        joined = {}
        for name in list(self.columns):
            joined[name] = torch.cat(self.columns.pop(name))
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Pool(self.frame_ids, offsets, activation=self.activation, **joined)


def _moved(value: Any, device: torch.device) -> Any:
    """The same structure with its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        moved = [_moved(part, device) for part in value]
        return tuple(moved) if isinstance(value, tuple) else moved
    return value


@contextmanager
def _on_device(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model on `device`, and back where it was when done."""
    first = next((tensor for tensor in (*model.parameters(), *model.buffers())), None)
    home = torch.device("cpu") if first is None else first.device
    target = home if device is None else torch.device(device)
    if target == home:
        yield target
        return
    try:
        yield (model.to(target), target)[1]
    finally:
        model.to(home)
