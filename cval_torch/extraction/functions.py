"""What a function is called, what it wraps, and what it holds beside its code."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any

import numpy as np
import torch

from cval_torch.errors import dotted_name


def function_in(value: Any) -> FunctionType | None:
    """The Python function within a decorated one, a method or a property; None if there is none.

    >>> def plain(): ...
    >>> function_in(functools.lru_cache(plain)) is plain
    True
    """
    if isinstance(value, (property, functools.cached_property)):
        return function_in(value.fget if isinstance(value, property) else value.func)
    if isinstance(value, (staticmethod, classmethod)):
        return function_in(value.__func__)
    if not callable(value) or isinstance(value, (type, functools.partial)):
        return None
    try:
        inner = inspect.unwrap(value)
    except ValueError:  # wrapped in itself
        inner = value
    inner = getattr(inner, "__func__", inner)
    return inner if isinstance(inner, FunctionType) else None


def function_name(value: Any) -> str:
    """What a function is called where it is defined; empty for what is no function.

    >>> function_name(torch.nn.functional.relu), function_name(len), function_name(3)
    ('torch.nn.functional.relu', 'builtins.len', '')
    """
    if isinstance(value, functools.partial):
        return "functools.partial"
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    if type(value).__module__ == "torch._ops":
        return str(value)
    if isinstance(value, torch.jit.ScriptFunction):
        return f"torch.jit {value.name}"
    if not callable(value) or isinstance(value, type):
        return ""
    inner = function_in(value)
    if inner is None and not hasattr(value, "__qualname__"):
        return ""
    return dotted_name(value if inner is None else inner).removeprefix("None.")


def held_by(value: Any) -> list[tuple[str, Any]]:
    """What a function holds beside its code, by name: variables it closes over, default values, a partial's arguments.

    >>> held_by(functools.partial(round, ndigits=2))
    [('ndigits', 2)]
    """
    if isinstance(value, functools.partial):
        return [(f"argument {place}", item) for place, item in enumerate(value.args)] + sorted(value.keywords.items())
    function = function_in(value)
    if function is None:
        return []
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not filled yet
            continue
    defaults = function.__defaults__ or ()
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    found += list(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    found += (function.__kwdefaults__ or {}).items()
    return [(name, item) for name, item in found if name != "__class__"]
