"""Arrays taken out of JSON, and cut."""

from __future__ import annotations

import io
import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.service.server import splitting
from cval_torch.service.server.settings import RefusedError
from cval_torch.service.server.splitting import Split, split

strings = st.text(alphabet='ab"\\[]{},: é\n', max_size=6)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=12,
)
spaces = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])


def split_of(text: bytes, key: str | None, *, run: int = 8, block: int = 7, most: int = 1 << 20) -> Split:
    with mock.patch.multiple(splitting, RUN=run, _BLOCK=block):
        return split(io.BytesIO(text), 0, len(text), key, most=most)


def elements_of(text: bytes, found: Split, array: int = -1) -> list[Any]:
    """What the runs of an array hold, each read on its own."""
    held = []
    for run in found.arrays[array]:
        assert run.first == len(held)
        held += json.loads(b"[" + text[run.start : run.stop] + b"]")
    return held


@given(elements=st.lists(values, max_size=8), beside=st.dictionaries(strings, values, max_size=3), space=spaces,
       run=st.integers(1, 40), block=st.integers(1, 50), escaped=st.booleans(), place=st.integers(0, 3))  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_the_rest_and_the_runs_are_the_whole(
    elements: list[Any], beside: dict[str, Any], space: tuple[str, str], run: int, block: int, escaped: bool, place: int
) -> None:
    """Wherever blocks of the file and runs end, and whatever stands in strings, or beside."""
    items = list(beside.items())
    items.insert(place, ("frames", elements))
    text = json.dumps(dict(items), separators=space, ensure_ascii=escaped).encode()
    found = split_of(text, "frames", run=run, block=block)
    assert len(found.arrays) == 1
    assert elements_of(text, found) == elements
    assert json.loads(found.rest) == {**beside, "frames": []}
    assert list(json.loads(found.rest)) == list(dict(items)), "in the order of the text"
    listed = json.dumps(elements, separators=space, ensure_ascii=escaped).encode()
    found = split_of(b"\n" + listed + b" ", None, run=run, block=block)
    assert elements_of(b"\n" + listed + b" ", found) == elements
    assert bytes(found.rest) == b"\n[] "


@given(st.lists(st.integers(0, 30).map(lambda length: "x" * length), min_size=1, max_size=30), st.integers(4, 60))
@settings(deadline=None)
def test_a_run_is_as_long_as_may_be(elements: list[str], run: int) -> None:
    """Longer than allowed only if it is a single element; and never could the next element have been in it."""
    text = json.dumps(elements, separators=(",", ":")).encode()
    (runs,) = split_of(text, None, run=run, block=11).arrays
    for each, following in zip(runs, [*runs[1:], None], strict=True):
        length = each.stop - each.start
        held = json.loads(b"[" + text[each.start : each.stop] + b"]")
        assert length <= run or len(held) == 1
        if following is not None:
            assert length + 1 + len(elements[following.first]) + 2 > run


@pytest.mark.parametrize(
    ("text", "rest", "arrays"),
    [
        (b'{"frames":[1],"frames":[2,3]}', b'{"frames":[],"frames":[]}', [[1], [2, 3]]),
        (b'{"fr\\u0061mes" :\n [1]}', b'{"fr\\u0061mes" :\n []}', [[1]]),
        (b'{"x":[1],"y":{"frames":[2]}}', b'{"x":[1],"y":{"frames":[2]}}', []),
        (b'{"x\\"frames":[1]}', b'{"x\\"frames":[1]}', []),
        (b'{"x,\\"frames":[1]}', b'{"x,\\"frames":[1]}', []),
        (b'{"frames ":[1]," frames":[1]}', b'{"frames ":[1]," frames":[1]}', []),
        (b'{"x":"\\\\","frames":["\\\\\\"]"]}', b'{"x":"\\\\","frames":[]}', [['\\"]']]),
        (b'{"frames":"[1]"}', b'{"frames":"[1]"}', []),
        (b'[{"frames":[1]}]', b'[{"frames":[1]}]', []),
        (b'{"frames":[1', b'{"frames":[', []),
        (b'{"frames":[1}', b'{"frames":[}', [[1]]),
        (b"", b"", []),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_what_is_taken_out(text: bytes, rest: bytes, arrays: list[list[Any]], block: int) -> None:
    found = split_of(text, "frames", block=block)
    assert bytes(found.rest) == rest
    assert [elements_of(text, found, number) for number in range(len(found.arrays))] == arrays


def test_a_part_of_a_file_alone_is_looked_at() -> None:
    text = b'xx{"a":[1,2]}xx'
    found = split(io.BytesIO(text), 2, len(text) - 2, "a", most=99)
    assert bytes(found.rest) == b'{"a":[]}'
    assert elements_of(text, found) == [1, 2]


def test_the_rest_has_a_bound_and_the_array_has_none() -> None:
    elements = json.dumps(list(range(5000))).encode()
    text = b'{"a":%b,"b":1}' % elements
    assert bytes(split_of(text, "a", most=20, block=512).rest) == b'{"a":[],"b":1}'
    with pytest.raises(RefusedError, match="at most 20 bytes of a JSON value beside its `b` are taken") as caught:
        split_of(text, "b", most=20, block=512)
    assert caught.value.status == 413
    with pytest.raises(RefusedError, match="at most 20 bytes of a JSON value are taken"):
        split_of(b'"%b"' % elements, None, most=20, block=512)


def test_what_is_far_too_deep_is_not_read_on() -> None:
    for key, text in [(None, b"[" * 10_000), ("a", b'{"a":' * 10_000), ("a", b'{"a":[' + b"[" * 10_000)]:
        with pytest.raises(RefusedError, match="recursion limit") as caught:
            split_of(text, key, most=100, block=1 << 20)
        assert caught.value.status == 422
