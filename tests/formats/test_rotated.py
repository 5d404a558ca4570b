"""Envelopes of rotated boxes, beside the corners that a naive loop turns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.formats.rotated import envelopes

coordinates = st.floats(-500, 500, width=32)
sides = st.floats(0, 500, width=32)


def turned(box: list[float], degrees: float, about: str) -> list[float]:
    """By complex numbers: a turn is a product."""
    left, top, right, bottom = box
    pivot = complex(left, top) if about == "corner" else complex((left + right) / 2, (top + bottom) / 2)
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    points = [(complex(x, y) - pivot) * turn + pivot for x in (left, right) for y in (top, bottom)]
    xs, ys = [point.real for point in points], [point.imag for point in points]
    return [min(xs), min(ys), max(xs), max(ys)]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(coordinates, coordinates, sides, sides, st.floats(-720, 720, width=32)), min_size=1, max_size=6
    ),
    about=st.sampled_from(["center", "corner"]),
)
def test_envelopes_are_those_of_a_loop(rows: list[tuple[float, ...]], about: str) -> None:
    boxes = [[x, y, x + width, y + height] for x, y, width, height, _ in rows]
    angles = [angle for *_, angle in rows]
    found = envelopes(torch.tensor(boxes), torch.tensor(angles), about=about)
    expected = [turned(box, angle, about) for box, angle in zip(torch.tensor(boxes).tolist(), angles, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-3, rtol=1e-5)


def test_boxes_that_are_not_rotated_stay_as_they_are_to_the_last_bit() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.3, 0.7], [1.1, 2.2, 3.3, 4.4]])
    assert envelopes(boxes, torch.tensor([0.0, 0.0])).equal(boxes)
    assert envelopes(boxes, torch.tensor([0.0, 30.0]))[0].equal(boxes[0])


def test_a_point_has_itself_as_envelope() -> None:
    point = torch.tensor([[0.1, 0.2, 0.1, 0.2]])
    assert envelopes(point, torch.tensor([33.0])).equal(point)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(90.0, [1, -1, 3, 3]), (180.0, [0, 0, 4, 2]), (-90.0, [1, -1, 3, 3])]
)
def test_quarters_of_a_turn(degrees: float, expected: list[float]) -> None:
    found = envelopes(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([degrees]))
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32), atol=1e-6, rtol=0)


def test_no_boxes() -> None:
    assert envelopes(torch.empty(0, 4), torch.empty(0)).shape == (0, 4)
