"""Rows of tables that are refused, with their lines and columns, and texts that spreadsheets take for formulas."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.csv_rows import guarded, read_table

HEADING = "file_name,label,class_name,xmin,ymin,xmax,ymax,score,width,rank,annotated"
GOOD = "a.jpg,1,bolt,1,2,3,4,0.5,64,1,true"


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1))
def test_a_guarded_text_comes_back_and_is_no_formula(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    assert guarded(text)[0] not in "=+-@\t\r"
    path = tmp_path_factory.getbasetemp() / "guarded.csv"
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["frame_id", "label", "xmin", "ymin", "xmax", "ymax"], [guarded(text), *[""] * 5]])
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    assert read_table(path, "FILE").column("frame_id") == [text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 of FILE must name a column `file_name` or `frame_id`; it has no columns"),
        ("a,b\n1,2\n", "must name a column `file_name` or `frame_id`; it has 'a', 'b'"),
        ("file_name,x,y,w,h,label\n", "must name the columns xmin, ymin, xmax, ymax; it has 'file_name', 'x'"),
        ("file_name,xmin,ymin,xmax,ymax\n", "must name a column `class_name` or `label` for its boxes"),
        (HEADING + ",XMIN\n", "names the column 'XMIN' twice"),
        (f"{HEADING}\n{GOOD}\n{GOOD},9\n", "line 3 of FILE must have 11 cells, as the first line has; got 12"),
        (f"{HEADING}\na.jpg,1\n", "line 2 of FILE must have 11 cells"),
        (f'{HEADING}\n{GOOD}\n"a.jpg,1\n', "line 3 of FILE is no row of a CSV file"),
        (f'{HEADING}\n{GOOD}\n"a"b{GOOD[1:]}\n', "line 3 of FILE is no row of a CSV file"),
        (f'{HEADING}\n"a\nb",{GOOD[6:]}\n,{GOOD[6:]}\n', "line 4 of FILE must have a `file_name` or a `frame_id`"),
        (f"{HEADING}\n{GOOD.replace('3,4', 'x,4')}\n", "line 2 of FILE must have a finite number as `xmax`; got 'x'"),
        (f"{HEADING}\n{GOOD.replace('3,4', 'nan,4')}\n", "finite number as `xmax`; got 'nan'"),
        (f"{HEADING}\n{GOOD.replace('3,4', '3,1e999')}\n", "finite number as `ymax`; got '1e999'"),
        (f"{HEADING}\n{GOOD.replace('3,4', ',4')}\n", "must have a number as `xmax`; it is empty"),
        (f"{HEADING}\n{GOOD.replace('3,4', '0,4')}\n", "must have a `xmax` of 1, its `xmin`, or more; got 0"),
        (f"{HEADING}\n{GOOD.replace('3,4', '3,-4')}\n", "must have a `ymax` of 2, its `ymin`, or more; got -4"),
        (f"{HEADING}\n{GOOD.replace('0.5', '50')}\n", r"must have a `score` in \[0, 1\]; got '50'"),
        (f"{HEADING}\n{GOOD.replace('64', '64.5')}\n", "whole number of 0 or more as `width`; got '64.5'"),
        (f"{HEADING}\n{GOOD.replace('64', '-64')}\n", "whole number of 0 or more as `width`; got '-64'"),
        (f"{HEADING}\n{GOOD.replace('1,true', '-1,true')}\n", "whole number of 1 or more as `rank`; got '-1'"),
        (f"{HEADING}\n{GOOD.replace('true', 'maybe')}\n", "must have true or false as `annotated`; got 'maybe'"),
        (f"{HEADING}\n{GOOD.replace('1,bolt', ',')}\n", "must have a `class_name` or a `label`; both are empty"),
        (
            f"{HEADING}\n{GOOD}\n{GOOD.replace('64', '65')}\n",
            "line 3 .* the frame 'a.jpg' .* `width` is 65 .* 64 there",
        ),
        (f"{HEADING}\n{GOOD}\n{GOOD.replace('true', '')}\n", "`annotated` is None here, and True there"),
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text, newline="")
    with pytest.raises(InvalidInputError, match=said):
        read_table(tmp_path / "t.csv", "FILE")


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file_name\nstraße.jpg\n".encode("latin-1"))
    with pytest.raises(InvalidInputError, match=r"FILE is not UTF-8: .* at byte 14\. Save it as 'CSV UTF-8'"):
        read_table(tmp_path / "t.csv", "FILE")
