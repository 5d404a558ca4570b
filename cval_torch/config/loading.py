"""A configuration file, and what is said over it, as a `Config`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cval_torch.config.named import named_configs
from cval_torch.config.schema import VERSION, Config
from cval_torch.config.yaml_text import parse_yaml
from cval_torch.errors import InvalidInputError

_SECTIONS = ("source", "model", "labeled", "service")
"""The sections that a path stands for."""


def load_config(
    path: str | os.PathLike[str] | None, overrides: Sequence[str] = (), *, values: Mapping[str, Any] | None = None
) -> Config:
    """Read a configuration file.

    Args:
        path: the file, or the name of one that comes with the package, such as "rare_classes". None: no file, only what
            is said beside.
        overrides: `key=value` each, such as `stages.0.num_of_samples=200`; the value is YAML. They count over the file.
        values: the same by dotted key, with plain values; they count over `overrides`.

    Raises:
        InvalidInputError: an unknown key, a value of another kind, a version that is not known, or no YAML. The message
            names the file and the key, and the nearest one that is known.
        OSError: the file cannot be read.

    >>> load_config(None, ["source=photos", "model=retinanet_resnet50_fpn", "batch=4"]).model.builder
    'retinanet_resnet50_fpn'
    """
    source = "the command line" if path is None else os.fspath(path)
    document: Any = {} if path is None else _read(path)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            raise InvalidInputError(f"an override must be `key=value`, such as `batch=4`; got {override!r}")
        _set(document, key, parse_yaml(text, f"the value of {key!r}"), override)
    for key, value in (values or {}).items():
        _set(document, key, value, f"{key}={value}")
    return as_config(document, source)


def as_config(document: Any, source: str) -> Config:
    """A `Config` of plain values.

    Args:
        document: what a file says.
        source: what to call it in messages.

    Raises:
        InvalidInputError: as `load_config` does.
    """
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"{source} must have keys and values, such as `source: images/`")
    version = document.get("version", VERSION)
    if version != VERSION:
        raise InvalidInputError(
            f"{source} has the version {version!r}, and this is cval_torch with version {VERSION} of configurations. "
            "Compare it with `cval-torch config init`, or install the cval_torch that it was written for"
        )
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise InvalidInputError(_problem(error, source, ())) from error
    for number, stage in enumerate(config.stages):
        try:
            stage.stage(seed=config.seed)
        except ValidationError as error:
            raise InvalidInputError(_problem(error, source, ("stages", number))) from error
    return config


def _read(path: str | os.PathLike[str]) -> Any:
    file = Path(path)
    name = os.fspath(path)
    if not file.is_file():
        named = named_configs() if file.suffix == "" and file.name == name else {}
        if name not in named:
            raise InvalidInputError(f"there is no configuration {name!r}{_hint(name, named_configs())}")
        file = named[name]
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error
    document = parse_yaml(text, name)
    return {} if document is None else document


def _set(document: Any, key: str, value: Any, override: str) -> None:
    """Set what `key`, with dots, leads to."""
    *way, last = key.split(".")
    place = document
    for part in way:
        if isinstance(place, list):
            place = place[_position(part, place, override)]
        elif isinstance(place, dict):
            below = place.get(part)
            if isinstance(below, str) and part in _SECTIONS:
                below = dict(as_config({part: below}, override).model_dump(exclude_unset=True)[part])
            if not isinstance(below, (dict, list)):
                below = [] if part == "stages" else {}
            place[part] = below
            place = below
        else:
            raise InvalidInputError(f"{override!r} leads into {place!r}, which has no keys")
    if isinstance(place, list):
        position = _position(last, place, override)
        place[position] = value
    elif isinstance(place, dict):
        if isinstance(value, str) and isinstance(place.get(last), dict) and last in _SECTIONS and not way:
            # another path or name, and the rest as it was
            spelled = as_config({last: value}, override).model_dump(exclude_unset=True)[last]
            gone = {"path", "builder", "factory"}
            value = {**{name: each for name, each in place[last].items() if name not in gone}, **spelled}
        by_label = bool(way) and way[-1] in ("class_quotas", "class_weights", "class_names")
        place[int(last) if by_label and last.isdecimal() else last] = value
    else:
        raise InvalidInputError(f"{override!r} leads into {place!r}, which has no keys")


def _position(part: str, place: list[Any], override: str) -> int:
    if part.isdecimal() and int(part) <= len(place):
        if int(part) == len(place):
            place.append({})
        return int(part)
    raise InvalidInputError(f"{override!r} names number {part!r} of a list of {len(place)}; counting begins at 0")


def _problem(error: ValidationError, source: str, above: tuple[int | str, ...]) -> str:
    """What is wrong first, in a part that the path `above` leads to: an unknown key before anything else."""
    errors = error.errors(include_url=False, include_context=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    path = [*above, *(part for part in first["loc"] if not _is_branch(part))]
    where = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        known = _fields(path[:-1])
        return f"{source}: {where!r} is not known{_hint(str(path[-1]), known)}"
    message = first["msg"].removeprefix("Value error, ")
    got = first["input"]
    shown = (
        f"; got {got!r}"[:120] if isinstance(got, (str, int, float, list)) and first["type"] != "value_error" else ""
    )
    return f"{source}: {where}: {message}{shown}" if where else f"{source}: {message}{shown}"


def _is_branch(part: int | str) -> bool:
    """Whether pydantic put it there to tell the members of a union apart."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "literal"))


def _fields(path: Sequence[int | str]) -> list[str]:
    """The keys that there are below a path."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, int):
            continue
        found = list(_models(model.model_fields[part].annotation)) if part in model.model_fields else []
        if not found:
            return []
        model = found[0]
    return list(model.model_fields)


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation  # of `list[X]`, Python 3.10 says that it is a type
    for part in get_args(annotation):
        yield from _models(part)


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f". Did you mean {close[0]!r}?"
    return f"; there is {', '.join(names)}" if names else ""
