"""`backend_for`: what chooses frames in a training loop, and knows what stages look at of the labelled ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.pool.pool import Pool
from cval_torch.selection.class_weights import class_counts
from cval_torch.selection.labeled_look import LabeledLook
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.registry import find_strategy

_KEEP_LESS = (
    "Halve the vectors, by `embedding_dtype=torch.float16`; or, where boxes are compared one by one, keep embeddings "
    "of the best of each frame, by `top_boxes=`; or leave labelled frames out of it, by `avoid_labeled=False`; or take "
    "stages that compare vectors of frames, not single boxes"
)


def backend_for(
    stages: Sequence[DetectionSampling],
    labeled_ids: Collection[str],
    make_pass: Callable[[], InferencePass],
    *,
    avoid_labeled: bool = True,
    counts: Mapping[int, int] | None = None,
    keep: bool = False,
) -> LocalBackend | None:
    """A backend that knows what is labelled, if a stage has a use for that, else None; every process must call this.

    Args:
        stages: what the backend is going to be asked for.
        labeled_ids: the labelled frames.
        make_pass: makes a pass over them, if it is needed.
        avoid_labeled: whether stages stay away from labelled frames.
        counts: the annotated objects, by the detector's labels. None: the detector counts them, where that is needed.
        keep: whether the backend's `labeled` is all that the pass finds, for others to read, and not only what stages
            look at.

    Raises:
        CvalError: see `backend_knowing`.
    """
    away = avoid_labeled and any(
        stage.min_distance is not None or find_strategy(stage.selection_strategy).knows_labeled for stage in stages
    )
    balanced = any(stage.class_weights == "balanced" for stage in stages)
    if not (away or balanced):
        return None
    if not labeled_ids:
        return LocalBackend(labeled_counts={})
    if keep:
        return LocalBackend(labeled=make_pass().pool(), labeled_counts=counts)
    if not away and counts is not None:
        return LocalBackend(labeled_counts=counts)
    found = backend_knowing(make_pass(), stages, away=away, balanced=balanced and counts is None)
    return found if counts is None else LocalBackend(labeled=found.labeled, labeled_counts=counts)


def backend_knowing(
    run: InferencePass, stages: Sequence[DetectionSampling], *, away: bool, balanced: bool
) -> LocalBackend:
    """Infer the labelled frames, and keep what the stages look at; every process must call this.

    Args:
        run: a pass over the labelled frames.
        stages: what the backend is going to be asked for.
        away: whether they stay away from labelled frames.
        balanced: whether they balance classes, for which objects are counted.

    Raises:
        NotEnoughMemoryError: what the stages look at is not going to fit.
        CvalError: see `extract`.
    """
    look = LabeledLook(stages if away else (), counted=balanced)
    forecast = run.forecast("what the stages look at of labelled frames", _KEEP_LESS)

    def add(pool: Pool) -> None:
        look.add(pool)
        if forecast.is_due(look.num_frames):
            forecast.look(look.num_frames, each=look.nbytes)

    run.stream(add, options=run.options.keeping(look.columns))
    labeled = look.labeled(run.places, run.ranks)
    pool = labeled.pool
    counts = run.ranks.exchange_local(lambda: class_counts(pool)) if balanced and pool is not None else None
    return LocalBackend(labeled=labeled if away else None, labeled_counts=counts)
