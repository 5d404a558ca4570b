"""The examples of training in rounds: each runs to its end, and the simulated run survives being killed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
os.environ.setdefault("YOLO_OFFLINE", "true")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
    pytest.mark.filterwarnings("ignore:the stage '.*' keeps all"),
]


@pytest.fixture(autouse=True)
def _quietly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run(monkeypatch: pytest.MonkeyPatch, name: str, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_training_loop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "training_loop.py", "--epochs", "4", "--frames", "150", "--letters", "2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].split()[0] for line in lines if line.startswith("epoch")] == ["40", "40", "60", "60"]
    assert lines[-1].startswith("LabelPool(150 frames: 80 labelled in 3 rounds)")


def test_lightning_callback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning")
    run(monkeypatch, "lightning_callback.py", "--epochs", "3", "--frames", "150", "--letters", "2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("20 more were labelled") for line in lines if line.startswith("epoch")] == [
        False,
        True,
        False,
    ]
    assert lines[-1] == "LabelPool(150 frames: 60 labelled in 2 rounds)"


def test_transformers_trainer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    run(monkeypatch, "transformers_trainer.py", "--rounds", "2", "--epochs", "1", "--frames", "120")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:-1]] == ["round 0: 40 frames", "round 1: 60 frames"]
    assert lines[-1] == "LabelPool(120 frames: 80 labelled in 3 rounds)"


def test_ultralytics_callback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ultralytics")
    run(monkeypatch, "ultralytics_callback.py", "--rounds", "2", "--epochs", "1", "--frames", "80")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines if line.startswith("round")] == [
        "round 0: 40 frames",
        "round 1: 60 frames",
    ]
    assert lines[-1] == "LabelPool(80 frames: 80 labelled in 3 rounds)"


def test_active_learning_goes_on_where_it_was_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "active_learning.py", "--quick", "--folder", "whole")
    whole = tmp_path / "whole" / "quick-seed0"
    results = json.loads((whole / "results.json").read_text())
    assert {arm: list(curve) for arm, curve in results.items()} == {
        "entropy, clustering": ["12", "24", "36"],
        "random 0": ["12", "24", "36"],
    }
    with Image.open(whole / "map_over_frames.png") as picture:
        assert len(set(picture.convert("L").resize((60, 40)).tobytes())) > 10

    killed = tmp_path / "killed" / "quick-seed0"
    command = [sys.executable, str(EXAMPLES / "active_learning.py"), "--quick", "--folder", str(tmp_path / "killed")]
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
    run(monkeypatch, "active_learning.py", "--quick", "--folder", "killed")
    assert "training on letters" not in capsys.readouterr().out
    assert json.loads((killed / "results.json").read_text()) == results
    for name in ("entropy-clustering.json", "random-0.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
