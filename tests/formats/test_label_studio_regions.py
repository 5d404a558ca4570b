"""Regions of Label Studio as boxes, beside corners and points that are turned one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.label_studio_regions import Tally, read_regions
from cval_torch.formats.rotated import envelopes

WIDTH, HEIGHT = 200, 100
percents = st.floats(0, 100)


def region(kind: str = "rectanglelabels", value: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    shapes = {
        "rectanglelabels": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0},
        "polygonlabels": {"points": [[10, 20], [40, 30], [20, 60]], "closed": True},
        "ellipselabels": {"x": 25, "y": 40, "radiusX": 15, "radiusY": 20, "rotation": 0},
    }
    return {
        "id": "r1",
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**shapes.get(kind, {}), kind: ["bolt"]} if value is None else value,
        **more,
    }


def boxes_of(*regions: dict[str, Any]) -> list[list[float]]:
    """As a load makes them."""
    found, size = read_regions(list(regions), "HERE", Tally())
    assert size == (WIDTH, HEIGHT)
    corners = torch.tensor([each.box for each in found], dtype=torch.float64).reshape(-1, 4)
    return envelopes(corners, torch.tensor([each.degrees for each in found]), about="corner").tolist()


def test_each_shape_in_pixels() -> None:
    found = boxes_of(region(), region("polygonlabels"), region("ellipselabels"))
    assert found == [[20, 20, 80, 60]] * 3


@settings(max_examples=200, deadline=None)
@given(x=percents, y=percents, width=percents, height=percents, degrees=st.floats(-720, 720))
def test_a_rotated_box_is_turned_about_its_left_upper_corner_in_pixels(
    x: float, y: float, width: float, height: float, degrees: float
) -> None:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": degrees, "rectanglelabels": ["bolt"]}
    left, top, across, down = x * WIDTH / 100, y * HEIGHT / 100, width * WIDTH / 100, height * HEIGHT / 100
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [
        (left + a * cos - b * sin, top + a * sin + b * cos) for a, b in ((0, 0), (across, 0), (across, down), (0, down))
    ]
    xs, ys = zip(*corners, strict=True)
    assert boxes_of(region(value=value))[0] == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(radius_x=percents, radius_y=percents, degrees=st.floats(-360, 360))
def test_an_ellipse_is_held_by_its_box_and_touches_it(radius_x: float, radius_y: float, degrees: float) -> None:
    value = {
        "x": 50,
        "y": 50,
        "radiusX": radius_x,
        "radiusY": radius_y,
        "rotation": degrees,
        "ellipselabels": ["bolt"],
    }
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = []
    for step in range(3600):
        turn = math.tau * step / 3600
        a, b = radius_x * WIDTH / 100 * math.cos(turn), radius_y * HEIGHT / 100 * math.sin(turn)
        points.append((100 + a * cos - b * sin, 50 + a * sin + b * cos))
    xs, ys = zip(*points, strict=True)
    found = boxes_of(region("ellipselabels", value))[0]
    assert found == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=1e-2)


def test_a_view_that_was_turned_changes_nothing() -> None:
    assert boxes_of(region(image_rotation=90)) == [[20, 20, 80, 60]]


def test_the_same_region_once_bare_and_once_with_its_class_is_one_box() -> None:
    geometry = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    bare, named = region("rectangle", geometry), region("labels", {**geometry, "labels": ["nut"]})
    found, _ = read_regions([bare, named], "HERE", Tally())
    assert [each.name for each in found] == ["nut"]
    for value in ({"points": [[10, 20], [40, 60]]}, {"x": 25, "y": 40, "radiusX": 15, "radiusY": 20}):
        assert boxes_of(region("labels", {**value, "labels": ["nut"]})) == [[20, 20, 80, 60]]
    with pytest.raises(InvalidInputError, match=r"region 0 of HERE has no class. Give it one in Label Studio"):
        read_regions([bare], "HERE", Tally())


def test_what_is_no_box_is_counted() -> None:
    tally = Tally()
    others = [
        region("brushlabels", {"format": "rle", "rle": [1], "brushlabels": ["bolt"]}),
        region("labels", {"format": "rle", "rle": [1], "labels": ["bolt"]}),
        region("keypointlabels", {"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["bolt"]}),
        {"type": "choices", "value": {"choices": ["blurred"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
    ]
    found, size = read_regions([*others, region("polygonlabels")], "HERE", tally)
    assert (len(found), size) == (1, (WIDTH, HEIGHT))
    assert tally.notes() == [
        "1 polygons and ellipses became the smallest upright boxes that hold them",
        "5 results that are no boxes were left out; they are of the types brushlabels, choices, keypointlabels, "
        "labels, relation",
    ]


def test_several_classes_become_several_boxes() -> None:
    tally = Tally()
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": ["bolt", "nut", "bolt"]}
    found, _ = read_regions([region(value=value)], "HERE", tally)
    assert [each.name for each in found] == ["bolt", "nut"]
    assert "1 regions have several classes" in tally.notes()[0]


def test_scores_and_crowds() -> None:
    regions = [region(score=0.5), region(score=None), region(meta={"text": ["crowd"]}), region(meta={"text": "crowd"})]
    found, _ = read_regions(regions, "HERE", Tally())
    assert found[0].score == 0.5
    assert all(math.isnan(each.score) for each in found[1:])
    assert [each.crowd for each in found] == [False, False, True, True]


def test_no_result_is_none_drawn() -> None:
    assert read_regions([], "HERE", Tally()) == ([], None)
    assert read_regions(None, "HERE", Tally()) == ([], None)


def rectangle(**changed: Any) -> dict[str, Any]:
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": ["bolt"], **changed}
    return region(value={key: each for key, each in value.items() if each != "gone"})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("text", "HERE must have a list as `result`; got 'text'"),
        ([7], "region 1 of HERE must be an object; got 7"),
        ([{}], "must have a text as `type`; got None"),
        ([region(value=[])], r"must have an object as `value`; got \[\]"),
        ([region("labels", "x")], "must have an object as `value`; got 'x'"),
        ([rectangle(x="gone")], "has no `x`; its keys are y, width"),
        ([rectangle(x="1")], "must have finite numbers as `x`; got '1'"),
        ([rectangle(y=math.nan)], "finite numbers as `y`; got nan"),
        ([rectangle(width=10**400)], "finite numbers as `width`"),
        ([rectangle(height=True)], "finite numbers as `height`; got True"),
        ([rectangle(width=-1)], "`width` and a `height` of 0 or more; got -1"),
        ([rectangle(rotation=None)], "finite numbers as `rotation`; got None"),
        ([rectangle(rectanglelabels=[])], "has no class"),
        ([rectangle(rectanglelabels="gone")], "has no class"),
        ([rectangle(rectanglelabels="bolt")], "a list of names as `rectanglelabels`; got 'bolt'"),
        ([rectangle(rectanglelabels=[7])], r"a list of names as `rectanglelabels`; got \[7\]"),
        ([rectangle(rectanglelabels=[""])], "a list of names"),
        ([region(original_width=None)], "finite numbers as `original_width`; got None"),
        ([region(original_height=0)], "a number of pixels as `original_height`; got 0"),
        ([region(original_height=1e300)], "a number of pixels as `original_height`"),
        ([region(original_width=100)], "the image was exchanged"),
        ([region(score=1.5)], r"a `score` in \[0, 1\]; got 1.5"),
        ([region(score="high")], "finite numbers as `score`; got 'high'"),
        ([region(item_index=1)], "of another image than the first"),
        ([region("polygonlabels", {"points": [], "polygonlabels": ["bolt"]})], r"points as `points`; got \[\]"),
        ([region("polygonlabels", {"points": [[1]], "polygonlabels": ["bolt"]})], r"points \[x, y\] in `points`"),
        ([region("polygonlabels", {"points": [[1, "a"]], "polygonlabels": ["bolt"]})], "numbers as `points`; got 'a'"),
        ([region("ellipselabels", {"x": 1, "y": 1, "ellipselabels": ["bolt"]})], "has no `radiusX`"),
    ],
)
def test_what_is_malformed_is_refused_by_its_place(result: Any, message: str) -> None:
    given = [region(), *result] if isinstance(result, list) else result
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_regions(given, "HERE", Tally())
    assert "HERE" in str(caught.value)
    if isinstance(result, list):
        assert "region 1 of HERE" in str(caught.value)
