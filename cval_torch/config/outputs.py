"""What a selection from a configuration leaves behind: a folder, whole or not at all."""

from __future__ import annotations

import contextlib
import math
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from cval_torch.config.choosing import Work
from cval_torch.config.labels_file import LabelsFile
from cval_torch.config.writing import config_text
from cval_torch.extraction.listing import path_of
from cval_torch.formats import save_coco, save_csv, save_cvat, save_label_studio, save_yolo
from cval_torch.formats.export_folder import SELECTION_FILE, SELECTION_FORMAT, export_folder
from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.files import write_json
from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import describe_stage
from cval_torch.training.rounds import Round, as_scores

SAVERS: dict[str, Callable[..., Path]] = {
    "coco": save_coco,
    "yolo": save_yolo,
    "cvat": save_cvat,
    "label_studio": save_label_studio,
    "csv": save_csv,
}
_PACKAGES = ("cval_torch", "torch", "torchvision", "ultralytics", "transformers")


@dataclass(frozen=True)
class OutputFolder:
    """Where a run writes.

    Attributes:
        folder: what is there at the end.
        exist_ok: whether what an earlier run wrote there is replaced.
        resume: whether the pass is kept beside the folder until the end, so that a run that is stopped goes on.
    """

    folder: Path
    exist_ok: bool
    resume: bool

    @property
    def pass_folder(self) -> Path:
        """Where predictions are kept during the run."""
        return self.folder.absolute().with_name(f".{self.folder.absolute().name}.pass")

    @contextlib.contextmanager
    def pass_kept(self, *, on_disk: bool, rank: int = 0) -> Iterator[Path | None]:
        """The folder for the pass, if it is to be on the disk. It goes when the run ends, unless that is resumed."""
        if not self.resume:
            self._forget_pass(rank)
        try:
            yield self.pass_folder if on_disk or self.resume else None
        except BaseException:
            if not self.resume:
                self._forget_pass(rank)
            raise
        self._forget_pass(rank)

    def _forget_pass(self, rank: int) -> None:
        if rank == 0:
            shutil.rmtree(self.pass_folder, ignore_errors=True)

    def check(self) -> None:
        """See that it can be written, before anything is inferred. Raises as `export_folder` does."""
        with contextlib.suppress(_Checked), export_folder(self.folder, exist_ok=self.exist_ok):
            raise _Checked

    def writing(self) -> contextlib.AbstractContextManager[Path]:
        """A new folder to write to, which becomes `folder` at the end; see `export_folder`."""
        return export_folder(self.folder, exist_ok=self.exist_ok)


class _Checked(Exception):  # noqa: N818, no error
    """A folder can be written."""


def selection_record(work: Work, chosen: SelectedFrames) -> dict[str, Any]:
    """What was chosen, as plain values: the content of `selection.json`."""
    pool = chosen.predictions
    frames = []
    for rank, frame_id in enumerate(chosen.frame_ids):
        score = float(chosen.scores[rank])
        frames.append(
            {
                "frame_id": frame_id,
                "path": path_of(chosen, rank),
                "rank": rank + 1,
                "score": None if math.isnan(score) else score,  # no stage scored frames
                "estimated_boxes": float(chosen.estimated_boxes[rank]),
                "boxes": _boxes(pool, rank, work.class_names or {}),
            }
        )
    return {
        "format": SELECTION_FORMAT,
        "frames": frames,
        "num_of_frames": len(frames),
        "num_of_boxes": chosen.num_of_boxes,
        "num_of_minutes": chosen.num_of_minutes,
        "out_of": len(chosen.dataset),  # type: ignore[arg-type]
        "labeled": len(work.labels.labeled_ids),
        "skipped": [frame.to_json() for frame in pool.skipped],
        "stages": [dict(describe_stage(stage)) for stage in chosen.stages],
        "versions": versions(),
    }


def write_outputs(
    folder: Path, work: Work, chosen: SelectedFrames, record: dict[str, Any], *, progress: bool
) -> list[str]:
    """Write `selection.json`, `ids.txt`, `labels.json`, `config.yaml` and the exports.

    Args:
        folder: to write to.
        work: where the frames come from.
        chosen: the frames.
        record: see `selection_record`.
        progress: whether to show bars.

    Returns:
        Their names.
    """
    output = work.config.output
    write_json(folder / SELECTION_FILE, record)
    # an id may hold a line break, which a list of lines cannot: `selection.json` has it as it is
    (folder / "ids.txt").write_text("".join(f"{' '.join(each.split(chr(10)))}\n" for each in chosen.frame_ids))
    (folder / "config.yaml").write_text(config_text(work.config, versions()), encoding="utf-8")
    waiting = Round(
        chosen.frame_ids,
        as_scores(chosen.scores.tolist(), chosen.frame_ids),
        tuple(describe_stage(stage) for stage in chosen.stages),
    )
    LabelsFile.of(folder / "labels.json", work.labels, waiting).write()
    written = [SELECTION_FILE, "ids.txt", "labels.json", "config.yaml"]
    labels = set() if chosen.predictions.labels is None else set(chosen.predictions.labels.tolist())
    names = {label: str(label) for label in labels} | (work.class_names or {}) if work.class_names else None
    for name in output.export:
        options: dict[str, Any] = {} if output.images is None else {"images": output.images}
        if name == "label_studio":  # its README.txt names places
            options["moves_to"] = Path(output.folder or folder).absolute() / name
        SAVERS[name](
            chosen,
            folder / name,
            class_names=names,
            min_score=output.min_score,
            round=output.round,
            progress=progress,
            **options,
        )
        written.append(f"{name}/")
    return written


def versions() -> dict[str, str]:
    """What a run was made with."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _boxes(pool: Pool, rank: int, names: dict[int, str]) -> list[dict[str, Any]]:
    rows = slice(int(pool.offsets[rank]), int(pool.offsets[rank + 1]))
    columns: dict[str, list[Any]] = {}
    if pool.boxes is not None:
        columns["box"] = pool.boxes[rows].tolist()
    if pool.labels is not None:
        columns["label"] = pool.labels[rows].tolist()
        columns["class_name"] = [names.get(label, str(label)) for label in columns["label"]]
    if pool.scores is not None:
        columns["score"] = torch.round(pool.scores[rows].double(), decimals=6).tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
