"""The inference pass itself: batches of a loader in, one checked `Pool` a batch out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cval_torch.errors import ExtractionError, HookError, InvalidInputError, LoaderOrderError, NotEnoughMemoryError
from cval_torch.extraction.batches import broken_images, parts_of
from cval_torch.extraction.ids import FrameNames
from cval_torch.extraction.image_range import RangeCheck
from cval_torch.extraction.listing import path_of
from cval_torch.extraction.loading import LoadingPlan
from cval_torch.extraction.options import OPTIONAL_COLUMNS, PassOptions
from cval_torch.hooks.base import BatchParts, DetectorAdapter, FrameBatch, sizes_of
from cval_torch.hooks.checking import check_boxes, check_optional, faults_of
from cval_torch.hooks.finding import is_built_in
from cval_torch.hooks.finite import NotFiniteError, check_maps
from cval_torch.hooks.recorder import Recorder
from cval_torch.hooks.top_boxes import top_boxes
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import IdSource, Pool
from cval_torch.pool.skipped import SkippedFrame

Keep = Callable[[int, Pool | None, list[SkippedFrame]], None]
"""Takes a batch, given its number in the plan: its rows, None if there are none; and the frames that are left out."""

Watch = Callable[[Sequence[str], Sequence[int], Sequence[Any] | None], None]
"""Is shown the frame ids, dataset rows and targets (None: there are none) of each batch before it is inferred."""


class Inference:
    """Runs a model over the batches of a plan.

    Attributes:
        number: of the batch that is being inferred, in the plan.
        done: frames inferred so far, or left out.
        skipped: the frames that were left out.

    Args:
        model: the detector, unwrapped, in eval mode, on `device`.
        adapter: reads it.
        plan: what to load.
        device: where the images go.
        options: how batches are taken apart, and what is kept of them.
        done: frames that were extracted before, to be counted in errors.
        process: which process this is, for errors: empty, or such as `"rank 1 of 2, "`.
        watch: is shown the targets.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: DetectorAdapter,
        plan: LoadingPlan,
        device: torch.device,
        options: PassOptions,
        *,
        done: int = 0,
        process: str = "",
        watch: Watch | None = None,
    ) -> None:
        self.model, self.adapter, self.plan, self.device = model, adapter, plan, device
        self.options = options
        self.done, self.process, self.number = done, process, 0
        self.skipped: list[SkippedFrame] = []
        self._reading: list[str] = []  # ids of the frames that the model is given, while it is
        self.watch = watch
        self._range = RangeCheck(model, adapter)
        self._looked_at = is_built_in(adapter.read)  # whether the numbers of an adapter of the user's were

    def run(self, names: FrameNames, keep: Keep, numbers: list[int] | None = None) -> Generator[int, None, None]:
        """Run batch by batch, give each to `keep`, and yield how many frames it had.

        Args:
            names: names the frames.
            keep: takes each batch before the next is loaded.
            numbers: which batches of the plan, in order; None: all.

        Raises:
            InvalidInputError, HookError, LoaderOrderError: with the position.
            ExtractionError: for whatever else was raised, which is its cause.
        """
        if numbers is not None and not numbers:
            return  # not even a loader is made: its workers would be started for nothing
        batches = None if numbers is None or self.plan.batches is None else [self.plan.batches[n] for n in numbers]

        def number_of(turn: int) -> int:
            return turn if numbers is None or turn >= len(numbers) else numbers[turn]

        self.number, before = number_of(0), 0
        try:
            with Recorder(dict(self.adapter.modules(self.model)), within=self.model) as recorder:
                loaded = self.plan.load(batches, on_failure=partial(self._leave_out, names))
                for turn, (indices, data) in enumerate(loaded):
                    pool = self._read(recorder, names, indices, data)
                    skipped = self.skipped[before:]
                    keep(self.number, pool, skipped)
                    frames = len(skipped) + (0 if pool is None else len(pool))
                    self.done += frames
                    self.number, before = number_of(turn + 1), len(self.skipped)
                    yield frames
        except (ExtractionError, NotEnoughMemoryError):
            raise
        except (InvalidInputError, HookError) as error:  # errors of our own keep their type
            raise type(error)(f"{self.position}: {error}") from error
        except Exception as error:
            raise self.failure(error) from error

    @property
    def position(self) -> str:
        """Where the pass is, for errors."""
        return f"{self.process}batch {self.number}, after {self.done} frames"

    def failure(self, error: BaseException) -> ExtractionError:
        """What to raise from `error`, which is of somebody else's kind."""
        message = f"{self.position}: {type(error).__name__}: {error}"
        if self._reading and "DataLoader worker" not in message:  # whose death may strike at any time
            message += f" (when the model was given frames {self._reading[0]!r} to {self._reading[-1]!r})"
        return ExtractionError(message, batch=self.number, frames_done=self.done)

    def _leave_out(self, names: FrameNames, row: int, error: Exception) -> None:
        """Record a row that cannot be loaded, or raise an error that names it."""
        frame = SkippedFrame(names.known(row), row, path_of(self.plan.dataset, row), reason_of(error))
        if self.options.on_error == "skip":
            self.skipped.append(frame)
            return
        message = (
            f"{self.position}: {frame}. Mend the file, or remove it from the dataset; or leave out what cannot be "
            "loaded, by on_error='skip'"
        )
        raise ExtractionError(message, batch=self.number, frames_done=self.done) from error

    def _read(self, recorder: Recorder, names: FrameNames, rows: list[int] | None, data: Any) -> Pool | None:
        """The rows of the pool for one batch; None if all of its frames are left out."""
        if rows == []:
            return None
        parts = self._parts(rows, data)
        broken = broken_images(parts.images, parts.count)
        if broken and rows is not None and self.options.on_error == "skip":
            for place in broken:
                self._leave_out(names, rows[place], InvalidInputError("NaN or inf in the image"))
            left = [row for place, row in enumerate(rows) if place not in broken]
            return self._again(recorder, names, left) if left else None
        positions = list(range(self.done, self.done + parts.count)) if rows is None else rows
        frame_ids = names.name(positions, parts.targets)
        if broken:
            raise InvalidInputError(f"NaN or inf in the image of frame {frame_ids[broken[0]]!r}")
        self._range.look(parts.images, frame_ids)
        if self.watch is not None:
            self.watch(frame_ids, positions, parts.targets)
        self._reading = frame_ids
        try:
            frames = self._frames(recorder, parts)
        except NotFiniteError as error:
            raise InvalidInputError(f"NaN or inf in {error.what} of frame {frame_ids[error.place]!r}") from error
        pool = self._pool(frames, frame_ids, rows, names.source)
        self._reading = []
        return pool

    def _again(self, recorder: Recorder, names: FrameNames, rows: list[int]) -> Pool | None:
        """Load and read some rows of a batch whose others are left out."""
        ((left, data),) = self.plan.load([rows], on_failure=partial(self._leave_out, names))
        return self._read(recorder, names, left, data)

    def _parts(self, rows: list[int] | None, data: Any) -> BatchParts:
        """The batch taken apart."""
        plan = self.plan
        parts = parts_of(data, self.adapter, self.options.split, single=plan.single, largest=plan.largest_batch)
        if rows is not None and len(rows) != parts.count:
            raise LoaderOrderError(
                f"the loader gave {parts.count} frames for {len(rows)} rows ({rows[0]} ... {rows[-1]}), so "
                "it cannot be told which is which; its `collate_fn` must neither drop nor add frames"
            )
        return parts

    def _frames(self, recorder: Recorder, parts: BatchParts) -> FrameBatch:
        """What the adapter reads of one forward pass, checked."""
        images = _moved(parts.images, self.device)
        recorder.clear(images)
        output = self.adapter.forward(self.model, images)
        recorder.check()
        frames = self.adapter.read(self.model, recorder.recording, output)
        check_boxes(frames, parts.count, self.adapter.name)
        frames.let_go(self.options.dropped)
        if self.options.top_boxes is not None:
            frames.embed_only(top_boxes(frames.scores, frames.counts, self.options.top_boxes))
        frames.settle()
        recorder.clear()
        check_optional(frames, self.adapter.name)
        if frames.frame_embeddings is not None:  # looked at even where they are not kept: a threshold hides NaN boxes
            check_maps([frames.frame_embeddings], "the frame embeddings")
        if not self._looked_at and len(frames.scores):
            self._looked_at = True
            faults = faults_of(frames, sizes_of(parts.images))
            if faults:
                raise HookError(f"what {self.adapter.name} read is wrong: {'; '.join(faults)}")
        return frames

    def _pool(self, frames: FrameBatch, frame_ids: list[str], indices: list[int] | None, ids_from: IdSource) -> Pool:
        """The rows of one batch, on the CPU, each number checked."""
        columns = {
            name: getattr(frames, name)
            for name in ("boxes", "labels", "scores", *OPTIONAL_COLUMNS, "embedded")
            if name not in self.options.dropped and getattr(frames, name) is not None
        }
        for name, column in columns.items():
            dtype = column.dtype if name in ("labels", "embedded") else torch.float32
            if name.endswith("embeddings") and self.options.embedding_dtype is not None:
                dtype = self.options.embedding_dtype
            columns[name] = column.detach().to("cpu", dtype)
        counts = frames.counts.to("cpu", torch.int64)
        return Pool(
            frame_ids,
            offsets_of(counts),
            indices=None if indices is None else torch.tensor(indices, dtype=torch.int64),
            activation=frames.activation if "probabilities" in columns else None,
            ids_from=ids_from,
            **columns,
        )


def reason_of(error: Exception) -> str:
    """The kind of an error and what it says, in one line, without the stack of the loader's worker that raised it."""
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and lines[0].startswith("Caught "):
        return lines[-1]
    return f"{type(error).__name__}: {' '.join(lines)}"


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


def device_of(model: Any, device: torch.device | str | None = None) -> torch.device:
    """`device`; None: where the first of the model's tensors is. Of what is no module, the CPU."""
    if device is not None:
        return torch.device(device)
    if not isinstance(model, nn.Module):
        return torch.device("cpu")
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def on_device(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model on `device`, and back where it was when done; None: where it is."""
    home, target = device_of(model), device_of(model, device)
    if target == home:
        yield target
        return
    try:
        yield (model.to(target), target)[1]
    finally:
        model.to(home)
