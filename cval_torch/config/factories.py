"""Functions of the user's, named in a configuration."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from cval_torch.errors import InvalidInputError


def call_factory(name: str, args: Mapping[str, Any], *, key: str) -> Any:
    """Import `package.module:function`, and call it. The current folder is looked through first, as by `python -m`.

    Args:
        name: of the function.
        args: keyword arguments.
        key: of the configuration, for messages.

    Raises:
        InvalidInputError: it is no such name; there is no such module or function; it cannot be called with these
            arguments. What it raises itself comes through.
    """
    module_name, sign, path = name.partition(":")
    if not sign or not module_name or not path:
        raise InvalidInputError(f"`{key}` must be `package.module:function`; got {name!r}")
    if os.getcwd() not in sys.path and "" not in sys.path:  # noqa: PTH109, what `python -m` puts there
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # a module that the user's own imports
        raise InvalidInputError(
            f"`{key}`: there is no module {error.name!r} in this environment or in the current folder"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InvalidInputError(f"`{key}`: {module_name!r} has no {part!r}")
        found = getattr(found, part)
    if not callable(found):
        raise InvalidInputError(f"`{key}`: {name!r} is a {type(found).__name__}, which cannot be called")
    return found(**args)
