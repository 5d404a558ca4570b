"""`cval-torch select`: from a folder of images to the frames worth annotating, and tasks for annotators."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cval_torch.cli.flags import (
    add_choice_flags,
    add_config_flags,
    add_export_flags,
    add_image_flags,
    add_model_flags,
    config_of,
)
from cval_torch.config.schema import Config
from cval_torch.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from cval_torch.config.choosing import Work

REPORT_ALL = 10_000
"""The most images of which the report shows the whole pool; it needs the predictions of all."""
_EXAMPLE = (
    "example: cval-torch select --source images/ --model best.pt --num-of-samples 200 --export label-studio "
    "--output round1/"
)


def add_select(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "select",
        help="choose the images worth annotating",
        description="Choose the images worth annotating.",
        epilog=_EXAMPLE,
    )
    add_config_flags(parser)
    add_image_flags(parser)
    parser.add_argument("--output", metavar="DIR", help="everything is written there")
    parser.add_argument("--exist-ok", action="store_true", help="replace what an earlier run wrote there")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--dry-run", action="store_true", help="infer a few images, and say what the whole will take")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument("--json", action="store_true", help="print the selection as JSON")
    add_choice_flags(parser)
    add_export_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(run=run_select)


def run_select(options: argparse.Namespace) -> int:
    """Choose, write, and print what was chosen."""
    config = config_of(options)
    if options.no_report:
        config = config.model_copy(update={"output": config.output.model_copy(update={"report": False})})
    if options.dry_run:
        from cval_torch.config.choosing import open_work

        return _say_what_it_takes(open_work(config), as_json=options.json)
    return run_selection(
        config, progress=not options.quiet, exist_ok=options.exist_ok, resume=options.resume, as_json=options.json
    )


def run_selection(
    config: Config, *, progress: bool, exist_ok: bool = False, resume: bool = False, as_json: bool = False
) -> int:
    """Choose as a configuration says, write everything, and print what was chosen."""
    if config.output.folder is None:
        raise InvalidInputError("`output` must be given: the folder that everything is written to")
    _check_extras(config)

    from cval_torch.config.choosing import choose, open_work
    from cval_torch.config.outputs import OutputFolder, selection_record, write_outputs
    from cval_torch.config.processes import joined_processes
    from cval_torch.report import report

    output = OutputFolder(Path(config.output.folder), exist_ok=exist_ok, resume=resume)
    output.check()
    work = open_work(config)
    full = config.output.report and len(work.labels) <= REPORT_ALL
    with joined_processes() as rank, output.pass_kept(on_disk=full, rank=rank) as kept:
        chosen, pool, labeled = choose(work, progress=progress, cache_dir=kept, keep=full)
        if rank != 0:
            return 0
        record = selection_record(work, chosen)
        with output.writing() as folder:
            written = write_outputs(folder, work, chosen, record, progress=progress)
            if config.output.report:
                written.append("report.html")
                report(
                    chosen,
                    folder / "report.html",
                    pool=pool,
                    labeled=work.labels if labeled is None else labeled,
                    learning_curve=work.labels.learning_curve,
                    class_names=work.class_names,
                    max_frames=config.output.max_frames,
                    min_score=0.3 if config.output.min_score is None else config.output.min_score,
                    progress=progress,
                )
    if as_json:
        json.dump(record, sys.stdout, indent=1)
        print()
        return 0
    cost = f"about {chosen.num_of_boxes:.0f} boxes to annotate, which may take {chosen.num_of_minutes:.0f} minutes"
    print(f"{len(chosen)} of {record['out_of']} images, {cost}")
    for name in written:
        print(output.folder / name)
    return 0


def can_report() -> bool:
    """Whether what `report.html` needs is installed."""
    return importlib.util.find_spec("jinja2") is not None


def _check_extras(config: Config) -> None:
    """Raise a `MissingExtraError` now, and not after the inference, if something cannot be written."""
    if config.output.report and not can_report():
        raise MissingExtraError("report", needed_for="report.html (--no-report leaves it out)")
    if "yolo" in config.output.export and importlib.util.find_spec("yaml") is None:
        raise MissingExtraError("formats", needed_for="YOLO's data.yaml")


def _say_what_it_takes(work: Work, *, as_json: bool) -> int:
    from cval_torch.config.forecast import forecast

    found = forecast(work)
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    minutes, seconds = divmod(round(found["seconds"]), 60)
    print(f"{found['images']} images to choose from, {found['labeled']} annotated already")
    print(f"the pass will take about {minutes} min {seconds} s")
    print(f"about {found['boxes']:.0f} objects are to be expected in them")
    memory = found["available_bytes"]
    free = "" if memory is None else f"; {memory / 1e9:.1f} GB of memory are free"
    print(f"all predictions of all images would take {found['kept_bytes'] / 1e9:.2f} GB{free}")
    return 0
