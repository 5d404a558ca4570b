"""Checks of stages, made before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.labeled import Labeled
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.registry import STRATEGIES, find_strategy


def checked_stages(stages: DetectionSampling | Sequence[DetectionSampling]) -> tuple[DetectionSampling, ...]:
    """The stages as a tuple, each of which can be run; every backend checks stages by this.

    Raises:
        InvalidInputError: no stages, `frames` set on one, a strategy that is not known, or an option with a strategy
            that has no use for it.
    """
    ran = (stages,) if isinstance(stages, DetectionSampling) else tuple(stages)
    if not ran:
        raise InvalidInputError("`stages` must hold at least one DetectionSampling; got none")
    for number, stage in enumerate(ran):
        if not isinstance(stage, DetectionSampling):
            raise InvalidInputError(f"`stages` must be DetectionSampling; got {type(stage).__name__} at {number}")
        if getattr(stage, "frames", None) is not None:  # of a request, which is a stage too
            raise InvalidInputError(
                f"stage {number} has `frames`, which a request on the wire carries; here the frames are the pool's: "
                "leave it None"
            )
        find_strategy(stage.selection_strategy)  # raises where it is not known
        check_weights(stage)
        _check_quotas(number, stage)
    return ran


def check_weights(stage: DetectionSampling) -> None:
    """Raises InvalidInputError where a stage has `class_weights` or `probs_weights`, and nothing that they weigh."""
    if stage.probs_weights is not None and stage.selection_strategy != "entropy":
        raise InvalidInputError(f"`probs_weights` weigh the terms of the `entropy`; got them with {stage.name!r}")
    if stage.class_weights is not None and find_strategy(stage.selection_strategy).sees != "distributions":
        weighed = ", ".join(name for name, record in STRATEGIES.items() if record.sees == "distributions")
        raise InvalidInputError(f"`class_weights` weigh {weighed} of a box; got them with {stage.name!r}")


def check_apart(frame_ids: Sequence[str], labeled: Pool | Labeled | None) -> None:
    """Raises InvalidInputError where a frame to choose from is among the labeled ones."""
    both = set() if labeled is None else set(labeled.frame_ids).intersection(frame_ids)
    if both:
        raise InvalidInputError(
            f"`labeled` frames cannot be chosen again: leave them out of `pool`; {min(both)!r} is in both"
        )


def _check_quotas(number: int, stage: DetectionSampling) -> None:
    """Raises InvalidInputError where a stage has `class_quotas` that its strategy cannot keep."""
    if stage.class_quotas is not None and not find_strategy(stage.selection_strategy).keeps_quotas:
        raise InvalidInputError(
            f"`class_quotas` are for stages that rank, `random` and `auto`; got them with {stage.selection_strategy!r} "
            f"in stage {number}: give them to a stage before or after it"
        )
