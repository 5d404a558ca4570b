"""The fields of a stage, and every bound of them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from cval_torch.selection.stage import DetectionSampling


@pytest.mark.parametrize(
    ("strategy", "sort", "descending"),
    [
        ("entropy", None, True),
        ("least", None, True),
        ("probability", None, False),
        ("probability", "descending", True),
        ("entropy", "ascending", False),
        ("entropy", "descending", True),
    ],
)
def test_the_most_informative_come_first_unless_said(strategy: str, sort: str | None, descending: bool) -> None:
    stage = DetectionSampling.model_validate(
        {"num_of_samples": 1, "selection_strategy": strategy, "sort_strategy": sort}
    )
    assert stage.descending is descending


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_of_samples", 0),
        ("num_of_samples", -3),
        ("num_of_samples", 2.5),
        ("num_of_clusters", 0),
        ("num_of_clusters", -2),
        ("bbox_selection_policy", "median"),
        ("sort_strategy", "up"),
        ("probs_weights", [float("nan")]),
        ("probs_weights", [-1.0]),
        ("class_weights", {1: -1.0}),
        ("class_weights", {1: float("inf")}),
        ("class_weights", {"car": 1.0}),
        ("class_weights", "balance"),
        ("seed", -1),
        ("null_policy", "first"),
        ("num_of_samples", None),
        ("num_of_boxes", 0),
        ("num_of_boxes", -1.5),
        ("num_of_boxes", float("inf")),
        ("num_of_boxes", "many"),
        ("num_of_minutes", 0),
        ("num_of_minutes", float("nan")),
        ("seconds_per_frame", -1),
        ("seconds_per_box", float("inf")),
        ("min_distance", 0),
        ("min_distance", 2.13),
        ("min_distance", float("nan")),
        ("class_quotas", {}),
        ("class_quotas", {1: 0}),
        ("class_quotas", {"dog": 1}),
        ("class_quotas", [1, 2]),
    ],
)
def test_a_stage_refuses_by_name_also_when_changed(field: str, value: object) -> None:
    good = {"num_of_samples": 1, "selection_strategy": "margin"}
    with pytest.raises(ValueError, match=field):
        DetectionSampling.model_validate({**good, field: value})
    stage = DetectionSampling.model_validate(good)
    with pytest.raises(ValueError, match=field):
        setattr(stage, field, value)
    assert stage == DetectionSampling.model_validate(good)


def test_a_stage_says_how_much_in_frames_boxes_or_minutes() -> None:
    message = "`num_of_samples`, `num_of_boxes` or `num_of_minutes` must be given; got none of them"
    with pytest.raises(ValidationError, match=message):
        DetectionSampling(selection_strategy="entropy")
    stage = DetectionSampling(selection_strategy="entropy", num_of_boxes=30)
    assert stage.num_of_samples is None
    with pytest.raises(ValidationError, match=message):
        stage.num_of_boxes = None
    assert stage.num_of_boxes == 30
    stage.num_of_samples = 4
    stage.num_of_boxes = None
    assert (stage.num_of_samples, stage.num_of_boxes) == (4, None)
    stage.num_of_minutes = 9
    stage.num_of_samples = None
    with pytest.raises(ValidationError, match=message):
        stage.num_of_minutes = None
    assert stage.budget_fields == ("num_of_minutes",)


def test_seconds_go_with_minutes_and_are_not_all_0() -> None:
    with pytest.raises(ValidationError, match="`seconds_per_box` means nothing without a budget in `num_of_minutes`"):
        DetectionSampling(selection_strategy="entropy", num_of_samples=3, seconds_per_box=4)
    message = "`seconds_per_frame` and `seconds_per_box` must not both be 0"
    stage = DetectionSampling(selection_strategy="entropy", num_of_minutes=3, seconds_per_box=0)
    assert stage.minutes(99, frames=10) == pytest.approx(10 * 7.8 / 60)
    with pytest.raises(ValidationError, match=message):
        stage.seconds_per_frame = 0
    with pytest.raises(ValidationError, match=message):
        DetectionSampling(selection_strategy="entropy", num_of_minutes=3, seconds_per_box=0, seconds_per_frame=0)


def test_quotas_are_read_back_from_json() -> None:
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=9, class_quotas={3: 2, -1: 1})
    assert DetectionSampling.model_validate_json(stage.model_dump_json()).class_quotas == {3: 2, -1: 1}


def stage(strategy: Any = "entropy", n: int = 5, **options: Any) -> DetectionSampling:
    return DetectionSampling.model_validate({"selection_strategy": strategy, "num_of_samples": n, **options})


def test_a_stage_with_weights_travels() -> None:
    one = stage(class_weights={3: 2, 1: 0.5})
    assert pickle.loads(pickle.dumps(one)) == one
    assert DetectionSampling.model_validate_json(one.model_dump_json()) == one
