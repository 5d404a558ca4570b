"""`cval-torch labels` (`run_labels`): a record is shown, confirmed and discarded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cval_torch import LabelPool
from cval_torch.cli import main
from cval_torch.config.labels_file import LabelsFile
from cval_torch.training import Round


@pytest.fixture
def path(tmp_path: Path) -> Path:
    labels = LabelPool([1, 2, 3, 4], labeled=["b"], frame_ids=["a", "b", "c", "d"])  # type: ignore[arg-type]
    LabelsFile.of(tmp_path / "labels.json", labels, Round(("c", "a", "d"))).write()
    return tmp_path / "labels.json"


def test_status(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = path.read_bytes()
    assert main(["labels", "status", str(path)]) == 0
    said = capsys.readouterr().out
    assert said == "4 images: 1 labelled, 3 waiting for annotators\nround 0: 1 images, chosen by hand\n"
    assert main(["labels", "status", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pending"] == ["c", "a", "d"]
    assert path.read_bytes() == before


def test_confirm_some_and_discard_the_rest(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "done.txt").write_text("d\nc\n")
    assert main(["labels", "confirm", str(path), "--ids", str(tmp_path / "done.txt")]) == 0
    assert "3 labelled, 1 waiting" in capsys.readouterr().out
    assert main(["labels", "discard", str(path)]) == 0
    assert "3 labelled, 0 waiting" in capsys.readouterr().out
    assert main(["labels", "confirm", str(path)]) == 2
    assert "no frames wait" in capsys.readouterr().err
    assert LabelsFile.read(path).rounds[-1].frame_ids == ("c", "d")
