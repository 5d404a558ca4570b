"""Names of a package that are imported when they are asked for. Imports no torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose names are imported at their first use (PEP 562).

    `import cval_torch` then takes milliseconds, and `cval-torch --help` needs no torch. A package calls this beside the
    same imports under `TYPE_CHECKING`, which type checkers and editors read.

    Args:
        package: its `__name__`.
        names: the public names by the module that they are imported from.
        modules: its modules that can be reached as attributes without an import of their own.

    Returns:
        The two functions, to be assigned to these names in the package.

    >>> get, _ = lazy_names("cval_torch", {"cval_torch.selection.stage": ["DetectionSampling"]})
    >>> get("DetectionSampling").__name__
    'DetectionSampling'
    """
    place_of = {name: module for module, listed in names.items() for name in listed}
    reachable = frozenset(modules)

    def get(name: str) -> Any:
        if name in place_of:
            value = getattr(importlib.import_module(place_of[name]), name)
        elif name in reachable:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        setattr(sys.modules[package], name, value)  # Python asks no second time
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *place_of, *reachable})

    return get, list_names
