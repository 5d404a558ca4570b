"""`cval-torch extract` (`run_extract`): what a detector says of all images, as a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cval_torch import Pool
from tests.worlds.first_user import DETECTOR

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # the command line says them


def test_a_pool_file_is_written_once(run: Callable[..., Any], tmp_path: Path) -> None:
    words = ("extract", "--source", "photos", *DETECTOR, "--output", str(tmp_path / "deep" / "a.pool"))
    status, out, err = run(*words)
    assert status == 0, err
    assert "a.pool: 24 images" in out
    pool = Pool.load(tmp_path / "deep" / "a.pool")
    assert len(pool) == 24
    assert [frame.frame_id for frame in pool.skipped] == ["broken.jpg"]
    before = (tmp_path / "deep" / "a.pool").read_bytes()
    status, out, err = run(*words)
    assert status == 2
    assert "is there already; replace it by --exist-ok" in err
    assert (tmp_path / "deep" / "a.pool").read_bytes() == before
    assert run(*words, "--exist-ok")[0] == 0


def test_what_is_annotated_is_left_out(run: Callable[..., Any], tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "coffee 3.jpg", "annotated": True}]
    (tmp_path / "done.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    words = ("extract", "--source", "photos", *DETECTOR, "--labeled", str(tmp_path / "done.json"))
    assert run(*words, "--output", str(tmp_path / "a.pool"))[0] == 0
    assert "coffee 3.jpg" not in Pool.load(tmp_path / "a.pool").frame_ids
