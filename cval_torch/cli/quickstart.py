"""`cval-torch quickstart`: the main job without any data, in half a minute."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cval_torch.cli.select import can_report, run_selection
from cval_torch.config.loading import load_config
from cval_torch.errors import InvalidInputError

_IMAGES, _LABELED, _CHOSEN = 80, 20, 8


def add_quickstart(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "quickstart",
        help="try it without data",
        description="Draw some pictures, train a small detector on a few of them, and choose which of the others to "
        "annotate: everything that `select` does, without data of yours. It takes about a minute.",
        epilog="example: cval-torch quickstart --output quickstart/",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("cval_torch_quickstart"))
    parser.set_defaults(run=run_quickstart)


def run_quickstart(options: argparse.Namespace) -> int:
    """Draw, train, choose, and print what was written."""
    folder: Path = options.output
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInputError(f"the folder {str(folder)!r} is not empty; give another --output")

    from cval_torch.cli.drawn import CLASSES, draw_picture, small_detector, train_detector, write_annotations

    (folder / "images").mkdir(parents=True)
    targets = [draw_picture(folder / "images" / f"{number:03d}.png", number) for number in range(_IMAGES)]
    write_annotations(folder / "labeled.json", targets[:_LABELED])
    if not options.quiet:
        print(f"{_IMAGES} pictures drawn, {_LABELED} of them annotated; a small detector is trained", flush=True)
    train_detector(folder, targets[:_LABELED])
    config = load_config(
        None,
        values={
            "source": str(folder / "images"),
            "labeled": str(folder / "labeled.json"),
            "model.factory": f"{small_detector.__module__}:small_detector",
            "model.args": {"checkpoint": str(folder / "detector.pt")},
            "class_names": CLASSES,
            "stages.0.num_of_samples": _CHOSEN,
            "workers": 0,
            "output.report": can_report(),
            "output.folder": str(folder / "selection"),
            "output.export": ["coco"],
            "output.images": "copy",
        },
    )
    return run_selection(config, progress=not options.quiet)
