"""The command line: which command runs, and what becomes of its errors."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from cval_torch.cli import main as exported
from cval_torch.cli import serve
from cval_torch.cli.main import main
from cval_torch.errors import InvalidInputError, MissingExtraError, ServiceUnreachableError

COMMANDS = (
    "select",
    "extract",
    "report",
    "export",
    "import",
    "compare",
    "labels",
    "serve",
    "backup",
    "config",
    "doctor",
    "quickstart",
)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Makes `serve` return a status, or raise an error, without serving."""

    def become(outcome: object) -> None:
        def run(options: object) -> int:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome  # type: ignore[return-value]

        monkeypatch.setattr(serve, "serve_until_stopped", run)

    return become


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_of_a_command_is_returned(running: Callable[[object], None], status: int) -> None:
    assert exported is main
    running(status)
    assert main(["serve", "--data", "d"]) == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInputError("`data` must\nbe new"), 2),
        (MissingExtraError("server", needed_for="this"), 2),
        (FileNotFoundError("gone"), 2),
        (PermissionError("not allowed"), 1),
        (ServiceUnreachableError("no answer"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_that_a_user_can_mend_are_one_line(
    running: Callable[[object], None], capsys: pytest.CaptureFixture[str], error: BaseException, status: int
) -> None:
    running(error)
    assert main(["serve", "--data", "d"]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cval-torch: ")
    assert said.err.count("\n") == 1


def test_where_an_error_comes_from_is_told_on_demand(
    running: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    running(InvalidInputError("wrong"))
    assert main(["serve", "--data", "d", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_bugs_keep_their_traceback(running: Callable[[object], None]) -> None:
    running(KeyError("a bug"))
    with pytest.raises(KeyError):
        main(["serve", "--data", "d"])


def test_without_a_command_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nothing"], ["serve"], ["select", "--no-such-flag"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: cval-torch" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_fits_a_screen_and_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) <= 60
    if command != "serve":
        assert f"example: cval-torch {command} " in " ".join(said.split())


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cval_torch {metadata.version('cval_torch')}\n"


@pytest.mark.parametrize("module", ["cval_torch", "cval_torch.cli"])
def test_python_m_is_the_same(running: Callable[[object], None], monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    running(3)
    monkeypatch.setattr(sys, "argv", [module, "serve", "--data", "d"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 3


def test_ctrl_c_ends_a_real_process(tmp_path: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "cval_torch", "quickstart", "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert "pictures drawn" in started.stdout.readline()
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130
    assert err.splitlines()[-1] == "cval-torch: stopped"


def test_a_reader_that_has_enough_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m cval_torch config schema | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_what_infers_nothing_needs_no_torch(tmp_path: Path) -> None:
    script = """
import sys
import cval_torch
from cval_torch.cli import main
for words in COMMANDS:
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    assert status == (0 if words[-1] in ("--help", "--version", "schema", "rare_classes", "quickstart") else 2), words
    assert not {"torch", "numpy"} & set(sys.modules), words
"""
    commands = [
        *([command, "--help"] for command in COMMANDS),
        ["--help"],
        ["--version"],
        ["config", "schema"],
        ["config", "check", "rare_classes"],
        ["config", "init", "quickstart"],
        ["config", "check", "nothing"],
        ["nothing"],
        ["select", "--no-such-flag"],
        ["select", "--source", "images", "bach=3"],
        ["select", "--source", "images", "--num-of-samples", "0"],
        ["select", "--source", "images", "--num-of-samples", "3"],
        ["serve", "--data", "data"],
        ["backup", "--data", "data", "--to", "there"],
        ["compare", "--source", "images"],
        ["export", "chosen", "--output", "x", "--format", "paper"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", script.replace("COMMANDS", repr(commands))],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "CVAL_API_KEY"},
    )
    assert done.returncode == 0, done.stderr


def test_a_shell_completes_words() -> None:
    pytest.importorskip("argcomplete")
    line = "cval-torch sel"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_IFS": "\v",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stderr",
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cval_torch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    *imported, words = done.stderr.splitlines()
    assert words.split("\v") == ["select"]
    assert [line for line in imported if line.split()[-1] == "cval_torch.cli.main"], "imports are told"
    assert [line for line in imported if line.split()[-1] in ("torch", "numpy")] == [], "it answers at once"
