"""`cval-torch doctor` (`run_doctor`): what is installed, and whether the service answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from own_server import OwnServer

from cval_torch.cli import doctor, main

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_it_tells_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert torch.__version__ in said
    assert "GB available" in said
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["extras"]["formats"] == "is there"
    for_contributors = {"benchmarks", "dev", "docs", "examples"}
    (table,) = re.findall(r"^\[project.optional-dependencies\]$(.*?)^\[", PROJECT.read_text(), re.DOTALL | re.MULTILINE)
    assert set(found["extras"]) == set(re.findall(r"^(\w+) = ", table, re.MULTILINE)) - for_contributors
    assert found["broken"] == []


def test_what_is_missing_or_broken_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "_broken", lambda: ["torchvision does not work"])
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "ultralytics is missing" in said
    assert "torchvision does not work" in said


def test_the_service_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = OwnServer(tmp_path)
    try:
        monkeypatch.setenv("CVAL_API_KEY", server.key)
        monkeypatch.setenv("CVAL_URL", server.url)
        assert main(["doctor", "--service", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["service"] == "answers"
        monkeypatch.setenv("CVAL_API_KEY", "wrong" * 8)
        assert main(["doctor", "--service", "--json"]) == 1
    finally:
        server.stop()
