"""`cval-torch serve`: a server of one's own."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError, MissingExtraError
from cval_torch.service.client.key import KEY_VARIABLE
from cval_torch.service.server.keys import read_key_file
from cval_torch.service.server.settings import Limits


def add_serve(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    serve: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="run a server that speaks the protocol of cval.ai",
        description="Run a server that speaks the protocol of cval.ai, at http://HOST:PORT/api. The key is read from "
        f"the environment's {KEY_VARIABLE}, or keys from --api-key-file; not from the command line, which others see.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    serve.add_argument("--data", type=Path, required=True, metavar="DIR", help="directory for all that is kept")
    serve.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="keys, one a line: KEY, or OWNER KEY; it is read again when it changes",
    )
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    limits = serve.add_argument_group("limits")
    for field in dataclasses.fields(Limits):
        name = f"--{'' if field.name.endswith('_at_once') else 'max-'}{field.name.replace('_', '-')}"
        kind = float if isinstance(field.default, float) else int
        limits.add_argument(
            name, dest=field.name, type=kind, default=field.default, metavar="N", help=_help_of(field.name)
        )
    serve.set_defaults(run=serve_until_stopped)


def _help_of(limit: str) -> str:
    """The line on a limit in the docstring of `Limits`."""
    lines = [line.strip() for line in (Limits.__doc__ or "").splitlines()]
    return next(line.partition(": ")[2] for line in lines if line.startswith(f"{limit}:"))


def serve_until_stopped(options: argparse.Namespace) -> int:
    """Serve until the process is told to stop; returns the exit status."""
    keys = _keys(options.api_key_file)
    try:
        import uvicorn

        from cval_torch.service.server.app import create_app
        from cval_torch.service.server.connections import server_config
    except ImportError as error:
        raise MissingExtraError("server", needed_for="cval-torch serve") from error
    limits = Limits(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Limits)})
    app = create_app(options.data, keys, limits=limits, processes=True)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = server_config(app, host=options.host, port=options.port, log_level=options.log_level)
    server = uvicorn.Server(config)
    server.run()
    return 0 if server.started else 3


def _keys(file: Path | None) -> list[tuple[str | None, str]] | Path:
    if file is not None:
        if not read_key_file(file):
            raise InvalidInputError(f"no API key: {file} must have at least one")
        return file
    from_environment = os.environ.get(KEY_VARIABLE)
    if not from_environment:
        raise InvalidInputError(f"no API key: set {KEY_VARIABLE}, or give --api-key-file FILE with at least one")
    return [(None, from_environment)]
