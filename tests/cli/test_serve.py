"""`cval_torch serve`, up to the moment when it would listen."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
from own_server import KEY

from cval_torch.cli import main
from cval_torch.cli.serve import add_serve, serve_until_stopped
from cval_torch.errors import InvalidInputError
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


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_serve(parser.add_subparsers())
    return parser.parse_args(["serve", "--data", "d", *given])


def test_defaults_are_those_of_the_limits_and_of_this_machine_alone() -> None:
    read = options()
    assert (read.host, read.port, read.data, read.api_key_file, read.log_level) == (
        "127.0.0.1", 8000, Path("d"), None, "info"
    )  # fmt: skip
    for name, value in vars(Limits()).items():
        assert getattr(read, name) == value
        assert type(getattr(read, name)) is type(value)
    assert read.run is serve_until_stopped


@pytest.mark.parametrize("name", sorted(vars(Limits())))
def test_each_limit_is_read_from_its_option(name: str) -> None:
    option = f"--{'' if name.endswith('_at_once') else 'max-'}{name.replace('_', '-')}"
    read = options(option, "7")
    assert {each: getattr(read, each) for each in vars(Limits())} == {**vars(Limits()), name: 7}


class Served:
    """What uvicorn is asked to run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[dict[str, Any]] = []
        self.made: list[tuple[Any, ...]] = []
        self.started = True
        monkeypatch.setattr("uvicorn.Server", lambda config: self)
        monkeypatch.setattr(
            "cval_torch.service.server.connections.server_config",
            lambda app, **given: self.asked.append({"app": app, **given}),
        )
        monkeypatch.setattr(
            "cval_torch.service.server.app.create_app",
            self.create,
        )
        monkeypatch.setattr("logging.basicConfig", lambda **given: None)

    def create(self, data: Path, keys: Any, *, limits: Limits, processes: bool) -> str:
        self.made.append((data, keys, limits))
        return "the app" if processes else "an app that computes itself"

    def run(self) -> None:
        return


def test_what_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served = Served(monkeypatch)
    monkeypatch.setenv("CVAL_API_KEY", KEY)
    assert (
        serve_until_stopped(options("--host", "::1", "--port", "0", "--max-frames", "9", "--log-level", "error")) == 0
    )
    assert served.made == [(Path("d"), [(None, KEY)], Limits(frames=9))]
    (asked,) = served.asked
    assert (asked["app"], asked["host"], asked["port"], asked["log_level"]) == ("the app", "::1", 0, "error")


def test_a_key_file_stands_for_the_environments_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served = Served(monkeypatch)
    monkeypatch.setenv("CVAL_API_KEY", KEY)
    file = tmp_path / "keys"
    file.write_text("# keys\nme first\n\nsecond\n")
    assert serve_until_stopped(options("--api-key-file", str(file))) == 0
    assert served.made[0][1] == file, "it is read again when it changes"
    served.started = False
    assert serve_until_stopped(options("--api-key-file", str(file))) == 3
    file.write_text("# none\n")
    with pytest.raises(InvalidInputError, match=r"no API key: .*keys must have at least one"):
        serve_until_stopped(options("--api-key-file", str(file)))
