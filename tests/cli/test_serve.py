"""`cval_torch serve`, up to the moment when it would listen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from own_server import KEY

from cval_torch.cli import main
from cval_torch.service.server.settings import Limits


def test_serving_needs_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CVAL_API_KEY", raising=False)
    assert main(["serve", "--data", str(tmp_path / "d")]) == 2
    assert "set CVAL_API_KEY, or give --api-key-file" in capsys.readouterr().err
    file = tmp_path / "keys"
    file.write_text("se\x07cret\n")
    assert main(["serve", "--data", str(tmp_path / "d"), "--api-key-file", str(file)]) == 2
    error = capsys.readouterr().err
    assert "API key number 1 must be" in error
    assert "cret" not in error
    assert main(["serve", "--data", str(tmp_path / "d"), "--api-key-file", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "d").exists()


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CVAL_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--data", str(tmp_path)]) == 2
    assert 'pip install "cval_torch[server]"' in capsys.readouterr().err


def test_every_limit_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for name in vars(Limits()):
        assert f"-{name.replace('_', '-')} N" in text
    assert KEY not in text
