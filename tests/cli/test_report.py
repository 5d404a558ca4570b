"""`cval-torch report` (`run_report`): a selection as one HTML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.first_user import DETECTOR

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # the command line says them


def test_a_report_of_a_selection(run: Callable[..., Any], selection: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    status, out, err = run("report", str(selection), "--output", str(path))
    assert status == 0, err
    assert out == f"{path}\n"
    for frame_id in (selection / "ids.txt").read_text().splitlines():
        assert frame_id in path.read_text()
    status, _, err = run("report", str(selection), "--output", str(path))
    assert status == 2
    assert "is there already" in err


def test_with_the_predictions_of_all_images_it_says_more(
    run: Callable[..., Any], selection: Path, tmp_path: Path
) -> None:
    assert run("extract", "--source", "photos/cats", *DETECTOR, "--output", str(tmp_path / "a.pool"))[0] == 0
    assert run("report", str(selection), "--output", str(tmp_path / "brief.html"))[0] == 0
    words = ("report", str(selection), "--predictions", str(tmp_path / "a.pool"), "--output", str(tmp_path / "a.html"))
    status, _, err = run(*words)
    assert status == 0, err
    assert (tmp_path / "a.html").stat().st_size > (tmp_path / "brief.html").stat().st_size
