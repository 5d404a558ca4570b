"""YAML as people mean it: no key twice, no `no` that is false, no number that is a text."""

from __future__ import annotations

import re
from typing import Any

from cval_torch.errors import InvalidInputError, MissingExtraError

_LONE = re.compile(r"^(?:y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF)$")
_FLOAT = re.compile(r"^[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$")
_INTEGER = re.compile(r"^[-+]?(?:0|[1-9]\d*)$")
_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_LARGEST = 1 << 20  # bytes; a configuration is some hundred


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML document, by the rules of YAML 1.2 for plain scalars.

    `yes`, `no`, `on` and `off` are refused, since YAML 1.1 takes them for true and false: they are to be put in quotes,
    or written as `true` and `false`. Numbers such as `1e-3` are numbers, `010` and `1:30` are texts, and so are dates.

    Args:
        text: the document.
        source: what to call it in messages.

    Raises:
        InvalidInputError: it is not YAML; a key comes twice; a word of those above. The message names the line.
        MissingExtraError: PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415, an extra
    except ImportError as error:
        raise MissingExtraError("cli", needed_for="a YAML configuration") from error
    if len(text) > _LARGEST:
        raise InvalidInputError(f"{source} has {len(text)} characters; a configuration has at most {_LARGEST}")
    try:
        return _loader(yaml, source)(text).get_single_data()
    except InvalidInputError:
        raise
    except yaml.YAMLError as error:
        problem = " ".join(str(error).replace('"<unicode string>"', source).split())
        raise InvalidInputError(f"{source} is not YAML: {problem}") from error
    except (RecursionError, ValueError) as error:
        raise InvalidInputError(f"{source} is not YAML that can be read: {error}") from error


def _loader(yaml: Any, source: str) -> Any:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012, PyYAML's own name

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise InvalidInputError(
                    f"line {self.peek_event().start_mark.line + 1} of {source} has an alias, which is not taken: write "
                    "the value again"
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: dict[Any, int] = {}
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                line = key_node.start_mark.line + 1
                if not isinstance(key, (str, int)) or isinstance(key, bool):
                    raise InvalidInputError(f"line {line} of {source} has the key {key!r}; keys are names or integers")
                if seen.setdefault(key, line) != line:
                    raise InvalidInputError(
                        f"line {line} of {source} has the key {key!r} again, after line {seen[key]}"
                    )
            found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return found

        def construct_scalar(self, node: Any) -> Any:
            if node.style is None and isinstance(node.value, str) and _LONE.match(node.value):
                line = node.start_mark.line + 1
                raise InvalidInputError(
                    f"line {line} of {source} has a bare {node.value!r}, which some read as true or false. Write true "
                    f"or false, or put it in quotes: '{node.value}'"
                )
            return super().construct_scalar(node)

    for tag, pattern in (("null", _NULL), ("bool", _BOOLEAN), ("int", _INTEGER), ("float", _FLOAT)):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, None)
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
    Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node)))
    Loader.add_constructor(
        "tag:yaml.org,2002:bool", lambda loader, node: loader.construct_scalar(node).lower() == "true"
    )
    return Loader
