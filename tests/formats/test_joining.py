"""Boxes of several people beside a naive version that knows no arrays, and what the rules promise."""

from __future__ import annotations

import itertools
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.joining import check_join, joined_boxes, same_objects

Drawn = list[tuple[int, int, tuple[float, ...]]]  # person, class, box


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    """Boxes that jitter about few places, so that many of them overlap, and some are equal or have no area."""
    found = []
    for _ in range(draw(st.integers(0, 9))):
        left, top = draw(st.sampled_from([(0, 0), (4, 4), (40, 0)]))
        jitter = [draw(st.integers(0, 3)) for _ in range(4)]
        width, height = draw(st.sampled_from([(10, 10), (10, 5), (0, 6), (0, 0)]))
        x0, y0 = left + jitter[0], top + jitter[1]
        box = (float(x0), float(y0), float(x0 + width + jitter[2]), float(y0 + height + jitter[3]))
        found.append((draw(st.integers(0, 3)), draw(st.integers(0, 1)), box))
    return found


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    if one == other:
        return 1.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (areas[0] + areas[1] - width * height)


def naive(boxes: Drawn) -> list[list[int]]:
    """Again and again, of all pairs of groups that may be one, those of the pair of boxes that overlaps most."""
    groups = [[row] for row in range(len(boxes))]
    while True:
        best = None
        for one, other in itertools.combinations(range(len(groups)), 2):
            pairs = list(itertools.product(groups[one], groups[other]))
            people = [boxes[row][0] for row in groups[one] + groups[other]]
            if len(set(people)) < len(people):
                continue
            if any(boxes[a][1] != boxes[b][1] or iou(boxes[a][2], boxes[b][2]) < 0.5 for a, b in pairs):
                continue
            for a, b in pairs:
                key = (-iou(boxes[a][2], boxes[b][2]), sorted((boxes[a][2], boxes[b][2])), min(a, b), max(a, b))
                if best is None or key < best[0]:
                    best = (key, one, other)
        if best is None:
            return sorted(sorted(group) for group in groups)
        groups[best[1]] += groups.pop(best[2])


def columns(boxes: Drawn) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    corners = torch.tensor([box for _, _, box in boxes], dtype=torch.float64).reshape(-1, 4)
    return corners, torch.tensor([label for _, label, _ in boxes], dtype=torch.int64), [who for who, _, _ in boxes]


@settings(max_examples=400, deadline=None)
@given(boxes=drawn())
def test_groups_are_those_of_the_naive_version(boxes: Drawn) -> None:
    assert same_objects(*columns(boxes)) == naive(boxes)


@settings(max_examples=200, deadline=None)
@given(boxes=drawn(), absent=st.integers(0, 2))
def test_what_stays_of_the_majority_and_of_all(boxes: Drawn, absent: int) -> None:
    people = 4 + absent
    for join, needed in (("majority", people / 2), ("union", 0)):
        joined, groups = joined_boxes(*columns(boxes), people=people, join=join)
        assert groups == [group for group in naive(boxes) if len(group) > needed]
        corners = [[statistics.median(boxes[row][2][side] for row in group) for side in range(4)] for group in groups]
        assert joined.tolist() == corners


@settings(max_examples=200, deadline=None)
@given(boxes=drawn(), data=st.data())
def test_the_order_of_people_and_boxes_does_not_matter(boxes: Drawn, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(boxes))
    renamed = data.draw(st.permutations(range(4)))
    other = [(renamed[who], label, box) for who, label, box in shuffled]
    one, _ = joined_boxes(*columns(boxes), people=4, join="majority")
    two, _ = joined_boxes(*columns(other), people=4, join="majority")
    assert sorted(one.tolist()) == sorted(two.tolist())


def test_one_person_keeps_every_box_even_equal_ones() -> None:
    corners = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 2)
    joined, groups = joined_boxes(corners, torch.tensor([1, 1]), [0, 0], people=1, join="majority")
    assert joined.tolist() == corners.tolist()
    assert groups == [[0], [1]]


def test_half_is_no_majority_and_an_overlap_of_half_is_enough() -> None:
    corners = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    labels = torch.tensor([1, 1])
    assert joined_boxes(corners, labels, [0, 1], people=2, join="majority")[0].tolist() == [[0, 0, 1.5, 1]]
    assert len(joined_boxes(corners, labels, [0, 1], people=4, join="majority")[0]) == 0
    assert len(joined_boxes(corners, labels, [0, 1], people=3, join="majority")[0]) == 1
    assert len(joined_boxes(corners, labels, [0, 1], people=2, join="majority", min_iou=0.51)[0]) == 0


def test_boxes_that_overlap_in_a_chain_are_not_one_object() -> None:
    corners = torch.tensor([[0.0, 0.0, 10.0, 1.0], [3.0, 0.0, 13.0, 1.0], [6.0, 0.0, 16.0, 1.0]])
    groups = same_objects(corners, torch.zeros(3, dtype=torch.int64), [0, 1, 2])
    assert groups == [[0, 1], [2]]


def test_other_names_are_refused() -> None:
    check_join("refuse")
    with pytest.raises(InvalidInputError, match="`join` must be one of majority, union, latest, refuse; got 'vote'"):
        check_join("vote")
