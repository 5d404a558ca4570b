"""`UserCode`: which functions of the user's own code a model runs, and a digest of each.

The code of installed packages is not looked at: their versions tell. Compiled code is compared, so comments and line
breaks do not count; another version of Python compiles to other code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from cval_torch.errors import dotted_name
from cval_torch.extraction.functions import function_in, held_by
from cval_torch.extraction.plain_text import digest_of, plain_text, shortened

RUN_FROM_OUTSIDE = ("forward", "__call__")
"""Methods that other code calls, so that no code of the user's need name them."""

MADE_AND_RUN = (*RUN_FROM_OUTSIDE, "__init__", "__post_init__", "__new__")
"""The same for a class whose instances are made in a function that runs."""


def compiler() -> str:
    """What compiled the code: digests of one compare with digests of the same only.

    >>> compiler() == compiler()
    True
    """
    optimized = f" -{'O' * sys.flags.optimize}" if sys.flags.optimize else ""
    return f"{sys.implementation.cache_tag}{optimized}"


def is_users(value: Any) -> bool:
    """Whether a class, function or module is the user's own: neither of an installed package nor of Python.

    >>> is_users(torch.nn.Linear), is_users(len)
    (False, False)
    """
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    if not isinstance(name, str) or name == "builtins":
        return False
    return _is_users_module(name.partition(".")[0], name)


class UserCode:
    """Collects functions and classes; follows what their code names.

    A function is followed to the functions and plain constants of the user's modules that it names. Of a class count
    the methods that run from outside, and those that any code that was found names.
    """

    def __init__(self) -> None:
        self._functions: list[FunctionType] = []
        self._classes: dict[type, set[str]] = {}

    def add_function(self, function: Any) -> None:
        """Take a function in, if it is the user's."""
        self._functions += _functions_in(function)

    def add_class(self, kind: type, runs: Iterable[str] = RUN_FROM_OUTSIDE) -> None:
        """Take a class in, with those of the user's that it inherits from; `runs`: methods that run from outside."""
        for base in kind.__mro__:
            if is_users(base):
                self._classes.setdefault(base, set()).update(runs)

    def digests(self) -> dict[str, str]:
        """By dotted name, 16 hex digits of each function's code, and the value of each constant that code names."""
        found: dict[str, set[str]] = {}  # several functions may have one name, such as `<lambda>`
        constants: dict[str, str] = {}
        named: set[str] = set()
        done: dict[int, CodeType] = {}  # by identity: equal code may stand in two modules
        queue = [*self._functions, *self._methods(named)]
        while queue:
            function = queue.pop()
            code = function.__code__
            if id(code) not in done:
                done[id(code)] = code
                found.setdefault(dotted_name(function), set()).add(_code_text(code))
                mentioned = set(_names(code))
                named |= mentioned
                queue += [inner for _, held in held_by(function) for inner in _functions_in(held)]
                queue += self._globals(function.__module__, function.__globals__, mentioned, constants)
            if not queue:
                queue = [method for method in self._methods(named) if id(method.__code__) not in done]
        return constants | {name: digest_of("|".join(sorted(texts))) for name, texts in found.items()}

    def _methods(self, named: set[str]) -> Iterator[FunctionType]:
        for kind, runs in list(self._classes.items()):
            for name in runs | named:
                yield from _functions_in(vars(kind).get(name))

    def _globals(
        self, where: str, values: dict[str, Any], mentioned: set[str], constants: dict[str, str]
    ) -> list[FunctionType]:
        """The functions behind the names that code mentions; classes and constants are noted."""
        found: list[FunctionType] = []
        for name in sorted(mentioned & values.keys()):
            value = values[name]
            if isinstance(value, ModuleType):
                if is_users(value):
                    found += self._globals(value.__name__, vars(value), mentioned, constants)
            elif isinstance(value, type):
                self.add_class(value, MADE_AND_RUN)
            elif functions := _functions_in(value):
                found += functions
            elif not name.startswith("__") and (text := plain_text(value)) is not None:
                constants[f"{where}.{name}"] = shortened(text)
        return found


def _functions_in(value: Any) -> list[FunctionType]:
    """The user's functions that a value runs when it is called or read."""
    while isinstance(value, functools.partial):
        value = value.func
    inner = function_in(value)
    return [inner] if inner is not None and is_users(inner) else []


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _code_text(code: CodeType) -> str:
    """What code does, without names of files and local variables and without line numbers."""
    constants = list(code.co_consts)
    if constants and isinstance(constants[0], str):  # as good as always the docstring
        constants[0] = None
    parts = [
        hashlib.sha256(code.co_code).hexdigest(),
        str((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_names, code.co_freevars)),
        *(_constant_text(constant) for constant in constants),
    ]
    return digest_of("\n".join(parts))


def _constant_text(constant: Any) -> str:
    if isinstance(constant, CodeType):
        return _code_text(constant)
    if isinstance(constant, (tuple, frozenset)):
        texts = [_constant_text(item) for item in constant]
        return f"{type(constant).__name__}({', '.join(texts if isinstance(constant, tuple) else sorted(texts))})"
    return f"{type(constant).__name__} {constant!r}"


@functools.cache
def _is_users_module(top: str, name: str) -> bool:
    module = sys.modules.get(name) or sys.modules.get(top)
    if top in ("__main__", "__mp_main__"):
        return True
    if module is None:  # defined where no file is, and sent here
        return top not in sys.stdlib_module_names
    file = getattr(module, "__file__", None)
    if file is None:
        return top not in sys.stdlib_module_names and top not in sys.builtin_module_names
    return not any(Path(file).resolve().is_relative_to(folder) for folder in _installed_folders())


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    spec = importlib.util.find_spec("torchvision")  # it need not be imported for that
    files = [torch.__file__, str(Path(__file__).parent), None if spec is None else spec.origin]
    folders += [str(Path(file).parent) for file in files if file is not None]
    return tuple(Path(folder).resolve() for folder in folders)
