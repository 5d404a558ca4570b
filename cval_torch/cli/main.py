"""The command line, `cval-torch COMMAND`: one module a command."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from cval_torch.cli.annotations import add_import
from cval_torch.cli.backup import add_backup
from cval_torch.cli.compare import add_compare
from cval_torch.cli.config import add_config
from cval_torch.cli.doctor import add_doctor
from cval_torch.cli.export import add_export
from cval_torch.cli.extract import add_extract
from cval_torch.cli.labels import add_labels
from cval_torch.cli.quickstart import add_quickstart
from cval_torch.cli.report import add_report
from cval_torch.cli.select import add_select
from cval_torch.cli.serve import add_serve
from cval_torch.errors import CvalError, InvalidInputError, MissingExtraError

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_USERS_MISTAKES = (InvalidInputError, MissingExtraError, FileNotFoundError, IsADirectoryError, NotADirectoryError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (None: the process's own) name.

    Returns:
        The exit status: 0; 1, it failed; 2, it was called wrongly, or its configuration is wrong; 130, Ctrl-C.
    """
    parser = _parser()
    with contextlib.suppress(ImportError):  # a shell completes words where argcomplete is installed
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            if not options.debug:
                warnings.showwarning = _say_warning  # type: ignore[assignment]
            status: int = options.run(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("cval-torch: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (CvalError, OSError, MemoryError) as error:
        if options.debug:
            traceback.print_exc()
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"cval-torch: {message}", file=sys.stderr)
        return USAGE if isinstance(error, _USERS_MISTAKES) else FAILED
    return status


def _say_warning(message: Warning | str, *_: object) -> None:
    print(f"cval-torch: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cval-torch", description="Active learning for object detectors: choose the images worth annotating."
    )
    parser.add_argument("--version", action="version", version=f"cval_torch {metadata.version('cval_torch')}")
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--quiet", action="store_true", help="show no progress")
    everywhere.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = _Commands(parser.add_subparsers(required=True, metavar="COMMAND", dest="command"), everywhere)
    for add in (
        add_select,
        add_extract,
        add_report,
        add_export,
        add_import,
        add_compare,
        add_labels,
        add_serve,
        add_backup,
        add_config,
        add_doctor,
        add_quickstart,
    ):
        add(commands)
    return parser


class _Commands:
    """Adds subcommands that all have the same flags beside their own."""

    def __init__(self, commands: Any, shared: argparse.ArgumentParser) -> None:
        self._commands, self._shared = commands, shared

    def add_parser(self, name: str, **options: object) -> argparse.ArgumentParser:
        options.setdefault("formatter_class", _wide)
        parser: argparse.ArgumentParser = self._commands.add_parser(name, parents=[self._shared], **options)
        return parser


def _wide(prog: str) -> argparse.HelpFormatter:
    """Help whose longer flags have their words beside them, which takes fewer lines."""
    return argparse.HelpFormatter(prog, max_help_position=32)
