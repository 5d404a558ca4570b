"""What a contact sheet asks of the frames that it draws, and who answers."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.pool import Pool
from cval_torch.report.frames import ChosenFrames
from cval_torch.report.gallery import contact_sheet
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling

ASKED = {name for name in vars(ChosenFrames) if name in ("__len__", "__getitem__") or not name.startswith("_")}


class Strict:
    """Two frames that have what is asked of them, and refuse everything else."""

    def __init__(self) -> None:
        self._pool = Pool(["a", "b"], torch.tensor([0, 1, 1]), boxes=torch.tensor([[2.0, 2, 9, 9]]),
                          labels=torch.tensor([1]), scores=torch.tensor([0.5]))  # fmt: skip
        self.read: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "read":
            return object.__getattribute__(self, name)
        self.read.add(name)
        values = {"frame_ids": self._pool.frame_ids, "scores": torch.tensor([0.5, 0.25]), "predictions": self._pool}
        return values[name]

    def __len__(self) -> int:
        self.read.add("__len__")
        return 2

    def __getitem__(self, index: int) -> Any:
        self.read.add("__getitem__")
        if index > 1:
            raise IndexError(index)
        return torch.rand(3, 16, 16)


def test_a_sheet_reads_what_the_protocol_names_and_nothing_else(tmp_path: Path) -> None:
    frames = Strict()
    contact_sheet(frames, tmp_path / "sheet.png")  # type: ignore[arg-type]
    assert frames.read == ASKED == {"frame_ids", "scores", "predictions", "__len__", "__getitem__"}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 100


def test_selected_frames_answer_all_of_it(tmp_path: Path) -> None:
    pool = Strict()._pool.replace(indices=torch.arange(2))
    stage = DetectionSampling(selection_strategy="least", num_of_samples=1)
    images: Tensor = torch.rand(2, 3, 16, 16)
    frames = SelectedFrames(TensorDataset(images), LocalBackend().select(pool, stage), pool)
    for name in ASKED:
        assert hasattr(frames, name), name
        assert inspect.getdoc(getattr(ChosenFrames, name)), name
    assert len(frames) == len(frames.frame_ids) == len(frames.predictions) == len(frames.scores) == 1
    contact_sheet(frames, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_protocol_is_read_only(name: str) -> None:
    value = vars(ChosenFrames)[name]
    assert isinstance(value, property) or name.startswith("__")
    if isinstance(value, property):
        assert value.fset is None
