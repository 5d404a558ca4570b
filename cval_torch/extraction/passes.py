"""`extract`: one inference pass over a loader, and what an unmodified detector said of every frame, as a `Pool`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cval_torch.extraction.batches import Split
from cval_torch.extraction.ids import FrameIdOf
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import OnError, PassOptions
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.pool.pool import Pool


def extract(
    model: nn.Module | Any,
    loader: Iterable[Any],
    *,
    adapter: DetectorAdapter | None = None,
    frame_id: FrameIdOf | None = None,
    split: Split | None = None,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    embedding_dtype: torch.dtype | None = None,
    top_boxes: int | None = None,
    probabilities: bool = True,
    box_embeddings: bool = True,
    frame_embeddings: bool = True,
    on_error: OnError = "raise",
    progress: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    frames_per_shard: int = PassOptions.frames_per_shard,
    memory_limit: int | None = None,
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
        model: a detector of a known family (torchvision; transformers, Ultralytics, rfdetr and effdet if installed), or
            any detector with an `adapter`. It may be wrapped, as in DataParallel or by `torch.compile`, be inside a
            module such as a `LightningModule` or a PEFT model, or be held by an object of its host, such as an
            `rfdetr.RFDETRNano`.
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
        top_boxes: the number of boxes in a frame, at least 1, whose embeddings are kept: those with the highest scores,
            and of equal scores the earlier box. `Pool.embedded` marks them. All boxes keep their scores, labels,
            coordinates and probabilities. None: all embeddings are kept.
        probabilities: whether to keep the class probabilities, (B, C) float32.
        box_embeddings: whether to keep the embeddings of boxes, (B, E).
        frame_embeddings: whether to keep the embeddings of frames, (F, D).
        on_error: what to do with a frame that the dataset cannot load, or whose image has NaN. "raise": an error that
            names its id, row and file. "skip": leave it out, list it in `Pool.skipped` with the reason, and warn once.
        progress: whether to show a bar with frames per second. With several processes rank 0 shows one bar for all.
        cache_dir: a folder for this one pass. It is created if needed. All processes must see it.
        frames_per_shard: with `cache_dir`, the number of frames written at a time; fewer after 30 seconds. A killed
            process loses at most this many.
        memory_limit: without `cache_dir`, the most bytes that may be kept of all frames. None: what is available.
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
        NotEnoughMemoryError: the pool is not going to fit into memory. It is raised within the first frames.
        RankError: another process failed; the message says which one and why.
    """
    options = PassOptions(
        adapter=adapter,
        frame_id=frame_id,
        split=split,
        device=device,
        autocast=autocast,
        embedding_dtype=embedding_dtype,
        top_boxes=top_boxes,
        probabilities=probabilities,
        box_embeddings=box_embeddings,
        frame_embeddings=frame_embeddings,
        on_error=on_error,
        progress=progress,
        frames_per_shard=frames_per_shard,
        memory_limit=memory_limit,
    )
    return InferencePass(model, loader, options, distributed=distributed).pool(cache_dir, gather=gather)
