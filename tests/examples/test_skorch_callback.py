"""skorch: one round is one call of `partial_fit`."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_skorch_callback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skorch")
    run_script(monkeypatch, tmp_path, "hosts/skorch_callback.py", "--epochs", "2", "--frames", "100")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" frames")[0] for line in lines if line.startswith("epoch")] == ["epoch 1: 40", "epoch 2: 60"]
    assert lines[-1] == "LabelPool(100 frames: 80 labelled in 3 rounds)"
