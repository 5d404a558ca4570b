"""Folders of exports: whole or not at all, and nothing is replaced that no export wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations
from cval_torch.formats.export_folder import (
    export_folder,
    read_class_names,
    read_frames,
    with_frames,
    write_frames,
)

MARKED = Annotations(
    ["images/a.jpg", "b.jpg"],
    torch.tensor([0, 0, 0]),
    boxes=torch.empty(0, 4),
    labels=torch.empty(0, dtype=torch.int64),
    class_names={4: "nut", 2: "bolt"},
    frame_ids=["a", None],
    is_annotated=torch.tensor([True, False]),
    sizes=torch.tensor([[64, 48], [0, 0]]),
    ranks=torch.tensor([2, 0]),
    uncertainties=torch.tensor([0.5, torch.nan]),
    rounds=torch.tensor([3, -1]),
)


def write(folder: Path, text: str, *, exist_ok: bool = False) -> None:
    with export_folder(folder, exist_ok=exist_ok) as staging:
        (staging / "text").write_text(text)
        write_frames(staging, MARKED, stages=[])


def write_half(folder: Path) -> None:
    with export_folder(folder, exist_ok=True) as staging:
        (staging / "text").write_text("half")
        raise OSError("the disk is full")


def write_while_filled(folder: Path) -> None:
    with export_folder(folder, exist_ok=False):
        folder.mkdir()
        (folder / "other").write_text("mine")


def test_an_export_is_there_at_the_end_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with export_folder(target, exist_ok=False) as staging:
        (staging / "text").write_text("new")
        assert not target.exists()
    assert [each.name for each in target.parent.iterdir()] == ["out"]
    assert (target / "text").read_text() == "new"


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "text").read_text() == "new"


def test_what_is_there_stays_unless_one_says_otherwise(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write(target, "old")
    with pytest.raises(InvalidInputError, match=r"not empty.*exist_ok=True"):
        write(target, "new")
    assert (target / "text").read_text() == "old"
    write(target, "new", exist_ok=True)
    assert (target / "text").read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "a.jpg").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"no frames\.json of an export"):
        write(target, "new", exist_ok=True)
    (target / "frames.json").write_text(json.dumps({"format": "another"}))
    with pytest.raises(InvalidInputError, match=r"no frames\.json of an export"):
        write(target, "new", exist_ok=True)
    assert (target / "a.jpg").read_text() == "mine"


def test_a_file_or_a_link_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(InvalidInputError, match="is not a folder"):
            write(tmp_path / name, "new", exist_ok=True)


def test_an_error_leaves_nothing_or_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "old", "old")
    for name in ("new", "old"):
        with pytest.raises(OSError, match="full"):
            write_half(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "text").read_text() == "old"


def test_a_kill_leaves_no_half_export(tmp_path: Path) -> None:
    script = f"""
import os, signal
from cval_torch.formats.export_folder import export_folder
with export_folder({str(tmp_path / "out")!r}, exist_ok=False) as staging:
    (staging / "text").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "text").read_text() == "new"


def test_a_folder_that_filled_up_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(InvalidInputError, match="not empty"):
        write_while_filled(target)
    assert (target / "other").read_text() == "mine"


def test_frames_come_back(tmp_path: Path) -> None:
    write_frames(tmp_path, MARKED, stages=[{"selection_strategy": "entropy"}])
    record = json.loads((tmp_path / "frames.json").read_text())
    assert record["stages"] == [{"selection_strategy": "entropy"}]
    assert record["frames"] == [
        {
            "file_name": "images/a.jpg",
            "annotated": True,
            "frame_id": "a",
            "rank": 2,
            "uncertainty": 0.5,
            "round": 3,
            "width": 64,
            "height": 48,
        },
        {"file_name": "b.jpg", "annotated": False},
    ]
    bare = MARKED.take([1, 0]).replace(frame_ids=(), ranks=None, uncertainties=None, rounds=None)
    found = with_frames(bare, tmp_path)
    assert found.frame_ids == (None, "a")
    assert found.ranks.tolist() == [0, 2]
    assert found.rounds.tolist() == [-1, 3]
    assert found.uncertainties[1] == 0.5
    assert found.uncertainties[0].isnan()
    own = with_frames(bare.replace(frame_ids=["x", "y"], ranks=torch.tensor([7, 8])), tmp_path)
    assert (own.frame_ids, own.ranks.tolist()) == (("x", "y"), [7, 8]), "what a file says itself counts"


def test_class_names_come_back_where_they_are_the_same(tmp_path: Path) -> None:
    assert read_class_names(tmp_path, ["nut", "bolt"]) is None
    write_frames(tmp_path, MARKED, stages=[])
    assert read_class_names(tmp_path, ["bolt", "nut"]) == {4: "nut", 2: "bolt"}
    assert read_class_names(tmp_path, ["bolt", "screw"]) is None


@pytest.mark.parametrize(
    "frames", [[{}], 5, [5], [{"file_name": "b.jpg", "rank": "x"}], [{"file_name": "b.jpg", "uncertainty": []}]]
)
def test_a_damaged_record_is_an_error_that_names_it(tmp_path: Path, frames: object) -> None:
    (tmp_path / "frames.json").write_text(json.dumps({"format": "cval_torch.export/1", "frames": frames}))
    with pytest.raises(InvalidInputError, match=r"frames.json' is damaged"):
        with_frames(MARKED, tmp_path)
    assert read_frames(tmp_path / "elsewhere") == {}
