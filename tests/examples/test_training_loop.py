"""The plain training loop that labels more frames as it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_training_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(monkeypatch, tmp_path, "hosts/training_loop.py", "--epochs", "4", "--frames", "150")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].split()[0] for line in lines if line.startswith("epoch")] == ["40", "40", "60", "60"]
    assert lines[-1].startswith("LabelPool(150 frames: 80 labelled in 3 rounds)")
