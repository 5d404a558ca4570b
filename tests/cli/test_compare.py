"""`cval-torch compare` (`run_compare`): what each strategy would have chosen, on images that are labelled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.first_user import DETECTOR

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # the command line says them


def test_a_table_of_strategies_beside_random_choice(run: Callable[..., Any], tmp_path: Path) -> None:
    images = [f"cats/chelsea {number}.jpg" for number in range(8)]
    boxes = [{"image_id": number, "category_id": 1, "bbox": [10, 10, 100, 90]} for number in range(len(images))]
    document = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(images)],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "cats.json").write_text(json.dumps(document))
    status, out, err = run(
        *("compare", "--source", "photos", "--labeled", str(tmp_path / "cats.json"), *DETECTOR, "-n", "3"),
        *("--strategies", "entropy", "k_center", "--draws", "5", "--start", "2"),
        *("--output", str(tmp_path / "table.txt")),
    )
    assert status == 0, err
    assert {"entropy", "k_center", "random"} <= set(out.replace(":", " ").split())
    assert (tmp_path / "table.txt").read_text() == out


def test_annotations_must_be_given(run: Callable[..., Any]) -> None:
    status, _, err = run("compare", "--source", "photos", *DETECTOR)
    assert status == 2
    assert "`source` and `labeled` must be given" in err
