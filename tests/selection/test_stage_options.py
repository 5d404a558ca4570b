"""From the options of one stage to the stages to run."""

from __future__ import annotations

from typing import Any

import pytest

from cval_torch.errors import InvalidInputError
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stage_options import RECOMMENDED_STRATEGY, stages_of

UNTOUCHED: dict[str, Any] = {
    **{name: field.default for name, field in DetectionSampling.model_fields.items()},
    "selection_strategy": RECOMMENDED_STRATEGY,
}
STAGE = DetectionSampling(selection_strategy="entropy", num_of_samples=3)


def test_stages_are_taken_as_they_are() -> None:
    assert stages_of(STAGE, UNTOUCHED) == [STAGE]
    assert stages_of((STAGE, STAGE), UNTOUCHED) == [STAGE, STAGE]


def test_options_describe_one_stage() -> None:
    (stage,) = stages_of(None, {**UNTOUCHED, "num_of_boxes": 9.0, "seed": 4})
    assert (stage.selection_strategy, stage.num_of_boxes, stage.num_of_samples, stage.seed) == ("auto", 9.0, None, 4)


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        (None, {}, "`num_of_samples`, `num_of_boxes`, `num_of_minutes` or `stages` must be given; got none of them"),
        (
            [STAGE],
            {"seed": 3, "num_of_samples": 2},
            "`stages` say everything; got `seed`, `num_of_samples` beside them",
        ),
        (None, {"num_of_samples": 0}, "`num_of_samples`: .*; got 0"),
        (None, {"num_of_samples": 2, "sort_strategy": "ascending"}, "`sort_strategy` means nothing to 'auto'"),
        (
            None,
            {"num_of_samples": 2, "class_quotas": {1: 1}, "selection_strategy": "k_center"},
            "`class_quotas` means nothing to 'k_center'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(stages: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        stages_of(stages, {**UNTOUCHED, **options})
