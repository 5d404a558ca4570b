"""Runs an example as `python examples/...` does, in this process."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
os.environ.setdefault("YOLO_OFFLINE", "true")

HOSTS_WARN = [  # the frameworks' own warnings, and that tiny settings leave little to choose from
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
    pytest.mark.filterwarnings("ignore:the stage '.*' keeps all"),
]


def run_script(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, *options: str) -> None:
    """Run `examples/<name>` with these options, in `folder`. The script's own folder comes first on `sys.path`."""
    script = EXAMPLES / name
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *options])
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
