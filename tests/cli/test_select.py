"""`run_select`: from a folder of photographs to tasks for annotators and back, as a new user goes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cval_torch.cli import main
from cval_torch.config import load_config, outputs
from cval_torch.formats import load_coco, load_label_studio
from tests.worlds.first_user import DETECTOR

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # the command line says them


def test_from_a_folder_to_tasks_and_back(run: Callable[..., Any], place: Path, tmp_path: Path) -> None:
    output = tmp_path / "round1"
    status, out, err = run(
        *("select", "--source", "photos", *DETECTOR, "-n", "6", "--class-names", "background", "cat", "cup"),
        *("--export", "label-studio", "coco", "--images", "copy", "--min-score", "0", "--round", "1"),
        *("--output", str(output)),
    )
    assert status == 0, err
    assert out.splitlines()[0].startswith("6 of 25 images, about ")
    assert "broken.jpg" in err, "what cannot be read is told"
    assert sorted(each.name for each in output.iterdir()) == [
        *("coco", "config.yaml", "ids.txt", "label_studio", "labels.json", "report.html", "selection.json")
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["round1"], "nothing is left beside it"
    record = json.loads((output / "selection.json").read_text())
    ids = [frame["frame_id"] for frame in record["frames"]]
    assert (output / "ids.txt").read_text().splitlines() == ids
    assert len(ids) == 6
    assert all(Path(place, frame["path"]).is_file() for frame in record["frames"])
    assert {box["class_name"] for frame in record["frames"] for box in frame["boxes"]} <= {"cat", "cup"}
    tasks = load_label_studio(output / "label_studio")
    assert list(tasks.frame_ids) == ids
    assert tasks.rounds.tolist() == [1] * 6
    for path in output.rglob("*"):
        if path.suffix in (".json", ".txt", ".xml", ".yaml", ".html"):
            assert ".tmp" not in path.read_text(), f"{path} names a place that is gone"
    assert str(output / "label_studio" / "label_config.xml") in (output / "label_studio" / "README.txt").read_text()
    assert load_config(output / "config.yaml").model == load_config(output / "config.yaml").model

    status, out, err = run("labels", "status", str(output / "labels.json"))
    assert out.startswith("25 images: 0 labelled, 6 waiting for annotators")
    status, out, err = run(
        *("select", "--source", "photos", *DETECTOR, "-n", "6", "--labeled", str(output / "labels.json")),
        *("--output", str(tmp_path / "round2")),
    )
    assert status == 2
    assert "6 frames in" in err
    assert "cval-torch labels confirm" in err

    answers = json.loads((output / "coco" / "instances.json").read_text())
    for image in answers["images"][:4]:
        image["annotated"] = True
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    annotated = tmp_path / "annotated"
    back = ("--source", "photos", "--labels", str(output / "labels.json"), "--output", str(annotated))
    status, out, err = run("import", str(tmp_path / "answers.json"), *back)
    assert status == 0, err
    assert out.startswith("4 images newly labelled, 0 labelled before")
    assert "2 still wait" in out
    assert list(load_coco(annotated).frame_ids) == ids[:4]
    status, out, err = run("labels", "discard", str(output / "labels.json"))
    assert out.startswith("25 images: 4 labelled, 0 waiting")

    status, out, err = run(
        *("select", "--source", "photos", *DETECTOR, "-n", "6", "--labeled", str(annotated), "--json"),
        *("--output", str(tmp_path / "round2")),
    )
    assert status == 0, err
    again = json.loads(out)
    assert not {frame["frame_id"] for frame in again["frames"]} & set(ids[:4])
    assert (again["labeled"], again["out_of"]) == (4, 21)
    page = (tmp_path / "round2" / "report.html").read_text()
    assert "<dt>annotated before</dt><dd>4</dd>" in page
    assert 'class="dots annotated"' in page, "what the detector says of them is known"


def test_what_it_will_take(run: Callable[..., Any]) -> None:
    status, out, err = run("select", "--source", "photos/cats", *DETECTOR, "-n", "2", "--dry-run", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["images"] == 8
    assert found["seconds"] > 0
    assert found["kept_bytes"] > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "fotos"], "no folder or file 'fotos'; '.' has 'detector.pt', 'photos'"),
        (["--strategy", "entrop"], "entrop"),
        (["--checkpoint", "gone.pt"], "there is no file 'gone.pt'"),
        (["--num-classes", "7"], "are not of a ssdlite320_mobilenet_v3_large with 7 classes"),
        (["--config", "gone.yaml"], "there is no configuration 'gone.yaml'"),
        (["stages.0.num_of_sample=3"], "Did you mean 'num_of_samples'?"),
        (["-n", "0"], "stages.0.num_of_samples"),
    ],
)
def test_the_mistakes_of_a_first_user(run: Callable[..., Any], tmp_path: Path, words: list[str], message: str) -> None:
    given = ["--source", "photos", *DETECTOR, "-n", "6", "--output", str(tmp_path / "out")]
    status, out, err = run("select", *given, *words)
    assert status == 2
    assert message in err
    assert (out, err.count("\n")) == ("", 1), "one line"
    assert list(tmp_path.iterdir()) == []


def test_missing_extras_are_told_before_anything_is_inferred(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("jinja2", "yaml") else find(name))
    words = ("select", "--source", "photos/gone", *DETECTOR, "-n", "2", "--output", str(tmp_path / "out"))
    status, _, err = run(*words)
    assert status == 2
    assert "--no-report leaves it out" in err
    assert 'pip install "cval_torch[report]"' in err
    status, _, err = run(*words, "--no-report", "--export", "yolo")
    assert status == 2
    assert 'pip install "cval_torch[formats]"' in err


def test_a_folder_of_somebody_else_is_not_replaced(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    given = [
        "select",
        "--source",
        "photos/cats",
        *DETECTOR,
        "-n",
        "2",
        "--no-report",
        "--output",
        str(tmp_path / "out"),
    ]
    for words in ([], ["--exist-ok"]):
        status, _, err = run(*given, *words)
        assert status == 2
        assert "out' " in err
    (tmp_path / "out" / "mine.txt").unlink()
    assert run(*given)[0] == 0
    assert run(*given)[0] == 2
    assert run(*given, "--exist-ok")[0] == 0


def test_a_run_that_was_killed_goes_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["select", "--source", "photos/cats", *DETECTOR, "-n", "2", "--output", str(tmp_path / "out"), "--resume"]

    def die(*given: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            outputs.selection_record = die
            main(words)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [each.name for each in tmp_path.iterdir()] == [".out.pass"]
    assert main(words) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
