"""A selection that the command line wrote, opened again: to report on it, or to export it in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from cval_torch.config.loading import load_config
from cval_torch.config.schema import Config
from cval_torch.config.sources import open_source
from cval_torch.errors import InvalidInputError
from cval_torch.formats.export_folder import SELECTION_FILE, SELECTION_FORMAT
from cval_torch.formats.json_files import read_json
from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Selection
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.labels import LabelPool


def reopen(folder: Path, *, source: str | None = None) -> tuple[SelectedFrames, Config, dict[int, str]]:
    """The chosen frames of a folder, the configuration that they were chosen by, and the names of their classes.

    Args:
        folder: that `cval-torch select` wrote.
        source: where the images are now; None: where they were.

    Raises:
        InvalidInputError: it is no such folder; an image is not there any more.
        OSError: a file cannot be read.
    """
    path = folder / SELECTION_FILE
    if not path.is_file():
        raise InvalidInputError(
            f"there is no {SELECTION_FILE} in {str(folder)!r}; give a folder of `cval-torch select`"
        )
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != SELECTION_FORMAT:
        raise InvalidInputError(f"{str(path)!r} is no selection of {SELECTION_FORMAT!r}")
    config = load_config(folder / "config.yaml", values={} if source is None else {"source": source})
    if config.source is None:
        raise InvalidInputError(f"the configuration in {str(folder)!r} has no `source`; give it by --source")
    dataset = open_source(config.source)
    try:
        frames, names = _frames(record, dataset)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}") from error
    return frames, config, names


def _frames(record: dict[str, Any], dataset: Dataset[Any]) -> tuple[SelectedFrames, dict[int, str]]:
    rows = record["frames"]
    ids = [each["frame_id"] for each in rows]
    indices = LabelPool(dataset).indices_of(ids)
    boxes = [box for each in rows for box in each["boxes"]]
    columns: dict[str, Any] = {}
    if all("box" in box for box in boxes):
        columns["boxes"] = torch.tensor([box["box"] for box in boxes], dtype=torch.float32).reshape(-1, 4)
    if all("label" in box for box in boxes):
        columns["labels"] = torch.tensor([box["label"] for box in boxes], dtype=torch.int64)
    if all("score" in box for box in boxes):
        columns["scores"] = torch.tensor([box["score"] for box in boxes], dtype=torch.float32)
    counts = torch.tensor([len(each["boxes"]) for each in rows], dtype=torch.int64)
    pool = Pool(ids, offsets_of(counts), indices=torch.tensor(indices), ids_from="target", **columns)
    scores = [float("nan") if each["score"] is None else each["score"] for each in rows]
    stages = tuple(DetectionSampling.model_validate(stage) for stage in record["stages"])
    selection = Selection(tuple(ids), torch.arange(len(ids)), torch.tensor(scores, dtype=torch.float64), stages)
    names = {int(box["label"]): str(box["class_name"]) for box in boxes if "class_name" in box}
    return SelectedFrames(dataset, selection, pool), names
