"""A first user's folder, and commands that are run in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cval_torch.cli import main
from tests.worlds.first_user import DETECTOR, make_place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/` and `detector.pt`."""
    return make_place(tmp_path_factory.mktemp("user"))


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command in the user's folder; the exit status, and what it said."""
    monkeypatch.chdir(place)

    def command(*words: str) -> tuple[int, str, str]:
        status = main([*words, "--quiet"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


@pytest.fixture
def selection(run: Callable[..., Any], tmp_path: Path) -> Path:
    """The folder of a selection of three images."""
    words = (
        "select",
        "--source",
        "photos/cats",
        *DETECTOR,
        "-n",
        "3",
        "--no-report",
        "--class-names",
        "x",
        "cat",
        "cup",
    )
    status, _, err = run(*words, "--output", str(tmp_path / "chosen"))
    assert status == 0, err
    return tmp_path / "chosen"
