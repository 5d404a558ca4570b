"""`cval-torch labels`: which images are labelled, and which wait for annotators."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError


def add_labels(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "labels",
        help="show a labels.json, confirm or discard what waits in it",
        description="A labels.json records which images are labelled, and which were chosen and wait for annotators.",
        epilog="example: cval-torch labels status round1/labels.json",
    )
    parser.add_argument(
        "what",
        choices=["status", "confirm", "discard", "measured"],
        help="confirm: they are annotated now; measured: note what a detector trained on the labelled images scored",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a labels.json")
    parser.add_argument("metrics", nargs="*", metavar="NAME=VALUE", help="of `measured`, such as map_50=0.41")
    parser.add_argument("--ids", metavar="FILE", type=Path, help="confirm only these, one a line")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run_labels)


def run_labels(options: argparse.Namespace) -> int:
    """Show or change the record, and print what it says then."""
    from cval_torch.config.labels_file import LabelsFile

    if options.metrics and options.what != "measured":
        raise InvalidInputError(f"{options.metrics[0]!r} means nothing to `labels {options.what}`")
    record = LabelsFile.read(options.file)
    if options.what == "confirm":
        ids = None if options.ids is None else options.ids.read_text(encoding="utf-8-sig").splitlines()
        record = record.confirm(ids)
        record.write()
    elif options.what == "measured":
        record = record.measured(_metrics(options.metrics))
        record.write()
    elif options.what == "discard":
        record = record.discard()
        record.write()
    rounds = record.rounds
    labeled = sum(len(each.frame_ids) for each in rounds)
    if options.json:
        told = [{"frames": len(each.frame_ids), "strategy": each.strategy, "seed": each.seed} for each in rounds]
        values = {"frames": record.num_frames, "labeled": labeled, "pending": record.pending, "rounds": told}
        values["learning_curve"] = record.learning_curve.state()
        print(json.dumps(values, indent=1))
        return 0
    print(f"{record.num_frames} images: {labeled} labelled, {len(record.pending)} waiting for annotators")
    for number, each in enumerate(rounds):
        print(f"round {number}: {len(each.frame_ids)} images, chosen by {each.strategy or 'hand'}")
    curve, added = record.learning_curve, len(record.pending) or len(rounds[-1].frame_ids if rounds else ())
    for metric in curve.metrics:
        forecast = curve.forecast(metric, max(added, 1))
        print(forecast or f"{metric} is {curve.points(metric)[-1][1]:g}: a second round tells what more labels gain")
    return 0


def _metrics(given: list[str]) -> dict[str, float]:
    """`NAME=VALUE` as they stand on the command line."""
    found = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise InvalidInputError(f"a metric must be NAME=VALUE, such as map_50=0.41; got {each!r}") from None
        if not name or not math.isfinite(found[name]):
            raise InvalidInputError(f"a metric must have a name and a finite value; got {each!r}")
    if not found:
        raise InvalidInputError("`labels measured` needs one metric or more, such as map_50=0.41")
    return found
