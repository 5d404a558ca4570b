"""Files that are written whole or not at all, and read with an error that says what was expected."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool.files import read_json, read_record, replacing, write_json, write_record

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=plain)
@settings(deadline=None)
def test_values_come_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, {"first": 1})
    write_json(path, value)
    assert read_json(path, what="a test") == value
    assert [each.name for each in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError("bad")])
def test_an_older_file_stays_if_writing_fails(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as file:
            file.write("new, but not all of it")
            file.flush()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("value", [{1: object()}, [math.nan], [math.inf]])
def test_what_json_does_not_have_leaves_the_older_file(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a.json", 3)
    with pytest.raises((TypeError, ValueError)):
        write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", what="a test") == 3
    assert len(list(tmp_path.iterdir())) == 1


def test_the_file_is_there_only_when_it_is_whole_and_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave the new name with the old blocks: the bytes are forced out before the name moves."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def forced(handle: int) -> None:
        steps.append(f"forced {os.fstat(handle).st_size}")
        fsync(handle)

    def moved(self: Path, target: Path) -> Path:
        steps.append("moved")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(Path, "replace", moved)
    with replacing(tmp_path / "a.txt") as file:
        file.write("words")
        assert not (tmp_path / "a.txt").exists()
    assert steps == ["forced 5", "moved"]
    assert (tmp_path / "a.txt").read_text() == "words"


@pytest.mark.parametrize(("newline", "expected"), [("\r\n", b"a\r\nb"), ("\n", b"a\nb")])
def test_ends_of_lines_are_as_asked(tmp_path: Path, newline: str, expected: bytes) -> None:
    with replacing(tmp_path / "a.csv", newline=newline) as file:
        file.write("a\nb")
    assert (tmp_path / "a.csv").read_bytes() == expected


def test_text_is_utf_8_whatever_the_machine_has(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as file:
        file.write("日本 é")
    assert (tmp_path / "a.txt").read_bytes() == "日本 é".encode()


@given(content=st.binary(max_size=30))
@settings(deadline=None)
def test_bytes_are_json_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a.json"
    path.write_bytes(content)
    try:
        expected = json.loads(content)
    except ValueError:
        with pytest.raises(InvalidInputError, match=r"a\.json' is not a saved thing: "):
            read_json(path, what="a saved thing")
    else:
        assert repr(read_json(path, what="a saved thing")) == repr(expected)


def test_nesting_without_end_and_no_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(InvalidInputError, match="is not a saved thing"):
        read_json(tmp_path / "deep", what="a saved thing")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", what="a saved thing")


def test_a_record_comes_back_and_one_that_was_changed_does_not(tmp_path: Path) -> None:
    record = {"format": "f/1", "numbers": [0.1, -1e300, 3], "text": "ü\u2028", "none": None}
    write_record(tmp_path / "record", record)
    assert read_record(tmp_path / "record", what="a record", form="f/1") == record
    text = (tmp_path / "record").read_text(encoding="utf-8")
    for old, new in (("0.1", "0.2"), ('"text"', '"test"'), ("null", "true"), ('"checksum": ', '"checksum": 1')):
        assert old in text
        (tmp_path / "record").write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(
            InvalidInputError, match="record' is not a record as it was written: it was damaged or edit"
        ):
            read_record(tmp_path / "record", what="a record", form="f/1")
    write_json(tmp_path / "other", {"a": 1})
    assert read_record(tmp_path / "other", what="a record", form="f/1") == {"a": 1}
