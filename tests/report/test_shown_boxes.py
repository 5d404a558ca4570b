"""Which boxes are shown, and where."""

from __future__ import annotations

import pytest
import torch

from cval_torch.pool.pool import Pool
from cval_torch.report.shown_boxes import MOST_BOXES, shown_boxes
from cval_torch.report.thumbnails import Picture
from cval_torch.report.wording import ClassNames

HALF = Picture("data:", 0.5, 320, 160)
NAMES = ClassNames(["cat", "dog"])


def pool_of(count: int, **columns) -> Pool:
    return Pool(["before", "a"], torch.tensor([0, 1, 1 + count]), **columns)


def shown(pool: Pool, **options):
    return shown_boxes(pool, 1, HALF, NAMES, **{"min_score": 0.3, "decisive": None, **options})


def test_boxes_are_scaled_and_clipped_to_the_picture() -> None:
    boxes = torch.tensor([[0, 0, 1, 1], [10, 20, 30, 60], [-50, 10, 900, 40.0], [700, 0, 800, 9]])
    found = shown(pool_of(3, boxes=boxes))
    assert [box.corners for box in found.drawn] == [(0, 5, 320, 15), (5, 10, 10, 20), None]
    assert found.total == 3


def test_the_surest_are_shown_and_the_one_that_decides() -> None:
    scores = torch.tensor([0.5, *(0.2 + 0.02 * row for row in range(30))])
    found = shown(pool_of(30, scores=scores), decisive=0)
    assert len(found.drawn) == MOST_BOXES
    told = [found.drawn[place] for place in found.ranked]
    assert [box.score for box in told[:3]] == pytest.approx([0.78, 0.76, 0.74])
    assert [box.decides for box in told] == [False] * 19 + [True]
    assert told[-1].score == pytest.approx(0.2)


def test_boxes_below_the_least_score_are_left_out() -> None:
    found = shown(pool_of(3, scores=torch.tensor([0.9, 0.9, 0.3, 0.29]), labels=torch.tensor([0, 1, 0, 1])))
    assert [(box.name, round(box.score, 2)) for box in found.drawn] == [("dog", 0.9), ("cat", 0.3)]
    assert found.labels == (0, 1)


def test_small_boxes_lie_above_large_ones() -> None:
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 20, 20], [0, 0, 200, 200], [0, 0, 60, 60.0]])
    found = shown(pool_of(3, boxes=boxes, scores=torch.tensor([1, 0.9, 0.8, 0.7])))
    assert [box.corners[2] for box in found.drawn] == [100, 30, 10]
    assert [found.drawn[place].score for place in found.ranked] == pytest.approx([0.9, 0.8, 0.7])


def test_class_vectors_have_the_most_probable_classes_and_the_rest() -> None:
    probabilities = torch.tensor([[1.0, 0, 0], [0.1, 0.65, 0.25]])
    found = shown(pool_of(1, probabilities=probabilities, activation="softmax"))
    assert found.drawn[0].vector_text == "dog 0.65, class 2 0.25, cat 0.10"
    wide = torch.full((2, 20), 0.05)
    (box,) = shown(pool_of(1, probabilities=wide, activation="softmax")).drawn
    assert box.vector_text.endswith("others 0.75")
    (box,) = shown(pool_of(1, probabilities=wide, activation="sigmoid")).drawn
    assert box.others == 0


def test_any_column_may_be_missing() -> None:
    found = shown(pool_of(2))
    assert [(box.corners, box.label, box.name, box.score, box.vector) for box in found.drawn] == [
        (None, None, "", None, ())
    ] * 2
    assert found.labels == ()
    assert shown_boxes(pool_of(0), 1, HALF, NAMES, min_score=0, decisive=None).total == 0


def test_no_picture_no_places() -> None:
    pool = pool_of(1, boxes=torch.ones(2, 4))
    broken = Picture("", 1.0, 320, 240, fault="OSError")
    assert shown_boxes(pool, 1, broken, NAMES, min_score=0, decisive=None).drawn[0].corners is None
