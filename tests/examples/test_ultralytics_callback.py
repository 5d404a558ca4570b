"""The rounds of an Ultralytics YOLO."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_ultralytics_callback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ultralytics")
    run_script(
        monkeypatch, tmp_path, "hosts/ultralytics_callback.py", "--rounds", "2", "--epochs", "1", "--frames", "80"
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines if line.startswith("round")] == [
        "round 0: 40 frames",
        "round 1: 60 frames",
    ]
    assert lines[-1] == "LabelPool(80 frames: 80 labelled in 3 rounds)"
