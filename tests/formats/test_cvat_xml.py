"""The XML of CVAT: shapes as loops over their outlines have them, and files that are damaged or mean harm."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.cvat_xml import CvatImages, read_cvat_images

META = "<meta><task><mode>annotation</mode><labels><label><name>car</name></label></labels></task></meta>"
BOX = '<box label="car" xtl="1" ytl="2" xbr="3" ybr="4"/>'


def read(text: str) -> CvatImages:
    return read_cvat_images(io.BytesIO(text.encode()), "FILE")


def with_shape(shape: str) -> str:
    return f'<annotations>{META}<image id="0" name="a.jpg" width="9" height="8">{shape}</image></annotations>'


@given(
    center=st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    radii=st.tuples(st.floats(0, 50), st.floats(0, 50)),
    degrees=st.floats(-360, 720),
)
@settings(max_examples=100, deadline=None)
def test_the_box_around_an_ellipse_is_that_of_its_outline(center, radii, degrees) -> None:
    (cx, cy), (rx, ry) = center, radii
    shape = f'<ellipse label="car" cx="{cx}" cy="{cy}" rx="{rx}" ry="{ry}" rotation="{degrees}"/>'
    found = read(with_shape(shape))
    turn = math.radians(degrees)
    xs, ys = [], []
    for step in range(3600):
        angle = math.tau * step / 3600
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        xs.append(cx + x * math.cos(turn) - y * math.sin(turn))
        ys.append(cy + x * math.sin(turn) + y * math.cos(turn))
    expected = (min(xs), min(ys), max(xs), max(ys))
    assert found.corners[0] == pytest.approx(expected, abs=1e-3)
    assert found.notes()[0] == "shapes became the boxes around them: 1 of the kind `ellipse`"


def test_shapes_that_have_an_outline_and_shapes_that_have_none() -> None:
    found = read(
        with_shape(
            '<polygon label="car" points="5.5,1;2,7.25;9,3"/>'
            '<mask label="car" rle="2, 3" left="3" top="4" width="5" height="6"/>'
            '<points label="wheel" points="1,1"/><cuboid label="car"/><skeleton label="person"><points/></skeleton>'
            '<box label="car" outside="1" xtl="1" ytl="2" xbr="3" ybr="4"/><somethingnew/>'
        )
    )
    assert found.corners == [(2.0, 1.0, 9.0, 7.25), (3.0, 4.0, 8.0, 10.0)]
    assert found.counts == [2]
    assert found.notes() == [
        "shapes became the boxes around them: 1 of the kind `mask`, 1 of the kind `polygon`",
        "shapes without a box were left out: 1 of the kind `box, outside`, 1 of the kind `cuboid`, 1 of the kind "
        "`points`, 1 of the kind `skeleton`",
    ]


@pytest.mark.parametrize("text", ["good", "1.5", "-0.1", "nan", "87"])
def test_an_attribute_score_that_is_none_of_ours(text: str) -> None:
    box = f'<box label="car" xtl="1" ytl="2" xbr="3" ybr="4"><attribute name="score">{text}</attribute></box>'
    found = read(with_shape(box * 2))
    assert all(map(math.isnan, found.scores))
    assert "2 boxes have an attribute `score` that is no number from 0 to 1" in found.notes()[0]


LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + f"]>{with_shape(BOX).replace('a.jpg', '&lol9;')}"
)
EXTERNAL = '<!DOCTYPE a [<!ENTITY secret SYSTEM "file:///etc/passwd">]>' + with_shape(BOX).replace("a.jpg", "&secret;")
REMOTE = '<!DOCTYPE annotations SYSTEM "http://127.0.0.1:9/a.dtd">' + with_shape(BOX)


@pytest.mark.parametrize("text", [LAUGHS, EXTERNAL, REMOTE, "<!DOCTYPE annotations>" + with_shape(BOX)])
def test_document_types_and_entities_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="FILE has a document type or entities") as raised:
        read(text)
    assert "root:" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "FILE is not XML that can be read: no element found"),
        ("not xml", "FILE is not XML that can be read: syntax error"),
        (with_shape(BOX)[:-20], "FILE is not XML that can be read"),
        (with_shape(BOX).replace("a.jpg", "&unknown;"), "undefined entity"),
        (with_shape(BOX).replace("a.jpg", "&#0;"), "invalid character number"),
        ('<?xml version="1.0" encoding="nonsense"?>' + with_shape(BOX), "FILE is not XML that can be read"),
        ("<annotation><filename>a.jpg</filename></annotation>", "which is Pascal VOC's"),
        ("<html/>", "begins with <html>, and not <annotations>"),
        ("<annotations/>", "FILE has no images"),
        (f"<annotations>{META}</annotations>", "FILE has no images"),
        (f'<annotations>{META}<track id="0" label="car"/></annotations>', "'CVAT for video'.*'CVAT for images 1.1'"),
        (f"<annotations>{META.replace('annotation<', 'interpolation<')}</annotations>", "'CVAT for video'"),
        (with_shape(BOX).replace(' name="a.jpg"', ""), "image number 0 of FILE has no `name`; its attributes are id"),
        (with_shape(BOX).replace("a.jpg", ""), "has no `name`"),
        (with_shape(BOX).replace('width="9"', 'width="-9"'), "'a.jpg' of FILE must have a `width` in whole pixels"),
        (with_shape(BOX).replace('height="8"', 'height="8.5"'), "must have a `height` in whole pixels; got '8.5'"),
        (with_shape(BOX).replace('height="8"', 'height="nan"'), "`height`"),
        (with_shape(BOX).replace('height="8"', f'height="{"9" * 5000}"'), "`height`"),
        (
            with_shape(BOX).replace(' label="car"', ""),
            r"shape number 0 \(<box>\) of the image 'a.jpg' of FILE has no `lab",
        ),
        (with_shape(BOX).replace(' ytl="2"', ""), "has no `ytl`; its attributes are label, xtl, xbr, ybr"),
        (with_shape(BOX).replace('"2"', '"nan"'), "must have a finite number as `ytl`; got 'nan'"),
        (with_shape(BOX).replace('"2"', '"inf"'), "must have a finite number as `ytl`; got 'inf'"),
        (with_shape(BOX).replace('"2"', '"2,5"'), "must have a finite number as `ytl`; got '2,5'"),
        (with_shape(BOX).replace('"2"', '"1e999"'), "must have a finite number as `ytl`"),
        (with_shape(BOX).replace('"2"', '""'), "must have a finite number as `ytl`; got ''"),
        (with_shape(BOX).replace('"3"', '"0.5"'), "must have a `xbr` of 1, its `xtl`, or more; got 0.5"),
        (with_shape(BOX).replace('"4"', '"-4"'), "must have a `ybr` of 2, its `ytl`, or more; got -4"),
        (with_shape(BOX.replace("/>", ' rotation="left"/>')), "must have a finite number as `rotation`; got 'left'"),
        (with_shape('<polygon label="car"/>'), "has no `points`"),
        (with_shape('<polygon label="car" points="1,2;3"/>'), "must have `points` as x,y;x,y; got '1,2;3'"),
        (with_shape('<polygon label="car" points="1,2;x,3"/>'), "must have `points` as x,y;x,y"),
        (with_shape('<polygon label="car" points="1,2;nan,3"/>'), "must have finite `points`"),
        (with_shape('<ellipse label="car" cx="1" cy="2" rx="-1" ry="2"/>'), "must have an `rx` of 0 or more; got -1"),
        (with_shape('<mask label="car" left="1" top="2" width="1" height="-2"/>'), "`height` of 0 or more; got -2"),
        (with_shape("").replace("</image>", '</image><image name="a.jpg"/>'), "the image 'a.jpg' of FILE stands twice"),
    ],
)
def test_what_is_no_export(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as raised:
        read(text)
    assert len(str(raised.value)) < 500


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_is_an_error_that_names_the_file(data) -> None:
    content = bytearray(with_shape(BOX * 2).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    said = "FILE"
    try:
        read_cvat_images(io.BytesIO(bytes(content)), "FILE")
    except InvalidInputError as error:
        said = str(error)
    assert "FILE" in said


def test_memory_does_not_grow_with_the_file() -> None:
    """Elements are let go one by one: the parser would otherwise hold all of them, ten times the size of the file."""
    import tracemalloc

    count = 20_000
    images = "".join(f'<image id="{n}" name="{n}.jpg" width="9" height="8">{BOX}</image>' for n in range(count))
    file = io.BytesIO(f"<annotations>{META}{images}</annotations>".encode())
    tracemalloc.start()
    try:
        found = read_cvat_images(file, "FILE")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.names) == count
    assert peak < 2000 * count
