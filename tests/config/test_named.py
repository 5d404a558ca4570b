"""The configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch.config import named
from cval_torch.config.named import configs_folder, named_configs
from cval_torch.errors import InvalidInputError


def test_they_are_those_of_the_folder_on_top() -> None:
    folder = Path(__file__).parents[2] / "configs"
    assert configs_folder() == folder
    assert named_configs() == {path.stem: path for path in folder.glob("*.yaml")}
    assert {
        *("quickstart", "torchvision_folder", "ultralytics_folder", "transformers_folder", "video_frames"),
        *("rare_classes", "box_budget", "ppal", "rest_service", "distributed", "compare"),
    } <= set(named_configs())


def test_in_a_wheel_they_are_within_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "_PACKAGE", tmp_path / "cval_torch")
    with pytest.raises(InvalidInputError, match="install cval_torch again"):
        configs_folder()
    (tmp_path / "cval_torch" / "configs").mkdir(parents=True)
    (tmp_path / "cval_torch" / "configs" / "schema.json").write_text("{}")
    assert configs_folder() == tmp_path / "cval_torch" / "configs"
