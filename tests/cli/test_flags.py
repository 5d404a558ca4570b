"""Flags that several commands share, and the configuration that they make together with a file."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cval_torch.cli.flags import (
    add_choice_flags,
    add_config_flags,
    add_export_flags,
    add_image_flags,
    add_model_flags,
    config_of,
)
from cval_torch.config import Config


def parsed(*words: str) -> Config:
    parser = argparse.ArgumentParser()
    for add in (add_config_flags, add_image_flags, add_model_flags, add_choice_flags, add_export_flags):
        add(parser)
    return config_of(parser.parse_args(words))


def test_flags_count_over_overrides_and_these_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("source: a\nbatch: 1\nworkers: 1\nseed: 1\n")
    config = parsed("-c", str(path), "--batch", "3", "batch=2", "workers=2")
    assert (config.batch, config.workers, config.seed) == (3, 2, 1)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--source", "photos"], "source.path", "photos"),
        (["--model", "a.pt"], "model.path", "a.pt"),
        (["--model", "fcos_resnet50_fpn", "--checkpoint", "b.pt"], "model.checkpoint", "b.pt"),
        (["--model", "fcos_resnet50_fpn", "--num-classes", "3"], "model.num_classes", 3),
        (["--labeled", "done.json"], "labeled.path", "done.json"),
        (["--class-names", "no", "1e-3"], "class_names", ["no", "1e-3"]),
        (["-n", "5"], "stages.0.num_of_samples", 5),
        (["--num-of-boxes", "50"], "stages.0.num_of_boxes", 50.0),
        (["--num-of-minutes", "90"], "stages.0.num_of_minutes", 90.0),
        (["-n", "5", "--strategy", "entropy"], "stages.0.selection_strategy", "entropy"),
        (["-n", "5", "--min-distance", "0.2"], "stages.0.min_distance", 0.2),
        (["--export", "label-studio", "cvat"], "output.export", ["label_studio", "cvat"]),
        (["--images", "copy"], "output.images", "copy"),
        (["--min-score", "0"], "output.min_score", 0.0),
        (["--round", "2"], "output.round", 2),
        (["--device", "cpu"], "device", "cpu"),
        (["--imgsz", "320"], "imgsz", 320),
        (["--conf", "0.1"], "conf", 0.1),
        (["--seed", "3"], "seed", 3),
    ],
)
def test_each_flag_has_its_key(words: list[str], key: str, value: object) -> None:
    found: object = parsed(*words).model_dump()
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]  # type: ignore[index]
    assert found == value
