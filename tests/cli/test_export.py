"""`cval-torch export` (`run_export`): a selection, in formats for annotators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cval_torch.config.outputs import SAVERS
from cval_torch.formats import load_annotations

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # the command line says them


@pytest.mark.parametrize("name", [each.replace("_", "-") for each in SAVERS])
def test_every_format_has_the_same_frames(run: Callable[..., Any], selection: Path, tmp_path: Path, name: str) -> None:
    words = ("export", str(selection), "--format", name, "--output", str(tmp_path / "out"), "--round", "3")
    status, out, err = run(*words)
    assert status == 0, err
    assert str(tmp_path / "out") in out
    ids = (selection / "ids.txt").read_text().splitlines()
    found = load_annotations(tmp_path / "out")
    assert set(found.frame_ids) == set(ids)
    assert found.rounds.tolist() == [3, 3, 3]
    assert run(*words)[0] == 2, "nothing is overwritten"
    assert run(*words, "--exist-ok", "--no-pre-labels")[0] == 0


def test_what_is_no_selection(run: Callable[..., Any], tmp_path: Path) -> None:
    status, _, err = run("export", str(tmp_path), "--format", "coco", "--output", str(tmp_path / "out"))
    assert status == 2
    assert "there is no selection.json" in err
