"""The rounds of a transformers `Trainer`."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_transformers_trainer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    run_script(
        monkeypatch, tmp_path, "hosts/transformers_trainer.py", "--rounds", "2", "--epochs", "1", "--frames", "120"
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:-1]] == ["round 0: 40 frames", "round 1: 60 frames"]
    assert lines[-1] == "LabelPool(120 frames: 80 labelled in 3 rounds)"
