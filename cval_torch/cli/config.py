"""`cval-torch config`: show, check and begin configurations."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cval_torch.cli.flags import add_config_flags
from cval_torch.config.loading import load_config
from cval_torch.config.named import named_configs
from cval_torch.config.schema import Config
from cval_torch.config.writing import config_text
from cval_torch.errors import InvalidInputError


def add_config(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "config",
        help="show, check or begin a configuration",
        description="show: the whole configuration, with what is said over it. check: whether it can be used. init: "
        "the text of one that comes with cval_torch. list: their names. schema: the JSON schema, for editors.",
        epilog="example: cval-torch config init rare_classes --output mine.yaml",
    )
    parser.add_argument("what", choices=["show", "check", "init", "list", "schema"])
    add_config_flags(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="write there, and not to stdout")
    parser.set_defaults(run=run_config)


def run_config(options: argparse.Namespace) -> int:
    """Print, or write, what was asked for."""
    if options.what == "schema":
        return _write(json.dumps(json_schema(), indent=1) + "\n", options.output)
    if options.what == "list":
        return _write("".join(f"{name}\n" for name in named_configs()), options.output)
    words = list(options.overrides)
    name = options.config or (words.pop(0) if words and "=" not in words[0] else None)
    if options.what == "init":
        named = named_configs()
        chosen = name or "quickstart"
        if chosen not in named:
            raise InvalidInputError(f"there is no configuration {chosen!r}; there is {', '.join(named)}")
        return _write(named[chosen].read_text(encoding="utf-8"), options.output)
    config = load_config(name, words)
    if options.what == "check":
        print(f"{name or 'the command line'}: can be used")
        return 0

    from cval_torch.config.outputs import versions

    return _write(config_text(config, versions()), options.output)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration, by which editors complete it."""
    schema = Config.model_json_schema()
    path_or = {"source": "SourceConfig", "model": "ModelConfig", "labeled": "LabeledConfig", "service": "ServiceConfig"}
    for name in path_or:  # a path will do
        schema["properties"][name]["anyOf"].insert(0, {"type": "string"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _write(text: str, path: Path | None) -> int:
    if path is None:
        print(text, end="")
        return 0
    if path.exists():
        raise InvalidInputError(f"{str(path)!r} is there already; give another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return 0
