"""What targets of every kind say of a frame's objects."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from cval_torch.errors import InvalidInputError
from cval_torch.pool.targets import CollatedTarget, holds_only_id, read_boxes, read_target

CORNERS = [[10.0, 20.0, 40.0, 60.0], [0.0, 0.0, 5.0, 7.0]]
ROTATED = [name for name in ("XYWHR", "CXCYWHR", "XYXYXYXY") if hasattr(BoundingBoxFormat, name)]  # of new torchvision
SIDES = [[10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 5.0, 7.0]]


def boxes_of(rows: Any, form: str) -> BoundingBoxes:
    return BoundingBoxes(torch.tensor(rows), format=form, canvas_size=(99, 99))


@pytest.mark.parametrize(
    "target",
    [
        {"labels": torch.tensor([3, 1]), "boxes": torch.tensor(CORNERS)},
        {"labels": [3, 1], "boxes": CORNERS, "image_id": 7},
        {"labels": np.array([3, 1], dtype=np.uint8), "boxes": np.array(CORNERS)},
        {"labels": torch.tensor([3, 1]).int(), "boxes": boxes_of(CORNERS, "XYXY")},
        {"labels": torch.tensor([3, 1]), "boxes": boxes_of(SIDES, "XYWH"), "annotation": {}},
        {"labels": torch.tensor([3, 1]), "boxes": boxes_of([[25.0, 40, 30, 40], [2.5, 3.5, 5, 7]], "CXCYWH")},
        {"labels": [3, 9, 1], "boxes": [CORNERS[0], [0, 0, 90, 90], CORNERS[1]], "iscrowd": [0, 1, 0]},
        {"labels": [3, 1], "boxes": torch.tensor(CORNERS).long(), "iscrowd": torch.zeros(2, dtype=torch.int64)},
        {"labels": [3, 1], "boxes": torch.tensor(CORNERS, requires_grad=True)},
    ],
)
def test_labels_and_corners(target: Any) -> None:
    labels, boxes = read_target(target, "the target")
    assert labels.dtype == torch.int64
    assert labels.tolist() == [3, 1]
    assert boxes is not None
    assert type(boxes) is torch.Tensor
    assert boxes.is_floating_point()
    assert boxes.tolist() == CORNERS


@pytest.mark.parametrize(
    "target",
    [
        {"image_id": 7},
        {"image_id": torch.tensor([7])},
        [],
        {"labels": []},
        {"labels": torch.zeros(0), "boxes": torch.zeros(0, 4)},
        {"labels": torch.zeros(0, dtype=torch.int64), "boxes": []},
        {"labels": [], "boxes": BoundingBoxes(torch.zeros(0, 4), format="XYWH", canvas_size=(9, 9))},
        {"labels": [2], "boxes": [[0, 0, 9, 9]], "iscrowd": [1]},
    ],
)
def test_frames_without_objects(target: Any) -> None:
    labels, boxes = read_target(target, "the target")
    assert (labels.dtype, labels.tolist()) == (torch.int64, [])
    assert boxes is None or tuple(boxes.shape) == (0, 4)


def test_labels_alone_have_no_boxes() -> None:
    assert read_target({"labels": [2], "image_id": 7}, "the target")[1] is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, r"^T must be a dict with `labels` \(and `boxes`\), or the labels; got a dict with \[\]. Do so$"),
        ({"image_id": 7, "size": 3}, r"got a dict with \['image_id', 'size'\]. Do so"),
        (None, "got none. Do so"),
        (
            CollatedTarget(image_id=7),
            r"got a row of columns.*`collate_fn=lambda batch: tuple\(zip\(\*batch\)\)`. Do so",
        ),
        (
            [{"bbox": [0, 0, 1, 1]}],
            r"got a list of dicts with \['bbox'\]. Wrap .*wrap_dataset_for_transforms_v2`. Do so",
        ),
        ({"annotation": {}}, r"got a dict with \['annotation'\]. Wrap .*wrap_dataset_for_transforms_v2`. Do so"),
        ({"labels": [[1]]}, r"`labels` of T must be \(n,\) integers; got \(1, 1\) of torch.int64"),
        ({"labels": [1], "boxes": [[0, 0, 1]]}, r"`boxes` of T must be \(n, 4\) xyxy with n=1 labels; got \(1, 3\)"),
        ({"labels": [1], "boxes": "all"}, r"`boxes` of T must be .*; got str"),
        (
            {"labels": [1], "boxes": [[5, 0, 1, 1]]},
            r"`boxes` of T must be xyxy, x1 >= x0 .*; got \[5.0, 0.0, 1.0, 1.0\]",
        ),
        ({"labels": [1], "boxes": boxes_of([[5.0, 5, -2, 1]], "XYWH")}, r"must be xyxy.*; got \[5.0, 5.0, 3.0, 6.0\]"),
        (
            {"labels": [1], "iscrowd": [0, 1]},
            r"`iscrowd` of T must be 0 or 1 for each of its 1 labels; got list \[0, 1\]",
        ),
        ({"labels": [1], "iscrowd": [2]}, r"`iscrowd` of T must be 0 or 1 .*; got list \[2\]"),
        ({"labels": [1], "iscrowd": "no"}, r"`iscrowd` of T must be 0 or 1 .*; got str 'no'"),
    ],
)
def test_what_is_not_understood_is_refused(target: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_target(target, "T", remedy="Do so")


@pytest.mark.parametrize("form", ROTATED)
def test_rotated_boxes_are_refused_by_name(form: str) -> None:
    boxes = BoundingBoxes(torch.rand(1, 8 if form == "XYXYXYXY" else 5), format=form, canvas_size=(9, 9))
    with pytest.raises(InvalidInputError, match=f"`boxes` of T must have sides .* got the format {form}"):
        read_target({"labels": [1], "boxes": boxes}, "T")


@pytest.mark.parametrize(
    ("boxes", "corners"),
    [
        (boxes_of(SIDES, "XYWH"), CORNERS),
        (np.array(CORNERS, dtype=np.float32), CORNERS),
        ([[40, 60, 10, 20]], [[40.0, 60.0, 10.0, 20.0]]),  # upside down
        ([], []),
        (torch.zeros(0), []),
    ],
)
def test_boxes_alone(boxes: Any, corners: list[list[float]]) -> None:
    found = read_boxes({"boxes": boxes}, "T")
    assert type(found) is torch.Tensor
    assert found.is_floating_point()
    assert found.shape == (len(corners), 4)
    assert found.tolist() == corners


@pytest.mark.parametrize(
    "target", [{"image_id": 7}, {"labels": [1]}, {"annotation": {}, "labels": []}, [], [3], None, 3]
)
def test_targets_without_boxes(target: Any) -> None:
    assert read_boxes(target, "T").shape == (0, 4)


@pytest.mark.parametrize("target", [[{"bbox": [0, 0, 1, 1]}], {"annotation": {"object": []}}])
def test_boxes_of_datasets_that_are_not_wrapped_are_refused(target: Any) -> None:
    message = r"^T must be a dict with `boxes`; got .*\. Wrap .* by `torchvision.*wrap_dataset_for_transforms_v2`\.$"
    with pytest.raises(InvalidInputError, match=message):
        read_boxes(target, "T")


def test_a_collated_row_is_not_an_empty_frame() -> None:
    assert holds_only_id({"image_id": 7})
    assert not holds_only_id(CollatedTarget(image_id=7))
    assert not holds_only_id([7])


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda values: torch.tensor(values).int()])
@given(labels=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5))
@settings(deadline=None, max_examples=20)
def test_labels_of_any_kind(kind: Any, labels: list[int]) -> None:
    boxes = [[float(k), 0.0, k + 1.0, 2.0] for k in range(len(labels))]
    made = kind(labels) if labels else []
    assert read_target(made, "a target")[0].tolist() == labels
    found, corners = read_target({"labels": made, "boxes": np.array(boxes)}, "a")
    assert found.dtype == torch.int64
    assert found.tolist() == labels
    assert corners is not None
    assert corners.reshape(-1, 4).tolist() == boxes
