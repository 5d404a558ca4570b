"""`cval-torch report`: a selection as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError


def add_report(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "report",
        help="write a selection as one HTML file",
        description="Write a selection as one HTML file that needs no network.",
        epilog="example: cval-torch report round1/ --predictions predictions.pool --output round1.html",
    )
    parser.add_argument("selection", metavar="DIR", type=Path, help="a folder that `cval-torch select` wrote")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True)
    parser.add_argument("--predictions", metavar="FILE", type=Path, help="of all images, by `cval-torch extract`")
    parser.add_argument("--source", metavar="PATH", help="where the images are now")
    parser.add_argument("--max-frames", type=int, default=200, metavar="N", help="frames to show (default: 200)")
    parser.add_argument("--exist-ok", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=run_report)


def run_report(options: argparse.Namespace) -> int:
    """Write, and print what was written."""
    if options.output.exists() and not options.exist_ok:
        raise InvalidInputError(f"{str(options.output)!r} is there already; replace it by --exist-ok")

    from cval_torch.config.reopening import reopen
    from cval_torch.pool.pool import Pool
    from cval_torch.report import report

    frames, _, names = reopen(options.selection, source=options.source)
    pool = None if options.predictions is None else Pool.load(options.predictions)
    print(
        report(
            frames,
            options.output,
            pool=pool,
            class_names=names or None,
            max_frames=options.max_frames,
            progress=not options.quiet,
        )
    )
    return 0
