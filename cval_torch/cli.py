"""The command line: `cval-torch serve`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cval_torch.client.key import KEY_VARIABLE
from cval_torch.errors import CvalError, InvalidInputError, MissingExtraError
from cval_torch.server.keys import read_key_file
from cval_torch.server.settings import Limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (None: the process's own) name; the exit status is returned."""
    options = _parser().parse_args(arguments)
    try:
        return _serve(options)
    except (CvalError, OSError) as error:
        print(f"cval-torch: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cval-torch", description="Active learning for object detectors.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run a server that speaks the protocol of cval.ai",
        description="Run a server that speaks the protocol of cval.ai, at http://HOST:PORT/api. The key is read from "
        f"the environment's {KEY_VARIABLE}, or keys from --api-key-file; not from the command line, which others see.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    serve.add_argument("--data", type=Path, required=True, metavar="DIR", help="directory for all that is kept")
    serve.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one a line: KEY, or OWNER KEY")
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    limits = serve.add_argument_group("limits")
    for field in dataclasses.fields(Limits):
        name = f"--max-{field.name.replace('_', '-')}" if field.name != "answer_at_once" else "--answer-at-once"
        kind = float if isinstance(field.default, float) else int
        limits.add_argument(
            name, dest=field.name, type=kind, default=field.default, metavar="N", help=_help_of(field.name)
        )
    return parser


def _help_of(limit: str) -> str:
    """The line on a limit in the docstring of `Limits`."""
    lines = [line.strip() for line in (Limits.__doc__ or "").splitlines()]
    return next(line.partition(": ")[2] for line in lines if line.startswith(f"{limit}:"))


def _serve(options: argparse.Namespace) -> int:
    try:
        import uvicorn  # noqa: PLC0415 - an extra

        from cval_torch.server.app import create_app  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("server", needed_for="cval-torch serve") from error
    limits = Limits(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Limits)})
    app = create_app(options.data, _keys(options.api_key_file), limits=limits)
    logging.basicConfig(level=options.log_level.upper())
    uvicorn.run(app, host=options.host, port=options.port, log_level=options.log_level, timeout_graceful_shutdown=10)
    return 0


def _keys(file: Path | None) -> list[tuple[str | None, str]]:
    keys = read_key_file(file) if file is not None else []
    from_environment = os.environ.get(KEY_VARIABLE)
    if from_environment and file is None:
        keys = [(None, from_environment)]
    if not keys:
        raise InvalidInputError(f"no API key: set {KEY_VARIABLE}, or give --api-key-file FILE with at least one")
    return keys


if __name__ == "__main__":
    sys.exit(main())
