"""The command line, `cval-torch COMMAND`: one module a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cval_torch.cli.serve import add_serve
from cval_torch.errors import CvalError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (None: the process's own) name; the exit status is returned."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except (CvalError, OSError) as error:
        print(f"cval-torch: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cval-torch", description="Active learning for object detectors.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serve(commands)
    return parser
