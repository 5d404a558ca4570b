"""`cval-torch config` (`run_config`): configurations are shown, checked and begun."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pydantic
import pytest
import yaml

from cval_torch.cli import main
from cval_torch.cli.config import json_schema
from cval_torch.config import load_config, named_configs

CONFIGS = Path(__file__).parents[2] / "configs"
OLD_PYDANTIC = tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 11)


def test_the_schema_beside_the_files_is_the_one_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    printed = capsys.readouterr().out
    written = (CONFIGS / "schema.json").read_text()
    if OLD_PYDANTIC:  # it spells the same otherwise
        ours, theirs = json.loads(written), json.loads(printed)
        assert ours["properties"].keys() == theirs["properties"].keys()
        for name, section in ours["$defs"].items():
            assert section["properties"].keys() == theirs["$defs"][name]["properties"].keys()
    else:
        assert printed == written
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_file_fits_the_schema_and_begins_with_its_line(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n# ")
    document = json.loads(json.dumps(yaml.safe_load(text)))  # with keys of JSON
    jsonschema.validate(document, json_schema())
    assert f"--config {path.stem}" in text, "it says how it is run"


def test_the_schema_refuses_what_is_refused() -> None:
    for wrong in ({"sorce": "x"}, {"batch": 0}, {"output": {"export": ["voc"]}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json_schema())


def test_the_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "list"]) == 0
    assert capsys.readouterr().out.split() == list(named_configs())


def test_a_file_is_begun_and_checked_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "init", "box_budget", "--output", "mine.yaml"]) == 0
    assert Path("mine.yaml").read_text() == (CONFIGS / "box_budget.yaml").read_text()
    assert main(["config", "init", "box_budget", "--output", "mine.yaml"]) == 2, "nothing is overwritten"
    assert main(["config", "check", "mine.yaml"]) == 0
    capsys.readouterr()
    assert main(["config", "show", "mine.yaml", "batch=3"]) == 0
    Path("shown.yaml").write_text(capsys.readouterr().out)
    assert load_config("shown.yaml") == load_config("mine.yaml", ["batch=3"])
    Path("mine.yaml").write_text("batc: 3")
    assert main(["config", "check", "mine.yaml"]) == 2
    assert capsys.readouterr().err == "cval-torch: mine.yaml: 'batc' is not known. Did you mean 'batch'?\n"
    assert main(["config", "init", "nothing"]) == 2
