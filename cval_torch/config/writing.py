"""A configuration as the text of a file that gives it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cval_torch.config.schema import Config

SCHEMA_LINE = "# yaml-language-server: $schema=schema.json"


def config_text(config: Config, versions: Mapping[str, str]) -> str:
    """The whole configuration as YAML, the versions in a comment. Values are written as JSON, which YAML contains."""
    lines = ["# As it was run, with " + ", ".join(f"{name} {version}" for name, version in versions.items())]
    for name, value in config.model_dump(exclude_none=True, mode="json").items():
        lines += _lines(name, value, 0)
    return "\n".join(lines) + "\n"


def _lines(name: str, value: Any, depth: int) -> list[str]:
    margin = "  " * depth
    if isinstance(value, dict) and value:
        return [
            f"{margin}{_key(name)}:",
            *(line for key, below in value.items() for line in _lines(key, below, depth + 1)),
        ]
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        found = [f"{margin}{_key(name)}:"]
        for each in value:
            inner = [line for key, below in each.items() for line in _lines(key, below, 0)]
            found += [f"{margin}  {'- ' if number == 0 else '  '}{line}" for number, line in enumerate(inner)]
        return found
    return [f"{margin}{_key(name)}: {json.dumps(value, ensure_ascii=False)}"]


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() else json.dumps(name, ensure_ascii=False)
