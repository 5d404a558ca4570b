"""`cval-torch export`: a selection, in formats for annotators."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cval_torch.cli.flags import EXPORT_FORMATS


def add_export(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="write a selection for annotators",
        description="Write a selection in a format for annotators.",
        epilog="example: cval-torch export round1/ --format cvat --output for_cvat/",
    )
    parser.add_argument("selection", metavar="DIR", type=Path, help="a folder that `cval-torch select` wrote")
    parser.add_argument("--format", required=True, choices=EXPORT_FORMATS)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True)
    parser.add_argument("--source", metavar="PATH", help="where the images are now")
    parser.add_argument("--images", choices=["leave", "copy", "symlink", "hardlink"], help="what happens to the files")
    parser.add_argument("--min-score", type=float, default=0.3, metavar="X", help="of pre-labels (default: 0.3)")
    parser.add_argument("--no-pre-labels", action="store_true", help="write no boxes")
    parser.add_argument("--round", type=int, metavar="N", help="the number of the round, to travel along")
    parser.add_argument("--exist-ok", action="store_true", help="replace an export that is there")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Write, and print what was written."""
    from cval_torch.config.outputs import SAVERS
    from cval_torch.config.reopening import reopen

    frames, config, names = reopen(options.selection, source=options.source)
    extra: dict[str, Any] = {} if options.images is None else {"images": options.images}
    path = SAVERS[options.format.replace("-", "_")](
        frames,
        options.output,
        class_names=_names(config.class_names, names),
        min_score=None if options.no_pre_labels else options.min_score,
        round=options.round,
        exist_ok=options.exist_ok,
        progress=not options.quiet,
        **extra,
    )
    print(path)
    return 0


def _names(given: dict[int, str] | list[str] | None, shown: dict[int, str]) -> dict[int, str]:
    """The names of all classes that are known, and of those that the frames show."""
    from cval_torch.formats.class_names import as_names

    return {**shown, **as_names(given)}
