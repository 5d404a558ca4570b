"""`Annotations`: what it fills in, what it refuses, and its parts beside naive loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from annotated import annotations
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations


def marked(**columns: Any) -> Annotations:
    """Three frames with two boxes, none, and one."""
    given = {
        "file_names": ["a.jpg", "b.jpg", "c.jpg"],
        "offsets": torch.tensor([0, 2, 2, 3]),
        "boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 9.0, 9.0]]),
        "labels": torch.tensor([1, 4, 1]),
        "class_names": {1: "bolt", 4: "nut"},
    }
    return Annotations(**{**given, **columns})


def test_what_is_not_given_is_not_known() -> None:
    found = marked()
    assert found.frame_ids == (None, None, None)
    assert found.is_annotated.tolist() == [True] * 3
    assert found.sizes.tolist() == [[0, 0]] * 3
    assert found.scores.isnan().all()
    assert found.is_crowd.tolist() == [False] * 3
    assert found.ranks.tolist() == [0] * 3
    assert found.uncertainties.isnan().all()
    assert found.rounds.tolist() == [-1] * 3
    assert (found.skipped, found.notes) == ((), ())
    assert repr(found) == "Annotations(3 frames, 3 annotated, 3 boxes, 2 classes)"
    assert len(found) == 3


def test_columns_have_the_types_that_are_documented() -> None:
    found = marked(
        boxes=marked().boxes.double().requires_grad_(),
        labels=torch.tensor([1, 4, 1], dtype=torch.int32),
        scores=torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64),
        sizes=torch.tensor([[1, 2]] * 3, dtype=torch.int16),
        uncertainties=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float32),
    )
    assert (found.boxes.dtype, found.boxes.requires_grad) == (torch.float32, False)
    kinds = {name: getattr(found, name).dtype for name in ("labels", "scores", "sizes", "uncertainties")}
    assert kinds == {
        "labels": torch.int64,
        "scores": torch.float32,
        "sizes": torch.int64,
        "uncertainties": torch.float64,
    }


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"offsets": torch.tensor([0, 2, 3])}, r"`offsets` must be \(4,\)"),
        ({"offsets": torch.tensor([1, 2, 2, 3])}, "start at 0"),
        ({"offsets": torch.tensor([0, 2, 1, 3])}, "never fall"),
        ({"offsets": torch.tensor([0, 2, 2, 4])}, r"`labels` must be \(4,\), as `offsets` says; got \(3,\)"),
        ({"boxes": torch.zeros(2, 4)}, r"`boxes` must be \(3, 4\); got \(2, 4\)"),
        ({"boxes": torch.zeros(3, 5)}, r"`boxes` must be \(3, 4\); got \(3, 5\)"),
        ({"sizes": torch.zeros(3)}, r"`sizes` must be \(3, 2\); got \(3,\)"),
        ({"scores": torch.zeros(2)}, r"`scores` must be \(3,\); got \(2,\)"),
        ({"is_crowd": torch.zeros(4, dtype=torch.bool)}, r"`is_crowd` must be \(3,\)"),
        ({"is_annotated": torch.zeros(2, dtype=torch.bool)}, r"`is_annotated` must be \(3,\)"),
        ({"ranks": torch.zeros(2, dtype=torch.int64)}, r"`ranks` must be \(3,\)"),
        ({"uncertainties": torch.zeros(2)}, r"`uncertainties` must be \(3,\)"),
        ({"rounds": torch.zeros(2, dtype=torch.int64)}, r"`rounds` must be \(3,\)"),
        ({"frame_ids": ["a"]}, "`frame_ids` must be 3, one a file name; got 1"),
        ({"frame_ids": ["a", None, "a"], "source": "FILE"}, "the frame 'a' stands twice in FILE"),
        ({"class_names": {1: "bolt", 4: "bolt"}}, "the names of classes must be distinct"),
        ({"class_names": {1: "bolt"}}, r"`class_names` must name every label; got the label 4 in 'a\.jpg'"),
        ({"boxes": torch.tensor([[0.0] * 4, [0.0] * 4, [3.0, 0.0, 1.0, 1.0]])}, r"left upper corner first.* 'c\.jpg'"),
        ({"boxes": torch.tensor([[0.0] * 4, [0.0, 5.0, 1.0, 1.0], [0.0] * 4])}, r"left upper corner first.* 'a\.jpg'"),
        ({"boxes": torch.tensor([[0.0] * 4, [0.0] * 4, [0.0, 0.0, 1.0, torch.nan]])}, r"finite.* 'c\.jpg' of the anno"),
        ({"boxes": torch.tensor([[0.0] * 4, [0.0] * 4, [0.0, 0.0, 1.0, torch.inf]])}, "finite"),
    ],
)
def test_what_is_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        marked(**columns)


@settings(max_examples=60, deadline=None)
@given(given=annotations(), data=st.data())
def test_taking_frames_is_what_a_loop_takes(given: Annotations, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(given) - 1), max_size=6, unique=True))
    found = given.take(rows)
    assert found.frame_ids == tuple(given.frame_ids[row] for row in rows)
    assert found.file_names == tuple(given.file_names[row] for row in rows)
    for name in ("sizes", "is_annotated", "ranks", "uncertainties", "rounds"):
        assert getattr(found, name).tolist() == [getattr(given, name)[row].tolist() for row in rows]
    for place, row in enumerate(rows):
        mine = slice(int(found.offsets[place]), int(found.offsets[place + 1]))
        theirs = slice(int(given.offsets[row]), int(given.offsets[row + 1]))
        for name in ("boxes", "labels", "scores", "is_crowd"):
            torch.testing.assert_close(getattr(found, name)[mine], getattr(given, name)[theirs], equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(given=annotations(), data=st.data())
def test_targets_are_what_a_detector_can_train_on(given: Annotations, data: st.DataObject) -> None:
    count = len(given.labels)
    crowds = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    given = given.replace(is_crowd=torch.tensor(crowds, dtype=torch.bool))
    for row in range(len(given)):
        boxes, labels = [], []
        for place in range(int(given.offsets[row]), int(given.offsets[row + 1])):
            left, top, right, bottom = given.boxes[place].tolist()
            if right > left and bottom > top and not crowds[place]:
                boxes.append([left, top, right, bottom])
                labels.append(int(given.labels[place]))
        target = given.target(row)
        assert target["boxes"].shape == (len(boxes), 4)
        assert (target["boxes"].tolist(), target["labels"].tolist()) == (boxes, labels)


def test_names_of_boxes_and_labels_of_names() -> None:
    found = marked(source="FILE")
    assert [found.name_of_box(row) for row in range(3)] == ["'a.jpg' of FILE", "'a.jpg' of FILE", "'c.jpg' of FILE"]
    assert found.by_name(["nut", "bolt"]).tolist() == [4, 1]
    assert found.counts.tolist() == [2, 0, 1]


def test_replaced_columns_are_checked_and_the_others_kept() -> None:
    found = marked(ranks=torch.tensor([3, 1, 2]), notes=["note"])
    again = found.replace(rounds=torch.tensor([1, 1, 1]))
    assert (again.ranks.tolist(), again.rounds.tolist(), again.notes) == ([3, 1, 2], [1, 1, 1], ("note",))
    assert found.rounds.tolist() == [-1] * 3
    with pytest.raises(InvalidInputError, match="stands twice"):
        found.replace(frame_ids=["a", "b", "a"])
