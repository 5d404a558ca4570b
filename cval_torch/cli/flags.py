"""Flags that several commands share, and the configuration that they make together with a file."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from cval_torch.config.loading import load_config
from cval_torch.config.schema import Config, ExportFormat

EXPORT_FORMATS = [name for name in get_args(ExportFormat) if "_" not in name]
"""Of annotators' tools, as the command line spells them."""

_KEYS = {
    "source": "source",
    "model": "model",
    "checkpoint": "model.checkpoint",
    "num_classes": "model.num_classes",
    "labeled": "labeled",
    "strategy": "stages.0.selection_strategy",
    "num_of_samples": "stages.0.num_of_samples",
    "num_of_boxes": "stages.0.num_of_boxes",
    "num_of_minutes": "stages.0.num_of_minutes",
    "min_distance": "stages.0.min_distance",
    "output": "output.folder",
    "images": "output.images",
    "min_score": "output.min_score",
    "round": "output.round",
    "class_names": "class_names",
    "device": "device",
    "batch": "batch",
    "workers": "workers",
    "imgsz": "imgsz",
    "conf": "conf",
    "iou": "iou",
    "max_det": "max_det",
    "autocast": "autocast",
    "seed": "seed",
}


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Let a command take a configuration, and `key=value` over it."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="a YAML file, or the name of one that comes with cval_torch"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="over the file, such as stages.0.num_of_samples=200"
    )


def add_image_flags(parser: argparse.ArgumentParser) -> None:
    """Where the images are, and what is annotated."""
    parser.add_argument("--source", metavar="PATH", help="a folder of images, a COCO file, or a list of paths")
    parser.add_argument("--labeled", metavar="FILE", help="annotations so far, or a labels.json")
    parser.add_argument("--class-names", nargs="+", metavar="NAME", help="names of the classes, from label 0 on")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The detector, and how it infers."""
    group = parser.add_argument_group("detector")
    group.add_argument("--model", metavar="M", help="an Ultralytics .pt, a transformers folder, or a torchvision name")
    group.add_argument("--checkpoint", metavar="FILE", help="weights, for a torchvision name")
    group.add_argument("--num-classes", type=int, metavar="N", help="classes, for a torchvision name")
    group.add_argument("--device", help="such as cpu or cuda:0")
    group.add_argument("--batch", type=int, metavar="N", help="images at a time")
    group.add_argument("--workers", type=int, metavar="N", help="processes that load images")
    group.add_argument("--imgsz", type=int, metavar="N", help="Ultralytics' image size")
    group.add_argument("--conf", type=float, metavar="X", help="Ultralytics' lowest score")


def add_choice_flags(parser: argparse.ArgumentParser) -> None:
    """How many frames are chosen, and how."""
    group = parser.add_argument_group("choice")
    group.add_argument("-n", "--num-of-samples", type=int, metavar="N", help="frames to choose")
    group.add_argument("--num-of-boxes", type=float, metavar="N", help="a budget in boxes")
    group.add_argument("--num-of-minutes", type=float, metavar="N", help="a budget in minutes of annotation")
    group.add_argument("--strategy", metavar="NAME", help="auto if not given")
    group.add_argument("--min-distance", type=float, metavar="X", help="keep near-duplicates out")
    group.add_argument("--seed", type=int, metavar="N")


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    """What is written for annotators."""
    group = parser.add_argument_group("export")
    group.add_argument("--export", nargs="+", choices=EXPORT_FORMATS, metavar="FORMAT", help=", ".join(EXPORT_FORMATS))
    group.add_argument("--images", choices=["leave", "copy", "symlink", "hardlink"], help="what happens to the files")
    group.add_argument("--min-score", type=float, metavar="X", help="of pre-labels")
    group.add_argument("--round", type=int, metavar="N", help="the number of the round, to travel along")


def config_of(options: argparse.Namespace) -> Config:
    """The configuration of the file, what is said over it, and the flags, which count most.

    Raises:
        InvalidInputError: see `load_config`.
        OSError: the file cannot be read.
    """
    values: dict[str, Any] = {}
    for flag, key in _KEYS.items():
        value = getattr(options, flag, None)
        if value is not None:
            values[key] = value
    if getattr(options, "export", None) is not None:
        values["output.export"] = options.export
    return load_config(options.config, options.overrides, values=values)
