"""accelerate: saved states hold the labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_accelerate_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate")
    run_script(monkeypatch, tmp_path, "hosts/accelerate_loop.py", "--epochs", "2", "--frames", "100")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" frames")[0] for line in lines if line.startswith("epoch")] == ["epoch 1: 40", "epoch 2: 60"]
    assert lines[-2] == "LabelPool(100 frames: 80 labelled in 3 rounds)"
    assert lines[-1] == "back at the first epoch: LabelPool(100 frames: 60 labelled in 2 rounds)"
