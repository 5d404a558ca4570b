"""The simulated run over several rounds: it goes on where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from scripts import EXAMPLES, HOSTS_WARN, run_script

pytestmark = HOSTS_WARN


def test_active_learning_goes_on_where_it_was_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(monkeypatch, tmp_path, "study/active_learning.py", "--quick", "--folder", "whole")
    whole = tmp_path / "whole" / "quick-seed0"
    results = json.loads((whole / "results.json").read_text())
    assert {arm: list(curve) for arm, curve in results.items()} == {
        "entropy, clustering": ["12", "24", "36"],
        "random 0": ["12", "24", "36"],
    }
    with Image.open(whole / "map_over_frames.png") as picture:
        assert len(set(picture.convert("L").resize((60, 40)).tobytes())) > 10

    killed = tmp_path / "killed" / "quick-seed0"
    command = [
        sys.executable,
        str(EXAMPLES / "study/active_learning.py"),
        "--quick",
        "--folder",
        str(tmp_path / "killed"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(killed.glob("*.pt"))) < 3:  # letters, the start, the first round
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "random-0.json").exists()
    for file in killed.glob("*.pt"):
        assert file.read_bytes() == (whole / file.name).read_bytes()
    capsys.readouterr()
    run_script(monkeypatch, tmp_path, "study/active_learning.py", "--quick", "--folder", "killed")
    assert "training on letters" not in capsys.readouterr().out
    assert json.loads((killed / "results.json").read_text()) == results
    for name in ("entropy-clustering.json", "random-0.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
