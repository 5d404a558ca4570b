"""Reading what is annotated in the frames of a pool."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from labelled_boxes import pool_of
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from cval_torch.comparison.label_issue_targets import read_annotations
from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool

BOX, OTHER = [1.0, 2.0, 5.0, 6.0], [3.0, 3.0, 9.0, 9.0]


def three_frames() -> Pool:
    return pool_of([(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))] * 3)


def test_frames_in_order_and_by_id() -> None:
    target = {"boxes": [BOX], "labels": [7]}
    for targets in ([None, target, {"image_id": 3}], {"f2": {"image_id": 3}, "f1": target, "f0": None, "x": None}):
        found = read_annotations(three_frames(), targets)
        assert found.rows.tolist() == [1, 2]
        assert found.objects.frame_ids == ("f1", "f2")
        assert found.objects.counts.tolist() == [1, 0]
        assert (found.objects.boxes.tolist(), found.objects.labels.tolist()) == ([BOX], [7])
    assert read_annotations(three_frames(), {"f1": target}).rows.tolist() == [1]
    assert len(read_annotations(three_frames(), [None] * 3).objects) == 0


def test_crowds_are_kept_apart_and_places_are_those_of_the_target() -> None:
    target = {"boxes": [OTHER, BOX], "labels": [7, 8], "iscrowd": [1, 0]}
    found = read_annotations(three_frames(), [target, {"boxes": [BOX], "labels": [1]}, None])
    assert found.places.tolist() == [1, 0]
    assert found.objects.labels.tolist() == [8, 1]
    assert (found.crowds.counts.tolist(), found.crowds.boxes.tolist()) == ([1, 0], [OTHER])
    assert found.crowds.labels.tolist() == [7]


def test_boxes_in_another_format() -> None:
    boxes = BoundingBoxes([[3, 4, 4, 4]], format=BoundingBoxFormat.CXCYWH, canvas_size=(9, 9))
    found = read_annotations(three_frames(), {"f0": {"boxes": boxes, "labels": torch.tensor([1])}})
    assert found.objects.boxes.tolist() == [BOX]


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([None], "one for each of the 3 frames of the pool, in its order; got 1"),
        ("abc", "got str"),
        (torch.zeros(3), "got Tensor"),
        (7, "got int"),
        ({"a.jpg": None}, "must have ids of the pool, such as 'f0'; it has 1 others, such as 'a.jpg'"),
        ([None, {"labels": [1]}, None], "frame 'f1' must have `boxes`"),
        ([None, [1, 2], None], "frame 'f1' must have `boxes`"),
        ([None, {"labels": [1], "boxes": [[9, 9, 1, 1]]}, None], "frame 'f1' must be xyxy"),
        ([None, {"things": 1}, None], "frame 'f1' must be a dict with `labels`.*Pass None for a frame"),
    ],
)
def test_what_is_not_understood_is_refused(targets: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_annotations(three_frames(), targets)
