"""Regions that people draw in Label Studio, as boxes in pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cval_torch.errors import InvalidInputError

CROWD = "crowd"
"""What stands in the notes of a region (`meta.text`) that holds several objects."""

_SHAPES = {
    "rectanglelabels": "box",
    "rectangle": "box",
    "polygonlabels": "polygon",
    "polygon": "polygon",
    "ellipselabels": "ellipse",
    "ellipse": "ellipse",
}
_MOST_PIXELS = 2**31


class Region(NamedTuple):
    """A box of one class.

    Attributes:
        box: xyxy in pixels, before it is rotated.
        degrees: clockwise about the left upper corner.
        name: of the class.
        score: NaN where there is none.
        crowd: whether it holds several objects.
    """

    box: tuple[float, float, float, float]
    degrees: float
    name: str
    score: float
    crowd: bool


@dataclass
class Tally:
    """What was met on the way, to be told to the user.

    Attributes:
        left_out: results that are no boxes, by type.
        outlines: how many polygons and ellipses became boxes.
        manifold: how many regions have several classes, and became as many boxes.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    outlines: int = 0
    manifold: int = 0

    def notes(self) -> list[str]:
        """A sentence for each kind of thing."""
        said = []
        if self.outlines:
            said.append(f"{self.outlines} polygons and ellipses became the smallest upright boxes that hold them")
        if self.manifold:
            said.append(f"{self.manifold} regions have several classes, and became a box for each of them")
        if self.left_out:
            kinds = ", ".join(sorted(self.left_out))
            said.append(
                f"{sum(self.left_out.values())} results that are no boxes were left out; they are of the types {kinds}"
            )
        return said


def read_regions(result: Any, where: str, tally: Tally) -> tuple[list[Region], tuple[int, int] | None]:
    """The boxes of an annotation or a prediction.

    Coordinates are in percent of the image as it is stored upright. A view that was turned in the tool
    (`image_rotation`) does not change them.

    Args:
        result: its `result`.
        where: what to call it in messages.
        tally: counts what is no box.

    Returns:
        The boxes, and width and height of the image in pixels; None where no region tells.

    Raises:
        InvalidInputError: a region is malformed, has no class, or is of another image size than the one before.
    """
    if result is None:
        return [], None
    if not isinstance(result, list):
        raise InvalidInputError(f"{where} must have a list as `result`; got {_short(result)}")
    found: list[Region] = []
    size: tuple[int, int] | None = None
    for number, region in enumerate(result):
        if not isinstance(region, Mapping):
            raise InvalidInputError(f"region {number} of {where} must be an object; got {_short(region)}")
    named = {_text(region.get("id")) for region in result if region.get("type") == "labels"}
    for number, region in enumerate(result):
        here = f"region {number} of {where}"
        kind = region.get("type")
        if not isinstance(kind, str):
            raise InvalidInputError(f"{here} must have a text as `type`; got {_short(kind)}")
        shape = _SHAPES.get(kind) if kind != "labels" else _shape_of(region.get("value"))
        if shape is None:
            tally.left_out[kind] += 1
            continue
        if kind in ("rectangle", "polygon", "ellipse") and _text(region.get("id")) in named:
            continue  # the same region stands there once more, with its class
        if region.get("item_index") not in (None, 0):
            raise InvalidInputError(f"{here} is of another image than the first; tasks must have one image each")
        own = _size_of(region, here)
        if size is not None and own != size:
            raise InvalidInputError(
                f"{here} has the `original_width` and `original_height` {own}, and one before it {size}: the image was "
                "exchanged. Annotate it anew"
            )
        size = own
        value = region.get("value")
        if not isinstance(value, Mapping):
            raise InvalidInputError(f"{here} must have an object as `value`; got {_short(value)}")
        box, degrees = _READERS[shape](value, own, here)
        tally.outlines += shape != "box"
        names = _names(value, kind, here)
        tally.manifold += len(names) > 1
        score, crowd = _score(region, here), _is_crowd(region)
        found += [Region(box, degrees, name, score, crowd) for name in names]
    return found, size


def _shape_of(value: Any) -> str | None:
    """What a region of the type `labels` is, which several kinds of regions have."""
    if not isinstance(value, Mapping):
        return "box"  # and is refused there
    if "points" in value:
        return "polygon"
    if "radiusX" in value:
        return "ellipse"
    return "box" if "rle" not in value and "width" in value and "height" in value else None


def _box(
    value: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[tuple[float, float, float, float], float]:
    left, top, width, height = (_number(value, key, where) for key in ("x", "y", "width", "height"))
    if width < 0 or height < 0:
        raise InvalidInputError(f"{where} must have a `width` and a `height` of 0 or more; got {width} and {height}")
    across, down = size
    box = (left * across / 100, top * down / 100, (left + width) * across / 100, (top + height) * down / 100)
    return box, _number(value, "rotation", where, default=0.0) % 360


def _polygon(
    value: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[tuple[float, float, float, float], float]:
    points = value.get("points")
    if not isinstance(points, list) or not points:
        raise InvalidInputError(f"{where} must have a list of points as `points`; got {_short(points)}")
    pairs = []
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise InvalidInputError(f"{where} must have points [x, y] in `points`; got {_short(point)}")
        pairs.append([_finite(each, "points", where) for each in point])
    across, down = zip(*pairs, strict=True)
    wide, high = size
    return (min(across) * wide / 100, min(down) * high / 100, max(across) * wide / 100, max(down) * high / 100), 0.0


def _ellipse(
    value: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[tuple[float, float, float, float], float]:
    """The envelope of an ellipse that is rotated about its center."""
    wide, high = size
    x, y = _number(value, "x", where) * wide / 100, _number(value, "y", where) * high / 100
    across, down = _number(value, "radiusX", where) * wide / 100, _number(value, "radiusY", where) * high / 100
    angle = math.radians(_number(value, "rotation", where, default=0.0))
    half_width = math.hypot(across * math.cos(angle), down * math.sin(angle))
    half_height = math.hypot(across * math.sin(angle), down * math.cos(angle))
    return (x - half_width, y - half_height, x + half_width, y + half_height), 0.0


_READERS = {"box": _box, "polygon": _polygon, "ellipse": _ellipse}


def _names(value: Mapping[str, Any], kind: str, where: str) -> Sequence[str]:
    names = value.get(kind) if kind.endswith("labels") else None
    if names is None or names == []:
        raise InvalidInputError(f"{where} has no class. Give it one in Label Studio, or delete it there")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InvalidInputError(f"{where} must have a list of names as `{kind}`; got {_short(names)}")
    return list(dict.fromkeys(names))


def _size_of(region: Mapping[str, Any], where: str) -> tuple[int, int]:
    sides = []
    for key in ("original_width", "original_height"):
        side = _number(region, key, where)
        if not 1 <= side < _MOST_PIXELS:
            raise InvalidInputError(f"{where} must have a number of pixels as `{key}`; got {side}")
        sides.append(round(side))
    return sides[0], sides[1]


def _score(region: Mapping[str, Any], where: str) -> float:
    if region.get("score") is None:
        return math.nan
    score = _number(region, "score", where)
    if not 0 <= score <= 1:
        raise InvalidInputError(f"{where} must have a `score` in [0, 1]; got {score}")
    return score


def _is_crowd(region: Mapping[str, Any]) -> bool:
    meta = region.get("meta")
    text = meta.get("text") if isinstance(meta, Mapping) else None
    return text == CROWD or (isinstance(text, list) and CROWD in text)


def _number(values: Mapping[str, Any], key: str, where: str, *, default: float | None = None) -> float:
    value = values.get(key, default)
    if value is None and key not in values:
        raise InvalidInputError(f"{where} has no `{key}`; its keys are {', '.join(map(str, values)) or 'none'}")
    return _finite(value, key, where)


def _finite(value: Any, key: str, where: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InvalidInputError(f"{where} must have finite numbers as `{key}`; got {_short(value)}")


def _text(value: Any) -> str:
    return repr(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
