"""`cval-torch extract`: what a detector says of all images, as a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cval_torch.cli.flags import add_config_flags, add_image_flags, add_model_flags, config_of
from cval_torch.errors import InvalidInputError


def add_extract(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "extract",
        help="write what the detector says of all images",
        description="Write what the detector says of all images that are not annotated to a pool file. `select`, "
        "`report` and Python's `Pool.load` read it.",
        epilog="example: cval-torch extract --source images/ --model best.pt --output predictions.pool",
    )
    add_config_flags(parser)
    add_image_flags(parser)
    parser.add_argument("--output", metavar="FILE", required=True, help="the pool file")
    parser.add_argument("--exist-ok", action="store_true", help="replace a file that is there")
    add_model_flags(parser)
    parser.set_defaults(run=run_extract)


def run_extract(options: argparse.Namespace) -> int:
    """Infer all images, and write the pool."""
    path = Path(options.output)
    if path.exists() and not options.exist_ok:
        raise InvalidInputError(f"{str(path)!r} is there already; replace it by --exist-ok")
    options.output = None
    config = config_of(options)
    from cval_torch.config.choosing import open_work
    from cval_torch.extraction.inference_pass import InferencePass

    work = open_work(config)
    pool = InferencePass(
        work.detector.model, work.loader(work.labels.unlabeled), work.options(progress=not options.quiet)
    ).pool()
    path.parent.mkdir(parents=True, exist_ok=True)
    pool.save(path)
    print(f"{path}: {len(pool)} images, {pool.num_boxes} boxes")
    return 0
