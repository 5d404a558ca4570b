"""`cval-torch labels`: which images are labelled, and which wait for annotators."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_labels(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "labels",
        help="show a labels.json, confirm or discard what waits in it",
        description="A labels.json records which images are labelled, and which were chosen and wait for annotators.",
        epilog="example: cval-torch labels status round1/labels.json",
    )
    parser.add_argument("what", choices=["status", "confirm", "discard"], help="confirm: they are annotated now")
    parser.add_argument("file", metavar="FILE", type=Path, help="a labels.json")
    parser.add_argument("--ids", metavar="FILE", type=Path, help="confirm only these, one a line")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run_labels)


def run_labels(options: argparse.Namespace) -> int:
    """Show or change the record, and print what it says then."""
    from cval_torch.config.labels_file import LabelsFile

    record = LabelsFile.read(options.file)
    if options.what == "confirm":
        ids = None if options.ids is None else options.ids.read_text(encoding="utf-8-sig").splitlines()
        record = record.confirm(ids)
        record.write()
    elif options.what == "discard":
        record = record.discard()
        record.write()
    rounds = record.rounds
    labeled = sum(len(each.frame_ids) for each in rounds)
    if options.json:
        told = [{"frames": len(each.frame_ids), "strategy": each.strategy, "seed": each.seed} for each in rounds]
        values = {"frames": record.num_frames, "labeled": labeled, "pending": record.pending, "rounds": told}
        print(json.dumps(values, indent=1))
        return 0
    print(f"{record.num_frames} images: {labeled} labelled, {len(record.pending)} waiting for annotators")
    for number, each in enumerate(rounds):
        print(f"round {number}: {len(each.frame_ids)} images, chosen by {each.strategy or 'hand'}")
    return 0
