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


def test_what_was_measured_is_noted_and_more_is_forecast(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "measured", str(path), "map_50=0.3", "loss=1.5"]) == 0
    said = capsys.readouterr().out
    assert "map_50 is 0.3: a second round tells what more labels gain" in said
    assert main(["labels", "confirm", str(path)]) == 0
    capsys.readouterr()
    assert main(["labels", "measured", str(path), "map_50=0.5"]) == 0
    said = capsys.readouterr().out
    curve = LabelsFile.read(path).learning_curve
    assert curve.points("map_50") == [(1, 0.3), (4, 0.5)]
    assert str(curve.forecast("map_50", 3)) in said, "as many more as in the last round"
    assert main(["labels", "status", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["learning_curve"] == curve.state()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["measured"], "needs one metric or more, such as map_50=0.41"),
        (["measured", "0.41"], "a metric must be NAME=VALUE, such as map_50=0.41; got '0.41'"),
        (["measured", "map=high"], "must be NAME=VALUE, such as map_50=0.41; got 'map=high'"),
        (["measured", "map=nan"], "must have a name and a finite value; got 'map=nan'"),
        (["status", "map=1"], "'map=1' means nothing to `labels status`"),
        (["confirm", "map=1"], "'map=1' means nothing to `labels confirm`"),
        (["discard", "map=1"], "'map=1' means nothing to `labels discard`"),
    ],
)
def test_metrics_that_are_none(
    path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = path.read_bytes()
    assert main(["labels", arguments[0], str(path), *arguments[1:]]) == 2
    assert message in capsys.readouterr().err
    assert path.read_bytes() == before


def test_nothing_is_measured_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = LabelPool([1, 2], frame_ids=["a", "b"])  # type: ignore[arg-type]
    LabelsFile.of(tmp_path / "labels.json", labels, Round(("a",))).write()
    assert main(["labels", "measured", str(tmp_path / "labels.json"), "map=1"]) == 2
    assert "no images are labelled in" in capsys.readouterr().err
