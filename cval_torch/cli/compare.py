"""`cval-torch compare`: what each strategy would have chosen, on images that are labelled."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from cval_torch.cli.flags import add_config_flags, add_image_flags, add_model_flags, config_of
from cval_torch.errors import InvalidInputError


def add_compare(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="see on labelled images what each strategy would choose",
        description="See on labelled images what each strategy would choose, beside random choice.",
        epilog="example: cval-torch compare --source images/ --labeled instances.json --model best.pt -n 50",
    )
    add_config_flags(parser)
    add_image_flags(parser)
    parser.add_argument("--strategies", nargs="+", metavar="NAME", help="auto, entropy and k_center if not given")
    parser.add_argument("-n", "--num-of-samples", type=int, metavar="N", help="images that each chooses")
    parser.add_argument("--start", type=int, metavar="N", help="images that count as labelled at the start, at random")
    parser.add_argument("--draws", type=int, metavar="N", help="random choices beside them")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the table there, too")
    add_model_flags(parser)
    parser.set_defaults(run=run_compare)


def run_compare(options: argparse.Namespace) -> int:
    """Compare, and print the table."""
    path, options.output = options.output, None
    asked = {"strategies": options.strategies, "num_of_samples": options.num_of_samples}
    asked |= {"start": options.start, "draws": options.draws}
    options.num_of_samples = None
    options.overrides += [f"compare.{name}={_yaml(value)}" for name, value in asked.items() if value is not None]
    config = config_of(options)
    if config.source is None or config.labeled is None:
        raise InvalidInputError("`source` and `labeled` must be given: the images, and their annotations")
    from torch.utils.data import DataLoader

    from cval_torch.comparison import compare
    from cval_torch.config.choosing import open_labels, pass_options
    from cval_torch.config.detectors import open_detector
    from cval_torch.config.sources import open_source
    from cval_torch.formats.images import collate_images
    from cval_torch.pool.files import replacing

    labels, annotated = open_labels(config, open_source(config.source))
    if annotated is None:
        raise InvalidInputError(f"`labeled` must be annotations; {config.labeled.path!r} tells only what is labelled")
    dataset = labels.training_set(annotated)
    start = random.Random(config.seed).sample(list(dataset.frame_ids), min(config.compare.start, len(dataset)))  # noqa: S311
    detector = open_detector(config)
    loader = DataLoader(dataset, batch_size=config.batch, num_workers=config.workers, collate_fn=collate_images)
    comparison = compare(
        detector.model,
        loader,
        config.compare.strategies,
        num_of_samples=config.compare.num_of_samples,
        labeled=start or None,
        draws=config.compare.draws,
        seed=config.seed,
        options=pass_options(config, detector, progress=not options.quiet),
    )
    print(comparison)
    if path is not None:
        with replacing(path) as file:
            file.write(f"{comparison}\n")
    return 0


def _yaml(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
