"""Ignite: the engine goes on with the frames that its handler chose."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_ignite_handler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ignite")
    run_script(monkeypatch, tmp_path, "hosts/ignite_handler.py", "--epochs", "2", "--frames", "100")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" frames")[0] for line in lines if line.startswith("epoch")] == ["epoch 1: 40", "epoch 2: 60"]
    assert lines[-1] == "LabelPool(100 frames: 80 labelled in 3 rounds)"
