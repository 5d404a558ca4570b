"""`select`: from a detector and an unlabeled loader to the frames worth annotating, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from cval_torch.errors import InvalidInputError, NoSubsetError
from cval_torch.extraction.batches import Split
from cval_torch.extraction.ids import FrameIdOf, innermost, is_named, length_of, own_ids
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import OnError, PassOptions
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.pool.pool import IdSource, Pool
from cval_torch.selection.backend import Backend, ChecksPasses, ReadsColumns, Selection
from cval_torch.selection.checks import checked_stages
from cval_torch.selection.class_weights import counts_for
from cval_torch.selection.costs import estimated_boxes, total
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.out_of_core import PREDICTIONS
from cval_torch.selection.stage import BboxSelectionPolicy, DetectionSampling, NullPolicy, SortStrategy
from cval_torch.selection.stage_options import RECOMMENDED_STRATEGY, stages_of
from cval_torch.selection.together import (
    begin_look,
    can_draw_first,
    choose_from,
    choose_from_parts,
    choose_together,
    draw_first,
    picked,
)

# Where one frame in so many is chosen, or more, to infer the chosen ones again would take long, and predictions of all
# are not much more than those of the chosen ones: they are kept, up to so many bytes.
_FEW_FRAMES = 16
_PREDICTIONS_KEPT = 2**30

_READ_LESS = (
    "Keep the columns on the disk, by `cache_dir=`; or halve them, by `embedding_dtype=torch.float16`; or, where boxes "
    "are compared one by one, keep embeddings of the best of each frame, by `top_boxes=`; or put a stage first that "
    "scores frames by their own boxes, such as `entropy`; let a callable declare what it reads, by `needs`"
)


class SelectedFrames(Subset[Any]):
    """The chosen frames: a `torch.utils.data.Subset` of the loader's dataset, in rank order, the first choice first.

    Attributes:
        dataset: the dataset of the loader that was selected from.
        indices: n rows of `dataset`.
        frame_ids: n ids.
        scores: (n,) float64, the frame scores of the last stage that scored frames; NaN where none did.
        estimated_boxes: (n,) float64, the boxes to be expected in each frame, which is what annotating it costs: the
            sum of its boxes' scores, or their number in a pool without scores.
        stages: the stages that were run, in order.
        predictions: what the detector said of the chosen frames, in the same order and without embeddings:
            boxes, labels, scores and probabilities, to draw or to hand to annotators.

    >>> from torch.utils.data import TensorDataset
    >>> pool = Pool(["a", "b"], torch.tensor([0, 1, 2]), scores=torch.tensor([0.9, 0.6]), indices=torch.arange(2))
    >>> chosen = LocalBackend().select(pool, DetectionSampling(num_of_samples=1, selection_strategy="least"))
    >>> frames = SelectedFrames(TensorDataset(torch.tensor([10.0, 20.0])), chosen, pool)
    >>> frames.frame_ids, frames.indices, frames[0]
    (('b',), [1], (tensor(20.),))
    """

    frame_ids: tuple[str, ...]
    scores: Tensor
    estimated_boxes: Tensor
    stages: tuple[DetectionSampling, ...]
    predictions: Pool

    def __init__(self, dataset: Dataset[Any], selection: Selection, pool: Pool) -> None:
        """Make the subset of `dataset` that `selection` chose from `pool`.

        Args:
            dataset: what was extracted: the loader's own dataset, not the one beneath it.
            selection: made from `pool`.
            pool: extracted from `dataset`.

        Raises:
            NoSubsetError: the frames of `pool` have no rows of a dataset.
            InvalidInputError: the selection is of another pool, or the pool is of another dataset.
        """
        if pool.indices is None:
            raise NoSubsetError(
                "the pool's frames have no rows of a dataset, so there is no Subset of them; "
                f"the {len(selection)} ids are in the selection's `frame_ids`"
            )
        rows = selection.rows.to(pool.device)
        _check_of_pool(selection, pool)
        self.predictions = pool.replace(box_embeddings=None, frame_embeddings=None).take(rows)
        indices = pool.indices[rows].tolist()
        _check_of_dataset(dataset, indices, self.predictions)
        super().__init__(dataset, indices)
        self.frame_ids = selection.frame_ids
        self.scores = selection.scores
        self.stages = selection.stages
        self.estimated_boxes = estimated_boxes(self.predictions)

    @property
    def ids_from(self) -> IdSource | None:
        """Where the ids come from; None if nobody says."""
        return self.predictions.ids_from

    @property
    def num_of_boxes(self) -> float:
        """The boxes to be expected in all of them."""
        return total(self.estimated_boxes)

    @property
    def num_of_minutes(self) -> float:
        """What annotating them is expected to take, by the last stage's `seconds_per_frame` and `seconds_per_box`."""
        return self.stages[-1].minutes(self.num_of_boxes, frames=len(self))

    def __repr__(self) -> str:
        names = " -> ".join(stage.name for stage in self.stages)
        what = f"{len(self)} of {_length_of(self.dataset)} frames by {names}"
        return f"SelectedFrames({what}, about {self.num_of_boxes:.4g} boxes)"


def select(
    model: nn.Module | Any,
    loader: Iterable[Any],
    *,
    num_of_samples: int | None = None,
    num_of_boxes: float | None = None,
    num_of_minutes: float | None = None,
    seconds_per_frame: float | None = None,
    seconds_per_box: float | None = None,
    min_distance: float | None = None,
    class_quotas: Mapping[int, int] | None = None,
    selection_strategy: str | Callable[..., Any] = RECOMMENDED_STRATEGY,
    bbox_selection_policy: BboxSelectionPolicy | Callable[..., Any] | None = None,
    sort_strategy: SortStrategy | None = None,
    probs_weights: Sequence[float] | None = None,
    class_weights: Mapping[int, float] | Literal["balanced"] | None = None,
    use_null_detections: bool = True,
    null_policy: NullPolicy = "protocol",
    num_of_clusters: int = -1,
    seed: int = 0,
    stages: DetectionSampling | Sequence[DetectionSampling] | None = None,
    backend: Backend | None = None,
    adapter: DetectorAdapter | None = None,
    frame_id: FrameIdOf | None = None,
    split: Split | None = None,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    embedding_dtype: torch.dtype | None = None,
    top_boxes: int | None = None,
    on_error: OnError = "raise",
    progress: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    frames_per_shard: int = PassOptions.frames_per_shard,
    memory_limit: int | None = None,
    distributed: bool | None = None,
) -> SelectedFrames:
    """Choose the frames of `loader` that are worth annotating next.

    `select` makes one inference pass (see `extract`) and then runs one or several stages. For one stage give
    `num_of_samples`, `num_of_boxes` or `num_of_minutes`, and the options of that stage. For several give `stages`.
    `DetectionSampling` explains the options.

    Of the pass nothing is kept that no stage reads. A first stage that scores frames by their own boxes leaves some 200
    bytes of a frame, and predictions of the best so far. One that compares frames leaves a vector of each. Then, and
    after `random`, which draws before anything is inferred, the model infers the chosen frames once more for their
    predictions. (Of small pools, and where a sixteenth of the frames or more are chosen, predictions are kept instead.)
    A callable gets all columns, unless it declares by `needs` which it reads.

    If `torch.distributed` is initialized, every process must make the call. Each process infers its share, rank 0 makes
    the choice once, and every process returns it. The choice equals that of a single process. If the first stage is a
    name, scores frames (or is `random`) and has no `min_distance`, then only the frames that it keeps are exchanged, so
    the pool may be larger than the memory of one machine. The other processes wait while rank 0 asks the backend, so a
    slow backend must answer within the timeout of the process group.

    Args:
        model: an unmodified detector; see `extract`.
        loader: a `DataLoader` over the unlabeled frames; see `extract`.
        num_of_samples: frames to choose, at least 1. If there are fewer, all are chosen, with a warning.
        num_of_boxes: a budget in boxes: the chosen frames are expected to hold no more, by the detector's scores.
        num_of_minutes: a budget in minutes of annotation.
        seconds_per_frame: what a frame takes beside its boxes, for `num_of_minutes`. None: 7.8, a published median.
        seconds_per_box: what a box takes, for `num_of_minutes`. None: 25.5, a published median.
        min_distance: the least distance between the descriptors of two chosen frames; keeps near-duplicates out.
        class_quotas: by label, the least number of chosen frames that show that class.
        selection_strategy: a name, or a callable `Pool -> (F,)` scores, higher = more informative. The default `auto`
            needs no tuning and no second stage.
        bbox_selection_policy: how the scores of a frame's boxes become the score of the frame.
        sort_strategy: None puts the most informative frames first.
        probs_weights: weights of the terms of `entropy`.
        class_weights: the weight of a box's uncertainty, by its label; or "balanced", which needs a `backend` that
            knows what is annotated: `LocalBackend(labeled_counts={label: objects})`.
        use_null_detections: False makes a frame without detections an error.
        null_policy: how frames without detections are treated.
        num_of_clusters: for `clustering` and `hierarchical`.
        seed: of every random choice.
        stages: several stages, in place of the options of one.
        backend: what makes the choice; None: `LocalBackend`, in process.
        adapter: see `extract`.
        frame_id: see `extract`.
        split: see `extract`.
        device: the device to run the model on.
        autocast: a dtype to run it with, under `torch.autocast`.
        embedding_dtype: the dtype in which embeddings are kept.
        top_boxes: of how many boxes of a frame, those with the highest scores, embeddings are made and frames compared
            by; None: of all. Scores of frames are made of all boxes all the same.
        on_error: "skip" leaves out what cannot be loaded, and lists it in `predictions.skipped`; see `extract`.
        progress: whether to show a bar.
        cache_dir: a folder that keeps the inference pass if the process is killed; see `extract`.
        frames_per_shard: frames written at a time, with `cache_dir`.
        memory_limit: the most bytes that may be kept of all frames in memory; None: what is available.
        distributed: None: all processes of `torch.distributed` take part, if it is initialized. False: only this one.

    Returns:
        The chosen frames, the first choice first.

    Raises:
        InvalidInputError: an option is out of range; none of `num_of_samples`, `num_of_boxes`, `num_of_minutes`
            and `stages`, or `stages` together with options of one stage.
        NoSubsetError: the loader's dataset has no rows to index. It is raised before the inference pass.
        NotEnoughMemoryError: what the stages read of all frames is not going to fit. It is raised within the first
            frames, and names the remedies.
        CvalError: see `extract`, and `Backend.select`.
    """
    options = {
        "num_of_samples": num_of_samples,
        "num_of_boxes": num_of_boxes,
        "num_of_minutes": num_of_minutes,
        "seconds_per_frame": seconds_per_frame,
        "seconds_per_box": seconds_per_box,
        "min_distance": min_distance,
        "class_quotas": None if class_quotas is None else dict(class_quotas),
        "selection_strategy": selection_strategy,
        "bbox_selection_policy": bbox_selection_policy,
        "sort_strategy": sort_strategy,
        "probs_weights": None if probs_weights is None else list(probs_weights),
        "class_weights": dict(class_weights) if isinstance(class_weights, Mapping) else class_weights,
        "use_null_detections": use_null_detections,
        "null_policy": null_policy,
        "num_of_clusters": num_of_clusters,
        "seed": seed,
    }
    how = PassOptions(
        adapter=adapter,
        frame_id=frame_id,
        split=split,
        device=device,
        autocast=autocast,
        embedding_dtype=embedding_dtype,
        top_boxes=top_boxes,
        on_error=on_error,
        progress=progress,
        frames_per_shard=frames_per_shard,
        memory_limit=memory_limit,
    )
    asked = stages_of(stages, options)
    return select_frames(
        model, loader, asked, backend=backend, options=how, cache_dir=cache_dir, distributed=distributed
    )


def select_frames(
    model: nn.Module,
    loader: Iterable[Any],
    stages: Sequence[DetectionSampling],
    *,
    backend: Backend | None,
    options: PassOptions,
    cache_dir: str | os.PathLike[str] | None = None,
    distributed: bool | None = None,
) -> SelectedFrames:
    """What `select` does, with its options in two pieces: the stages, and how the pass is made."""
    if backend is None:
        counts_for(checked_stages(stages))  # what is wrong with them is said before the pass
    backend = LocalBackend() if backend is None else backend
    if isinstance(backend, ChecksPasses):
        backend.check_pass(stages, top_boxes=options.top_boxes)
    if cache_dir is None and isinstance(backend, ReadsColumns):
        options = options.keeping(backend.columns(stages) | PREDICTIONS)
    run = InferencePass(model, loader, options, distributed=distributed)
    plan = run.shares.plan
    if plan.batches is None:
        what = type(loader if plan.dataset is None else plan.dataset).__name__
        raise NoSubsetError(
            f"a {what} has no rows to index, so there can be no Subset of it. Choose ids instead: "
            "pool = extract(model, loader); LocalBackend().select(pool, stages).frame_ids"
        )
    if type(backend) is LocalBackend and cache_dir is None:
        selection, pool = _select_from_stream(run, stages, backend)
    else:
        pool, is_whole = run.infer(cache_dir)
        if is_whole and type(backend) is LocalBackend:
            mapped, local = pool, backend
            selection, pool = run.ranks.from_rank_zero(
                lambda: picked(choose_from_parts(mapped.parts(), stages, backend=local, scratch_dir=cache_dir), mapped)
            )
        elif is_whole:
            selection, pool = run.ranks.from_rank_zero(lambda: picked(backend.select(pool, stages), pool))
        else:
            selection, pool = choose_together(pool, run.places, stages, backend, run.ranks)
    selection = replace(selection, stages=tuple(stages))
    return SelectedFrames(plan.dataset, selection, pool.with_skipped(run.skipped))


def _select_from_stream(
    run: InferencePass, stages: Sequence[DetectionSampling], backend: LocalBackend
) -> tuple[Selection, Pool]:
    """Infer batch by batch, and keep what the stages read; the choice, and its frames."""
    ranks = run.ranks
    kept = max((stage.num_of_samples or 0 for stage in stages[:1]), default=0)
    many = kept * _FEW_FRAMES >= (run.shares.plan.num_frames or 0)
    look = begin_look(stages, backend, ranks, predictions=_PREDICTIONS_KEPT if many else 0)

    def again(places: Tensor) -> Pool:
        rows = run.rows_of_whole()
        return run.again([rows[place] for place in places.tolist()], run.options.keeping(look.later))

    if can_draw_first(stages) and run.options.on_error == "raise":
        frame_ids = ranks.from_rank_zero(run.known_ids)
        if frame_ids is not None:
            return draw_first(frame_ids, stages, backend, ranks, again=again)
    names = " -> ".join(stage.name for stage in stages)
    forecast = run.forecast(f"what {names} reads", _READ_LESS)

    def add(pool: Pool) -> None:
        look.add(pool)
        if forecast.is_due(look.num_frames):
            once = look.other_bytes(run.shares.plan.num_frames or 0)
            forecast.look(look.num_frames, each=look.growing_bytes, once=once)

    run.stream(add, options=run.options.keeping(look.columns))
    return choose_from(look, run.places, backend, ranks, again=again)


def _check_of_pool(selection: Selection, pool: Pool) -> None:
    """Raise an `InvalidInputError` if a selection was made from another pool."""
    for frame_id, row in zip(selection.frame_ids, selection.rows.tolist(), strict=True):
        found = pool.frame_ids[row] if row < len(pool) else None
        if found != frame_id:
            there = f"row {row} of this pool is {found!r}" if found is not None else f"this pool has {len(pool)} frames"
            raise InvalidInputError(
                f"the selection was made from another pool: it has frame {frame_id!r} in row {row}, and {there}. "
                "Pass the pool that the backend chose from"
            )


def _check_of_dataset(dataset: Any, indices: Sequence[int], chosen: Pool) -> None:
    """Raise an `InvalidInputError` if the rows `indices` of a dataset cannot be the frames of `chosen`."""
    remedy = "Pass the dataset of the loader that was extracted, `loader.dataset`"
    length = length_of(dataset)
    own = own_ids(dataset) if chosen.ids_from in ("dataset", "labels") else None
    if chosen.ids_from == "dataset" and own is None:
        raise InvalidInputError(f"the pool has ids of its dataset, and a {type(dataset).__name__} has none. {remedy}")
    if chosen.ids_from == "labels" and not is_named(dataset):
        raise InvalidInputError(
            f"the pool was extracted from a part of a LabelPool, and a {type(dataset).__name__} is none. {remedy}"
        )
    for frame_id, index in zip(chosen.frame_ids, indices, strict=True):
        if length is not None and index >= length:
            raise InvalidInputError(f"frame {frame_id!r} is row {index}, and `dataset` has {length} rows. {remedy}")
        name = own[index] if own is not None else frame_id
        if chosen.ids_from == "row":
            name = str(innermost(dataset, index)[1])
        if name != frame_id:
            raise InvalidInputError(
                f"the pool was extracted from another dataset: its frame {frame_id!r} is row {index}, which is "
                f"{name!r} in `dataset`. {remedy}"
            )


def _length_of(dataset: Any) -> int | str:
    return len(dataset) if hasattr(dataset, "__len__") else "?"
