"""`cval-torch import` (`run_import`): what people annotated, into a labels.json and one file of annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cval_torch.config.labels_file import LabelsFile
from cval_torch.formats import load_coco

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # the command line says them


def answers(path: Path, boxes: dict[str, int]) -> None:
    """A COCO file of images, each with so many boxes; none is annotated and empty."""
    names = list(boxes)
    document = {
        "images": [{"id": n, "file_name": name, "annotated": True} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": n, "category_id": 1, "bbox": [10 + k, 10, 50, 50]}
            for n, name in enumerate(names)
            for k in range(boxes[name])
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.write_text(json.dumps(document))


def test_rounds_add_up(run: Callable[..., Any], tmp_path: Path) -> None:
    labels, output = tmp_path / "new" / "labels.json", tmp_path / "annotated"
    words = ("--source", "photos", "--labels", str(labels), "--output", str(output))
    answers(tmp_path / "1.json", {"coffee 1.jpg": 2, "coffee 2.jpg": 0})
    answers(tmp_path / "2.json", {"coffee 2.jpg": 1, "cats/chelsea 0.jpg": 1, "gone.jpg": 1})
    status, out, err = run("import", str(tmp_path / "1.json"), *words)
    assert status == 0, err
    assert out.startswith("2 images newly labelled, 0 labelled before, 2 boxes")
    status, out, err = run("import", str(tmp_path / "2.json"), *words, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert (told["labeled"], told["labeled_before"], told["unmatched"]) == (1, 1, ["gone.jpg"])
    found = load_coco(output)
    counts = dict(zip(found.frame_ids, found.counts.tolist(), strict=True))
    assert counts == {"coffee 1.jpg": 2, "coffee 2.jpg": 1, "cats/chelsea 0.jpg": 1}
    assert [len(each.frame_ids) for each in LabelsFile.read(labels).rounds] == [2, 1]


def test_what_cannot_be_understood_changes_nothing(run: Callable[..., Any], tmp_path: Path) -> None:
    labels, output = tmp_path / "labels.json", tmp_path / "annotated"
    words = ("--source", "photos", "--labels", str(labels), "--output", str(output))
    answers(tmp_path / "1.json", {"elsewhere.jpg": 2})
    (tmp_path / "2.json").write_text("[1")
    wrong = {"1.json": "none of the 1 frames", "2.json": "is not JSON", "3.json": "no file or folder"}
    for name, message in wrong.items():
        status, _, err = run("import", str(tmp_path / name), *words)
        assert status == 2
        assert message in err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1.json", "2.json"]
