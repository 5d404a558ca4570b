"""Tables of boxes: a round trip that loses nothing, and tables as pandas and other programs write them."""

from __future__ import annotations

import csv
import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from annotated import HOSTILE, annotations, assert_same
from hypothesis import given, settings

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_csv, save_csv

AWKWARD = [
    *HOSTILE,
    "'quoted",
    "''",
    "'=1",
    "@x",
    "+1",
    "\tx",
    "\r",
    "a\r\nb",
    '""',
    '"',
    ";",
    " ",
    "007",
    "1e5",
    "\ufeffx",
]


@settings(max_examples=80, deadline=None)
@given(given=annotations(names=AWKWARD))
def test_a_round_trip_loses_nothing(given: Annotations) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        path = save_csv(given, folder / "out", images="leave", progress=False)
        found = load_csv(path)
        assert_same(found, given, within=0)
        assert found.frame_ids == given.frame_ids, "in their order"
        assert found.class_names == given.class_names
        for name in ("boxes", "sizes", "labels"):
            assert getattr(found, name).equal(getattr(given, name)), name
        assert found.uncertainties.equal(given.uncertainties)
        torch.testing.assert_close(found.scores, given.scores, rtol=0, atol=0, equal_nan=True)
        (path.parent / "frames.json").unlink()  # the table alone says the same of the frames
        assert_same(load_csv(path), given, within=0)
    finally:
        shutil.rmtree(folder)


REST = ["score", "rank", "uncertainty", "round", "annotated", "is_crowd"]


def marked() -> Annotations:
    return Annotations(
        ["a.jpg", "b.jpg", "c.jpg"],
        torch.tensor([0, 2, 2, 2]),
        boxes=torch.tensor([[0.1, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]),
        labels=torch.tensor([7, 3]),
        class_names={3: "=cmd|' /C calc'!A0", 7: "bolt, M4"},
        frame_ids=["-1", "b", None],
        is_annotated=torch.tensor([False, True, False]),
        sizes=torch.tensor([[64, 48], [64, 48], [0, 0]]),
        scores=torch.tensor([0.9, torch.nan]),
        is_crowd=torch.tensor([False, True]),
        ranks=torch.tensor([1, 2, 0]),
        uncertainties=torch.tensor([0.1, 0.05, torch.nan], dtype=torch.float64),
        rounds=torch.tensor([0, 0, -1]),
    )


def test_what_is_written(tmp_path: Path) -> None:
    path = save_csv(marked(), tmp_path / "out", images="leave", progress=False)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    frame = ["'-1", "a.jpg", "64", "48"]
    assert rows == [
        ["frame_id", "file_name", "width", "height", "label", "class_name", "xmin", "ymin", "xmax", "ymax", *REST],
        [*frame, "7", "bolt, M4", "0.1", "2", "3", "4", "0.9", "1", "0.1", "0", "false", "false"],
        [*frame, "3", "'=cmd|' /C calc'!A0", "1", "2", "3", "4", "", "1", "0.1", "0", "false", "true"],
        ["b", "b.jpg", "64", "48", "", "", "", "", "", "", "", "2", "0.05", "0", "true", ""],
        ["", "c.jpg", "", "", "", "", "", "", "", "", "", "", "", "", "false", ""],
    ]
    found = load_csv(path)
    assert found.frame_ids == ("-1", "b", None)
    assert found.is_crowd.tolist() == [False, True]
    assert found.notes == ()


def test_pandas_reads_it_and_writes_one_that_is_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = save_csv(marked(), tmp_path / "out", images="leave", progress=False)
    table = pandas.read_csv(path)
    assert table["xmin"].tolist()[:2] == [0.1, 1.0]
    assert table["annotated"].tolist() == [False, False, True, False]
    again = tmp_path / "again.csv"
    table.to_csv(again, index=False)  # whole numbers beside empty cells become 7.0, as floats
    found = load_csv(again)
    assert found.labels.tolist() == [7, 3]
    assert found.ranks.tolist() == [1, 2, 0]
    assert found.sizes.tolist() == [[64, 48], [64, 48], [0, 0]]


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,nut,1,2,3,4\nb.jpg,9,9,bolt,1.5,2,3,4\n",
        "\ufeffx1;Y1;X2;y2;Label;Image\r\n1;2;3;4;nut;a.jpg\r\n1,5;2;3;4;bolt;b.jpg\r\n",
        "image_path\tclass_name\tleft\ttop\tright\tbottom\textra\na.jpg\tnut\t1\t2\t3\t4\t\nb.jpg\tbolt\t1.5\t2\t3\t4\tx\n",
        ' xmin , ymin , xmax , ymax ,category,path\n1,2,3,4,nut,"a.jpg"\n\n,,,,,\n1.5, 2 ,3,4,bolt,b.jpg\n',
    ],
    ids=["tensorflow", "excel", "tabs", "spaces"],
)
def test_tables_of_other_programs(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    found = load_csv(tmp_path / "t.csv")
    assert found.file_names == ("a.jpg", "b.jpg")
    assert found.boxes.tolist() == [[1, 2, 3, 4], [1.5, 2, 3, 4]]
    assert found.class_names == {1: "bolt", 2: "nut"}
    assert found.labels.tolist() == [2, 1]
    assert found.is_annotated.all()
    named = load_csv(tmp_path / "t.csv", class_names={4: "nut", 6: "bolt", 8: "gap"})
    assert named.labels.tolist() == [4, 6]
    with pytest.raises(InvalidInputError, match="has the class 'nut', which is not among"):
        load_csv(tmp_path / "t.csv", class_names={6: "bolt"})


def test_frames_without_boxes_where_the_table_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,label,x1,y1,x2,y2,score\nb,2,1,2,3,4,0.5\na,,,,,,\nb,3,0,0,0,0,\n")
    found = load_csv(tmp_path / "t.csv")
    assert found.file_names == ("b", "a")
    assert found.counts.tolist() == [2, 0]
    assert found.class_names == {2: "2", 3: "3"}
    assert found.is_annotated.tolist() == [True, False]
    assert "1 frame has no boxes" in found.notes[0]
    assert load_csv(tmp_path / "t.csv", empty="annotated").is_annotated.all()
    with pytest.raises(InvalidInputError, match="`empty` must be"):
        load_csv(tmp_path / "t.csv", empty="none")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["nul\0", "\ud800"])
def test_texts_that_no_table_holds(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InvalidInputError, match=r"the frame .* cannot be written to a CSV file"):
        save_csv(marked().replace(frame_ids=["x", bad, None]), tmp_path / "out", images="leave", progress=False)
    with pytest.raises(InvalidInputError, match="the class name cannot be written to a CSV file"):
        save_csv(marked().replace(class_names={3: "a", 7: bad}), tmp_path / "out", images="leave", progress=False)
    twice = marked().replace(frame_ids=[None, None, "c"], file_names=["a", "a", "a"])
    with pytest.raises(InvalidInputError, match="two with the path 'a' and without an id"):
        save_csv(twice, tmp_path / "out", images="leave", progress=False)
    assert not (tmp_path / "out").exists()


def test_zip_files_and_tables_without_rows(tmp_path: Path) -> None:
    path = save_csv(marked(), tmp_path / "out", images="leave", progress=False)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.write(path, "boxes.csv")
    assert load_csv(tmp_path / "out.zip").frame_ids == ("-1", "b", None)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.write(path, "other.csv")
    with pytest.raises(InvalidInputError, match=r"out\.zip' has no boxes\.csv\. Unpack it"):
        load_csv(tmp_path / "out.zip")
    (tmp_path / "t.csv").write_text("file_name,label,xmin,ymin,xmax,ymax\n")
    assert len(load_csv(tmp_path / "t.csv")) == 0
