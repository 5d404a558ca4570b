"""The XML of "CVAT for images 1.1", read into columns: no DTD, no entities, and every error names its image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from cval_torch.errors import InvalidInputError, MissingExtraError

IMAGES_EXPORT = "In CVAT, export the task as 'CVAT for images 1.1'"
_SHAPES = {"box", "polygon", "ellipse", "mask", "polyline", "points", "cuboid", "skeleton", "tag"}
_ENCLOSED = ("polygon", "ellipse", "mask")


@dataclass
class CvatImages:
    """What a file says of its images; a frame owns the boxes from its entry in `first_box` on.

    Attributes:
        names: of the F images.
        sizes: F widths and heights in pixels; 0 where the file does not tell.
        told: F flags that our own files have: whether the frame is annotated. None in files of CVAT.
        touched: F flags: whether the image has a shape or tag of any kind.
        untouched: F flags: whether it has boxes, and all of them are as they were imported.
        counts: F numbers of boxes.
        corners: B boxes as xyxy, before they are rotated.
        degrees: B angles, clockwise.
        labels: B names of classes.
        scores: B scores, NaN where there is none.
        crowds: B flags.
        label_names: the names of the labels of the task, in its order, and then others that shapes have.
        enclosed: how many shapes of a kind became the boxes around them.
        skipped: how many shapes of a kind were left out.
        bad_scores: how many attributes `score` are not numbers from 0 to 1.
    """

    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    told: list[bool | None] = field(default_factory=list)
    touched: list[bool] = field(default_factory=list)
    untouched: list[bool] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    degrees: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    crowds: list[bool] = field(default_factory=list)
    label_names: dict[str, None] = field(default_factory=dict)
    enclosed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    bad_scores: int = 0

    def notes(self) -> list[str]:
        """What a user should know of the shapes, each a sentence."""
        notes = []
        if self.enclosed:
            notes.append(f"shapes became the boxes around them: {_listed(self.enclosed)}")
        if self.skipped:
            notes.append(f"shapes without a box were left out: {_listed(self.skipped)}")
        if self.bad_scores:
            notes.append(
                f"{self.bad_scores} boxes have an attribute `score` that is no number from 0 to 1, and count as drawn "
                "by people"
            )
        untouched = sum(self.untouched)
        if untouched:
            notes.append(
                f"in {untouched} frames all boxes are as they were imported, and the frames count as annotated. If "
                "nobody looked at them, leave them out by `take`"
            )
        return notes


def read_cvat_images(file: IO[bytes], source: str) -> CvatImages:
    """Read a file of "CVAT for images 1.1".

    Args:
        file: opened for reading bytes.
        source: what to call it in messages.

    Raises:
        InvalidInputError: it is not XML, or other XML; it has a DTD; it is of "CVAT for video"; an attribute is missing
            or no number; a box is not finite or ends before it begins; an image stands twice. The message names the
            file, the image and the attribute.
        MissingExtraError: defusedxml is not installed; it is in the extra `formats`.
    """
    found = CvatImages()
    seen: set[str] = set()
    root: Element | None = None
    depth, video = 0, False
    for event, element in _events(file, source):
        if event == "start":
            depth += 1
            if root is None:
                root = element
                _check_root(element, source)
            elif depth == 2 and element.tag == "track":
                raise InvalidInputError(_video(source))
            continue
        depth -= 1
        if depth != 1:
            continue
        if element.tag == "meta":
            for name in _label_names(element):
                found.label_names.setdefault(name)
            video = element.findtext(".//mode") == "interpolation"
        elif element.tag == "image":
            _add_image(found, element, seen, source)
        if root is not None:
            root.clear()  # large files have millions of elements
    if not found.names:
        raise InvalidInputError(_video(source) if video else f"{source} has no images. {IMAGES_EXPORT}")
    return found


def _events(file: IO[bytes], source: str) -> Iterator[tuple[str, Element]]:
    try:
        from defusedxml import DefusedXmlException  # noqa: PLC0415  # an extra
        from defusedxml.ElementTree import iterparse  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("formats", needed_for="reading the XML of CVAT") from error
    try:
        events: Any = iter(iterparse(file, events=("start", "end"), forbid_dtd=True))
    except (ParseError, LookupError, ValueError) as error:
        raise InvalidInputError(f"{source} is not XML that can be read: {error}") from error
    while True:
        try:
            event, element = next(events)
        except StopIteration:
            return
        except DefusedXmlException as error:
            raise InvalidInputError(
                f"{source} has a document type or entities, which CVAT does not write and which may do harm; it is not "
                "read. Export it from CVAT again, or remove them"
            ) from error
        except (ParseError, LookupError, ValueError) as error:
            raise InvalidInputError(f"{source} is not XML that can be read: {error}") from error
        yield event, element


def _check_root(root: Element, source: str) -> None:
    if root.tag != "annotations":
        what = "which is Pascal VOC's" if root.tag == "annotation" else "and not <annotations>"
        raise InvalidInputError(f"{source} begins with <{root.tag}>, {what}. {IMAGES_EXPORT}")


def _video(source: str) -> str:
    return f"{source} is of 'CVAT for video', whose tracks run over many frames. {IMAGES_EXPORT}"


def _label_names(meta: Element) -> Iterator[str]:
    """Names of the labels of a task, job or project, without the parts of skeletons."""
    for label in meta.iterfind("./*/labels/label"):
        name = label.findtext("name")
        if name and not label.findtext("parent"):
            yield name


def _add_image(found: CvatImages, image: Element, seen: set[str], source: str) -> None:
    name = image.get("name")
    if not name:
        raise InvalidInputError(f"image number {len(found.names)} of {source} has no `name`; {_has(image)}")
    where = f"the image {name!r} of {source}"
    if name in seen:
        raise InvalidInputError(f"{where} stands twice. Export each task of the project by itself")
    seen.add(name)
    found.names.append(name)
    found.sizes.append((_pixels(image, "width", where), _pixels(image, "height", where)))
    annotated = image.get("annotated")
    found.told.append(None if annotated is None else annotated == "1")
    before = len(found.corners)
    as_imported = True
    touched = False
    for number, shape in enumerate(image):
        if shape.tag not in _SHAPES:
            continue
        touched = True
        if shape.tag != "box" and shape.tag not in _ENCLOSED:
            found.skipped[shape.tag] += 1
            continue
        if shape.get("outside") == "1":
            found.skipped[f"{shape.tag}, outside"] += 1
            continue
        _add_shape(found, shape, f"shape number {number} (<{shape.tag}>) of {where}")
        as_imported &= shape.get("source") in ("auto", "file")
    found.counts.append(len(found.corners) - before)
    found.touched.append(touched)
    found.untouched.append(annotated is None and as_imported and len(found.corners) > before)


def _add_shape(found: CvatImages, shape: Element, where: str) -> None:
    label = shape.get("label")
    if not label:
        raise InvalidInputError(f"{where} has no `label`; {_has(shape)}")
    degrees = 0.0
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        for key, low, high in (("xbr", left, right), ("ybr", top, bottom)):
            if high < low:
                other = {"xbr": "xtl", "ybr": "ytl"}[key]
                raise InvalidInputError(f"{where} must have a `{key}` of {low:g}, its `{other}`, or more; got {high:g}")
        corners = left, top, right, bottom
        degrees = _number(shape, "rotation", where, default=0.0)
    else:
        corners = {"polygon": _around_points, "ellipse": _around_ellipse, "mask": _around_mask}[shape.tag](shape, where)
        found.enclosed[shape.tag] += 1
    attributes = {each.get("name"): (each.text or "").strip() for each in shape.iterfind("attribute")}
    found.corners.append(corners)
    found.degrees.append(degrees)
    found.labels.append(label)
    found.label_names.setdefault(label)
    found.scores.append(_score(found, attributes))
    found.crowds.append((attributes.get("is_crowd") or "").lower() in ("true", "1"))


def _around_points(shape: Element, where: str) -> tuple[float, float, float, float]:
    text = shape.get("points")
    if not text:
        raise InvalidInputError(f"{where} has no `points`; {_has(shape)}")
    try:
        pairs = [tuple(float(value) for value in pair.split(",")) for pair in text.split(";")]
        xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    except ValueError:
        raise InvalidInputError(f"{where} must have `points` as x,y;x,y; got {text[:80]!r}") from None
    if not all(map(math.isfinite, (*xs, *ys))):
        raise InvalidInputError(f"{where} must have finite `points`; got {text[:80]!r}")
    return min(xs), min(ys), max(xs), max(ys)


def _around_ellipse(shape: Element, where: str) -> tuple[float, float, float, float]:
    """The upright box around an ellipse that is rotated about its center."""
    x, y, rx, ry = (_number(shape, key, where) for key in ("cx", "cy", "rx", "ry"))
    for key, radius in (("rx", rx), ("ry", ry)):
        if radius < 0:
            raise InvalidInputError(f"{where} must have an `{key}` of 0 or more; got {radius:g}")
    angle = math.radians(_number(shape, "rotation", where, default=0.0))
    half_width = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    half_height = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return x - half_width, y - half_height, x + half_width, y + half_height


def _around_mask(shape: Element, where: str) -> tuple[float, float, float, float]:
    left, top, width, height = (_number(shape, key, where) for key in ("left", "top", "width", "height"))
    for key, side in (("width", width), ("height", height)):
        if side < 0:
            raise InvalidInputError(f"{where} must have a `{key}` of 0 or more; got {side:g}")
    return left, top, left + width, top + height


def _score(found: CvatImages, attributes: Mapping[str | None, str]) -> float:
    text = attributes.get("score", "")
    if not text:
        return math.nan
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if 0 <= score <= 1:
        return score
    found.bad_scores += 1
    return math.nan


def _number(element: Element, key: str, where: str, *, default: float | None = None) -> float:
    text = element.get(key)
    if text is None and default is not None:
        return default
    if text is None:
        raise InvalidInputError(f"{where} has no `{key}`; {_has(element)}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInputError(f"{where} must have a finite number as `{key}`; got {text[:80]!r}")
    return value


def _pixels(image: Element, key: str, where: str) -> int:
    text = image.get(key)
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInputError(f"{where} must have a `{key}` in whole pixels; got {text[:80]!r}")
    return int(text)


def _has(element: Element) -> str:
    return f"its attributes are {', '.join(element.keys()) or 'none'}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of the kind `{kind}`" for kind, count in sorted(counts.items()))
