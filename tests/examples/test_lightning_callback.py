"""The Lightning fit whose train set grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_lightning_callback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning")
    run_script(monkeypatch, tmp_path, "hosts/lightning_callback.py", "--epochs", "3", "--frames", "150")
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("20 more were labelled") for line in lines if line.startswith("epoch")] == [
        False,
        True,
        False,
    ]
    assert lines[-1] == "LabelPool(150 frames: 60 labelled in 2 rounds)"
