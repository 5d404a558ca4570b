"""`cval-torch backup`: a copy of a server's directory, while it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cval_torch.service.server.backup import copy_data


def add_backup(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    backup: argparse.ArgumentParser = commands.add_parser(
        "backup",
        help="copy what a server of your own keeps",
        description="Copy the directory of a server: datasets, embeddings, tasks that wait, and results. The server "
        "may run meanwhile. The copy is a directory that `cval-torch serve --data` takes, so the same command restores "
        "it.",
        epilog="example: cval-torch backup --data cval-data --to backups/monday",
    )
    backup.add_argument("--data", type=Path, required=True, metavar="DIR", help="directory of the server, or a backup")
    backup.add_argument("--to", type=Path, required=True, metavar="DIR", help="directory to make")
    backup.set_defaults(run=run_backup)


def run_backup(options: argparse.Namespace) -> int:
    """Copy, and say so; returns the exit status."""
    waiting = copy_data(options.data, options.to)
    if not options.quiet:
        print(f"{options.to}: a copy of {options.data}, with {waiting} unfinished tasks")
    return 0
