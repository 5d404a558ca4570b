"""`Config`: what a configuration may say, and what it stands for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cval_torch import DetectionSampling
from cval_torch.config.schema import Config, StageConfig


def test_a_stage_has_every_field_of_the_stages_of_python_and_their_defaults() -> None:
    assert set(StageConfig.model_fields) == set(DetectionSampling.model_fields)
    stage = StageConfig(num_of_samples=3).stage(seed=0)
    assert stage == DetectionSampling(selection_strategy="auto", num_of_samples=3)


def test_every_field_is_passed_on() -> None:
    values = {
        "selection_strategy": "hierarchical",
        "num_of_samples": 3,
        "num_of_boxes": 9.5,
        "num_of_minutes": 60.0,
        "seconds_per_frame": 3.0,
        "seconds_per_box": 7.0,
        "min_distance": 0.5,
        "class_quotas": {1: 2},
        "bbox_selection_policy": "sum",
        "sort_strategy": "ascending",
        "probs_weights": [1.0, 2.0],
        "class_weights": {1: 2.0},
        "use_null_detections": False,
        "null_policy": "skip",
        "num_of_clusters": 4,
        "seed": 7,
    }
    assert set(values) == set(StageConfig.model_fields)
    stage = StageConfig.model_validate(values).stage(seed=1)
    assert stage.model_dump() == values


def test_no_kind_is_taken_for_another() -> None:
    for wrong in ({"batch": "8"}, {"batch": 8.0}, {"seed": True}, {"device": 0}, {"on_error": "ignore"}, {"conf": 2}):
        with pytest.raises(ValidationError):
            Config.model_validate(wrong)
