"""The script for several processes: they choose what one process chooses."""

from __future__ import annotations

import re
from pathlib import Path

from fresh_process import run_python
from scripts import EXAMPLES


def test_distributed(tmp_path: Path) -> None:
    """The processes are forks of one: to import what the example needs is what would take the time."""
    code = f"""
import sys
sys.path.insert(0, {str(EXAMPLES / "hosts")!r})
import distributed, together
options = ["--frames", "120", "--cache-dir"]
assert together.fork(lambda: distributed.main([*options, {str(tmp_path / "two")!r}]), 2) == [0, 0]
distributed.main([*options, {str(tmp_path / "one")!r}])
"""
    two, one = run_python("-c", code).stdout.splitlines()
    said = (
        r"SelectedFrames\(20 of 120 frames by entropy -> clustering, about [\d.]+ boxes\) in 2 process\(es\): sequence-"
    )
    assert re.match(said, two)
    assert one == two.replace("in 2 process", "in 1 process")
