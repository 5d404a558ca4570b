"""What an adapter read: its form, and whether its numbers are what their columns stand for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from cval_torch.errors import HookError
from cval_torch.hooks.base import FrameBatch
from cval_torch.hooks.checking import check_form, faults_of

SIZES = [(100, 200), (50, 60)]  # (height, width)


def right() -> FrameBatch:
    """Two frames with two boxes and one box."""
    probabilities = torch.tensor([[0.1, 0.7, 0.2], [0.3, 0.1, 0.6], [0.05, 0.9, 0.05]])
    return FrameBatch(
        counts=torch.tensor([2, 1]),
        boxes=torch.tensor([[0.0, 0.0, 150.0, 99.0], [20.0, 30.0, 20.0, 40.0], [1.0, 2.0, 60.0, 50.0]]),
        labels=torch.tensor([1, 2, 1]),
        scores=torch.tensor([0.7, 0.6, 0.9]),
        probabilities=probabilities,
        activation="softmax",
        box_embeddings=torch.zeros(3, 4),
        frame_embeddings=torch.zeros(2, 5),
    )


def changed(**columns: Any) -> FrameBatch:
    return dataclasses.replace(right(), **columns)


def scaled(by: float) -> Tensor:
    return right().boxes * by


def test_what_is_right_passes() -> None:
    check_form(right(), 2, "mine")
    assert faults_of(right(), SIZES) == []
    few = changed(probabilities=None, activation=None, box_embeddings=None, frame_embeddings=None)
    check_form(few, 2, "mine")
    assert faults_of(few, None) == []


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_integers_of_other_widths_pass(dtype: torch.dtype) -> None:
    check_form(
        changed(counts=torch.tensor([2, 1], dtype=dtype), labels=torch.tensor([1, 2, 1], dtype=dtype)), 2, "mine"
    )


def test_half_precision_passes() -> None:
    half = changed(**{name: getattr(right(), name).bfloat16() for name in ("scores", "probabilities", "boxes")})
    check_form(half, 2, "mine")
    assert faults_of(half, SIZES) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"counts": [2, 1]}, r"`counts` of mine must be a tensor \(N,\); got list"),
        ({"counts": torch.tensor([[2, 1]])}, r"`counts` of mine must be \(N,\); got \(1, 2\)"),
        ({"counts": torch.tensor([2.0, 1.0])}, "mine must count boxes in integers from 0"),
        ({"counts": torch.tensor([4, -1])}, "mine must count boxes in integers from 0"),
        ({"counts": torch.tensor([2, 1, 0])}, "mine read 3 frames of a batch of 2"),
        ({"counts": torch.tensor([2, 2])}, r"`boxes` of mine must be \(B, 4\) with B=4; got \(3, 4\)"),
        ({"boxes": torch.zeros(3, 5)}, r"`boxes` of mine must be \(B, 4\) with B=3; got \(3, 5\)"),
        ({"boxes": None}, r"`boxes` of mine must be a tensor \(B, 4\); got NoneType"),
        ({"boxes": torch.zeros(3, 4, dtype=torch.int64)}, "`boxes` of mine must be floating-point numbers"),
        ({"labels": ["a", "b", "c"]}, r"`labels` of mine must be a tensor \(B,\); got list"),
        ({"labels": torch.zeros(3)}, "`labels` of mine must be integers; got torch.float32"),
        ({"labels": torch.zeros(3, dtype=torch.bool)}, "`labels` of mine must be integers; got torch.bool"),
        ({"scores": torch.zeros(3, 1)}, r"`scores` of mine must be \(B,\) with B=3; got \(3, 1\)"),
        ({"probabilities": torch.zeros(3)}, r"`probabilities` of mine must be \(B, C\) with B=3; got \(3,\)"),
        ({"box_embeddings": torch.zeros(2, 4)}, r"`box_embeddings` of mine must be \(B, E\) with B=3; got \(2, 4\)"),
        ({"frame_embeddings": torch.zeros(3, 4)}, r"`frame_embeddings` of mine must be \(N, D\) with N=2; got"),
        ({"activation": None}, r"mine must say the `activation` of its `probabilities`.*got activation=None"),
        ({"probabilities": None}, "mine must say the `activation`"),
    ],
)
def test_other_forms_are_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(HookError, match=message):
        check_form(changed(**columns), 2, "mine")


def test_another_type_is_named() -> None:
    with pytest.raises(HookError, match="`read` of mine must return a FrameBatch; got dict"):
        check_form({"boxes": right().boxes}, 2, "mine")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": torch.tensor([1, 3, 1])}, "columns of `probabilities`, in [0, 3); got 3 in row 1"),
        ({"labels": torch.tensor([1, 2, -1])}, "columns of `probabilities`, in [0, 3); got -1 in row 2"),
        ({"labels": torch.tensor([0, 1, 0])}, "row 2 has the score 0.900, and 0.050 in column 0"),
        ({"scores": torch.tensor([0.7, 0.6, 0.8])}, "row 2 has the score 0.800, and 0.900 in column 1"),
        ({"scores": torch.tensor([0.7, torch.nan, 0.9])}, "row 1 has the score nan"),
        ({"probabilities": right().probabilities[:, :2], "labels": torch.tensor([1, 1, 1])}, "`scores` must be"),  # type: ignore[index]
        ({"boxes": right().boxes[:, [2, 1, 0, 3]]}, "row 0 is (150.0, 0.0, 0.0, 99.0). Convert"),
        ({"boxes": right().boxes[:, [0, 3, 2, 1]]}, "row 0 is (0.0, 99.0, 150.0, 0.0). Convert"),
        ({"boxes": scaled(1 / 200)}, "all are in [0, 1]. Multiply"),
        ({"boxes": scaled(2.5)}, "row 0, (0.0, 0.0, 375.0, 247.5), is outside its image of 200 x 100 pixels"),
        ({"boxes": right().boxes - 80}, "row 0, (-80.0, -80.0, 70.0, 19.0), is outside its image of 200 x 100"),
    ],
)
def test_wrong_numbers_are_named(columns: dict[str, Any], message: str) -> None:
    faults = faults_of(changed(**columns), SIZES)
    assert any(message in fault for fault in faults), faults


def test_a_softmax_without_its_background_column_is_named() -> None:
    probabilities = right().probabilities
    assert probabilities is not None
    cut = changed(probabilities=probabilities[:, 1:], labels=torch.tensor([0, 1, 0]))
    (fault,) = faults_of(cut, SIZES)
    assert "must sum to 1; those of row 1 sum to 0.700" in fault
    assert faults_of(dataclasses.replace(cut, activation="sigmoid"), SIZES) == []


def test_several_faults_are_named_together() -> None:
    faults = faults_of(changed(scores=torch.zeros(3), boxes=scaled(1 / 200)), SIZES)
    assert [fault.split("`")[1] for fault in faults] == ["scores", "boxes"]


def test_boxes_are_not_compared_with_images_of_unknown_size() -> None:
    assert faults_of(changed(boxes=scaled(2.5)), None) == []


def test_boxes_of_no_size_at_the_corner_are_not_taken_for_scaled_ones() -> None:
    assert faults_of(changed(boxes=torch.zeros(3, 4)), SIZES) == []


def test_no_boxes_have_no_faults() -> None:
    empty = FrameBatch(torch.tensor([0, 0]), torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0))
    check_form(empty, 2, "mine")
    assert faults_of(empty, SIZES) == []
