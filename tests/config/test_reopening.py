"""A selection that the command line wrote, opened again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cval_torch.cli.select import run_selection
from cval_torch.config import choose, load_config, open_work
from cval_torch.config.reopening import reopen
from cval_torch.errors import InvalidInputError
from tests.worlds.first_user import BUILDER, make_place


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a selection, and the values of its configuration."""
    place = make_place(tmp_path_factory.mktemp("user"))
    values: dict[str, Any] = {
        "source": str(place / "photos" / "cats"),
        "model.builder": BUILDER,
        "model.checkpoint": str(place / "detector.pt"),
        "model.num_classes": 3,
        "class_names": {1: "cat", 2: "cup"},
        "workers": 0,
        "stages.0.num_of_samples": 3,
        "stages.0.selection_strategy": "entropy",
        "output.folder": str(place / "chosen"),
        "output.report": False,
    }
    assert run_selection(load_config(None, values=values), progress=False) == 0
    return place / "chosen", values


def test_it_is_the_same_selection(given: tuple[Path, dict[str, Any]]) -> None:
    folder, values = given
    frames, config, names = reopen(folder)
    expected, _, _ = choose(open_work(load_config(None, values=values)), progress=False)
    assert frames.frame_ids == expected.frame_ids
    torch.testing.assert_close(frames.scores, expected.scores)
    assert frames.stages == expected.stages
    assert frames.predictions.counts.tolist() == expected.predictions.counts.tolist()
    assert frames.predictions.boxes is not None
    torch.testing.assert_close(frames.predictions.boxes, expected.predictions.boxes)
    assert torch.equal(frames[0][0], expected[0][0])
    assert config.stages == load_config(None, values=values).stages
    assert set(names.items()) <= {(1, "cat"), (2, "cup")}


def test_images_may_have_moved(given: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, values = given
    Path(values["source"]).rename(tmp_path / "moved")
    try:
        with pytest.raises(InvalidInputError, match="no folder or file"):
            reopen(folder)
        assert len(reopen(folder, source=str(tmp_path / "moved"))[0]) == 3
    finally:
        (tmp_path / "moved").rename(values["source"])


def test_what_is_no_selection(given: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"there is no selection\.json"):
        reopen(tmp_path)
    (tmp_path / "selection.json").write_text('{"format": "other"}')
    with pytest.raises(InvalidInputError, match="is no selection of"):
        reopen(tmp_path)
    record = json.loads((given[0] / "selection.json").read_text())
    del record["frames"][0]["boxes"]
    (tmp_path / "selection.json").write_text(json.dumps(record))
    (tmp_path / "config.yaml").write_bytes((given[0] / "config.yaml").read_bytes())
    with pytest.raises(InvalidInputError, match=r"selection.json' is damaged: KeyError"):
        reopen(tmp_path)
