"""From the flat options of one stage, as `select` takes them, to the stages to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from cval_torch.errors import InvalidInputError
from cval_torch.selection.stage import BUDGETS, DetectionSampling
from cval_torch.strategies.registry import STRATEGIES

RECOMMENDED_STRATEGY = "auto"
"""What `select` does where it is told no strategy."""


def stages_of(
    stages: DetectionSampling | Sequence[DetectionSampling] | None, options: dict[str, Any]
) -> list[DetectionSampling]:
    """The stages given, or the one that the options describe.

    Args:
        stages: one or several; None: the options describe one.
        options: of one stage, by name. Beside `stages` they must be as they are by default.

    Raises:
        InvalidInputError: an option is out of range, or the strategy does not read it; none of `num_of_samples`,
            `num_of_boxes`, `num_of_minutes` and `stages`, or `stages` together with options.

    >>> [stage.num_of_samples for stage in stages_of(None, {"selection_strategy": "least", "num_of_samples": 3})]
    [3]
    """
    if stages is not None:
        untouched = {name: field.default for name, field in DetectionSampling.model_fields.items()}
        untouched["selection_strategy"] = RECOMMENDED_STRATEGY
        changed = [name for name, value in options.items() if value != untouched[name]]
        if changed:
            raise InvalidInputError(f"`stages` say everything; got `{'`, `'.join(changed)}` beside them")
        return [stages] if isinstance(stages, DetectionSampling) else list(stages)
    amounts = ("num_of_samples", *BUDGETS)
    if all(options[name] is None for name in amounts):
        raise InvalidInputError(f"`{'`, `'.join(amounts)}` or `stages` must be given; got none of them")
    try:
        stage = DetectionSampling(**options)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"][:1])) or "options"
        raise InvalidInputError(f"`{field}`: {first['msg']}; got {first['input']!r}") from error
    _check_used(stage)
    return [stage]


def _check_used(stage: DetectionSampling) -> None:
    """Raises InvalidInputError where an option was given that the strategy, perhaps the default one, does not read."""
    strategy = STRATEGIES.get(stage.name)
    if strategy is None or strategy.scores_frames:
        return
    unread = ["bbox_selection_policy", "sort_strategy", *([] if strategy.keeps_quotas else ["class_quotas"])]
    for name in unread:
        if getattr(stage, name) is not None:
            scoring = ", ".join(record.name for record in STRATEGIES.values() if record.scores_frames)
            raise InvalidInputError(
                f"`{name}` means nothing to {stage.name!r}, which does not score frames. Name a strategy that does, "
                f"with `selection_strategy=`: {scoring}"
            )
