"""`cval-torch import`: what people annotated, into a labels.json and one file of annotations."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cval_torch.cli.flags import add_config_flags, add_image_flags, config_of
from cval_torch.errors import InvalidInputError


def add_import(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "import",
        help="take over what people annotated",
        description="Take over what people annotated: the images become labelled in a labels.json, and all annotations "
        "so far are written as COCO.",
        epilog="example: cval-torch import export.json --source images/ --labels round1/labels.json "
        "--output annotated/",
    )
    parser.add_argument("annotations", metavar="FILE", type=Path, help="what the annotation tool exported")
    parser.add_argument("--format", help="of that file, if it cannot be told: coco, yolo, cvat, label-studio or csv")
    parser.add_argument(
        "--empty", choices=["annotated", "unannotated"], default="unannotated", help="images without boxes"
    )
    parser.add_argument("--labels", metavar="FILE", type=Path, required=True, help="the labels.json; made if not there")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="all annotations so far, as COCO")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    add_config_flags(parser)
    add_image_flags(parser)
    parser.set_defaults(run=run_import)


def run_import(options: argparse.Namespace) -> int:
    """Read, record, write, and print what was found."""
    folder, options.output = options.output, None
    config = config_of(options)
    if config.source is None:
        raise InvalidInputError("`source` must be given: the images that were chosen from")

    from cval_torch.config.labels_file import LabelsFile
    from cval_torch.config.sources import open_source
    from cval_torch.formats.by_name import load_annotations
    from cval_torch.formats.coco import load_coco, save_coco
    from cval_torch.training.annotate import latest
    from cval_torch.training.labels import LabelPool
    from cval_torch.training.rounds import Round

    labels = LabelPool(open_source(config.source))
    waiting: Round | None = None
    if options.labels.exists():
        record = LabelsFile.read(options.labels)
        labels.load_state_dict(record.state["labels"], strict=False)
        waiting = Round.from_state(record.state["pending"]).part(record.pending) if record.pending else None
    read = load_annotations(
        options.annotations, format=options.format, class_names=config.class_names, empty=options.empty
    )
    result = labels.annotate_from(read)
    before = [load_coco(folder)] if (folder / "frames.json").is_file() else []
    everything = latest([*before, result.annotations])
    left = [] if waiting is None else [each for each in waiting.frame_ids if not labels.is_labeled(each)]
    save_coco(everything, folder, exist_ok=bool(before), progress=False)
    options.labels.parent.mkdir(parents=True, exist_ok=True)
    LabelsFile.of(options.labels, labels, waiting.part(left) if waiting is not None and left else None).write()
    told = {
        "labeled": 0 if result.round is None else len(result.round.frame_ids),
        "labeled_before": len(result.relabeled),
        "unannotated": list(result.unannotated),
        "skipped": list(result.skipped),
        "unmatched": list(result.unmatched),
        "waiting": left,
        "boxes": len(result.annotations.labels),
    }
    if options.json:
        print(json.dumps(told, indent=1))
        return 0
    print(
        f"{told['labeled']} images newly labelled, {told['labeled_before']} labelled before, {told['boxes']} boxes; "
        f"{len(result.unannotated)} not annotated, {len(result.skipped)} skipped, {len(result.unmatched)} unknown; "
        f"{len(left)} still wait"
    )
    print(folder / "instances.json")
    print(options.labels)
    return 0
