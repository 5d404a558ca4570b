"""`cval-torch backup`; `test_backup` of the server says what is copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch.cli import main
from cval_torch.cli.backup import add_backup
from cval_torch.service.server.database import Database


def test_a_copy_is_made_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add_backup.__doc__
    (tmp_path / "data").mkdir()
    Database(tmp_path / "data" / "cval.sqlite3").close()
    command = ["backup", "--data", str(tmp_path / "data"), "--to", str(tmp_path / "copy")]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'copy'}: a copy of {tmp_path / 'data'}, with 0 unfinished tasks\n"
    assert (tmp_path / "copy" / "cval.sqlite3").is_file()
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
