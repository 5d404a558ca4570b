"""The command line: which command runs, and what becomes of its errors."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable

import pytest

from cval_torch.cli import main as exported
from cval_torch.cli import serve
from cval_torch.cli.main import main
from cval_torch.errors import InvalidInputError


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


@pytest.mark.parametrize("error", [InvalidInputError("`data` must be new"), PermissionError("`data` must be new")])
def test_errors_that_a_user_can_mend_are_one_line(
    running: Callable[[object], None], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    running(error)
    assert main(["serve", "--data", "d"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "cval-torch: `data` must be new\n")


@pytest.mark.parametrize("error", [KeyError("a bug"), KeyboardInterrupt()])
def test_other_errors_keep_their_traceback(running: Callable[[object], None], error: BaseException) -> None:
    running(error)
    with pytest.raises(type(error)):
        main(["serve", "--data", "d"])


def test_without_a_command_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nothing"], ["serve"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: cval-torch" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "serve" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["cval_torch", "cval_torch.cli"])
@pytest.mark.parametrize(("outcome", "status"), [(0, 0), (5, 5), (InvalidInputError("no"), 2)])
def test_python_m_runs_it(
    running: Callable[[object], None], monkeypatch: pytest.MonkeyPatch, module: str, outcome: object, status: int
) -> None:
    """`python -m cval_torch` and `python -m cval_torch.cli`: the arguments are the process's, the status its own."""
    running(outcome)
    monkeypatch.setattr(sys, "argv", [module, "serve", "--data", "d"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == status
