"""JSON as other programs write it, and what is said of files that are something else."""

from __future__ import annotations

import gzip
import io
import json
import math
import zipfile
from pathlib import Path

import pytest

from cval_torch.errors import InvalidInputError
from cval_torch.formats.json_files import integer_or, number_or_nan, read_json

VALUE = {"images": [{"id": 1, "file_name": "Köln/漢字.jpg"}]}
TEXT = json.dumps(VALUE, ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(TEXT.encode(encoding))
    assert read_json(path) == read_json(str(path)) == VALUE


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("instances.json", TEXT)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "known.json is not JSON: Expecting value: line 1 column 1"),
        (TEXT.encode()[:-3], "known.json is not JSON: .* line 1 column"),
        (b'{"a": 1,}', "known.json is not JSON: "),
        (TEXT.encode("latin-1", "replace"), "known.json is not UTF-8: .* at byte"),
        (gzip.compress(TEXT.encode()), "known.json is a gzip file: unpack it, and pass the JSON file in it"),
        (zipped(), "known.json is a zip file: unpack it"),
        (b"[" * 200_000, "known.json is not JSON that can be read: it is nested too deeply"),
    ],
    ids=["empty", "cut off", "comma", "latin-1", "gzip", "zip", "deep"],
)
def test_what_is_not_json(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "known.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=said):
        read_json(tmp_path / "known.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("value", "integer", "number"),
    [
        (3, 3, 3.0),
        (-2.9, -2, -2.9),
        (0, 0, 0.0),
        (2**62, 7, float(2**62)),
        (10**400, 7, math.nan),
        (math.nan, 7, math.nan),
        (math.inf, 7, math.inf),
        (True, 7, math.nan),
        ("3", 7, math.nan),
        (None, 7, math.nan),
        ([3], 7, math.nan),
    ],
)
def test_numbers_and_what_stands_in_their_place(value: object, integer: int, number: float) -> None:
    assert integer_or(value, 7) == integer
    assert number_or_nan(value) == pytest.approx(number, nan_ok=True)
