"""A configuration as text that gives it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch.config import load_config, named_configs
from cval_torch.config.writing import config_text


@pytest.mark.parametrize("name", named_configs())
def test_what_is_written_is_the_same_configuration(name: str, tmp_path: Path) -> None:
    config = load_config(name, ["seed=7"])
    path = tmp_path / "config.yaml"
    path.write_text(config_text(config, {"torch": "2"}))
    assert path.read_text().startswith("# As it was run, with torch 2\n")
    assert load_config(path) == config


def test_names_of_any_kind_survive(tmp_path: Path) -> None:
    names = {1: "no", 2: "a: b", 3: 'quo"te', 4: "日本 # x", 5: "- 1", 6: "line\nbreak"}
    config = load_config(
        None, ["source=a b"], values={"class_names": names, "source.args": {"x: y": [1, {"no": None}]}}
    )
    path = tmp_path / "config.yaml"
    path.write_text(config_text(config, {}), encoding="utf-8")
    assert load_config(path) == config
