"""`read_state`: everything that a model, or an object beside it, holds and that may decide what it answers, as text."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cval_torch.errors import dotted_name
from cval_torch.extraction.fingerprint import extra_state_of, plain_name, weights_of
from cval_torch.extraction.functions import function_name, held_by
from cval_torch.extraction.plain_text import SHOWN, array_text, digest_of, plain_text, shortened, tensor_text
from cval_torch.extraction.user_code import UserCode, is_users
from cval_torch.hooks.bookkeeping import deciding, is_counter, is_machinery

_DEEPEST = 8  # objects within objects
_MOST = 5_000  # entries of one attribute
_EMPTY = ("()", "{}")


@dataclass
class State:
    """What was read.

    Attributes:
        weights: the dtype, shape and digest of each tensor, by name; also of those only `state_dict` shows.
        settings: the class of each module and object, and every plain value, by dotted name.
        unread: names of what holds values that cannot be read, such as a scripted module.
    """

    weights: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def read_model(model: nn.Module, code: UserCode, *, parameters: bool = True) -> State:
    """Read a model: its structure, weights, attributes and hooks, and what its functions close over.

    Left out is what does not decide an answer: modes, devices, training counters, hooks for gradients, and what ties a
    model to its process (locks, files, loggers, trainers). No property and no method of the model is called, except
    `state_dict`. Memory addresses never count. Nothing that a model can hold is an error.

    Args:
        model: the detector.
        code: takes in the user's functions and classes that the model consists of.
        parameters: whether to read parameters, which are most of the cost.

    >>> state = read_model(nn.Sequential(nn.ReLU(), nn.Dropout(0.25)), UserCode())
    >>> state.settings["0"], state.settings["1.p"]
    ('torch.nn.modules.activation.ReLU', '0.25')
    """
    reader = _Reader(code, _named_parts(model), parameters=parameters)
    reader.model("", model)
    return reader.state


def read_object(value: Any, code: UserCode, *, beside: nn.Module | None = None) -> State:
    """Read any other object, such as an adapter; modules of the model `beside` it are told by their names there."""
    reader = _Reader(code, {} if beside is None else _named_parts(beside))
    reader.tried("", reader.object, value)
    return reader.state


def read_values(values: Mapping[str, Any], code: UserCode) -> State:
    """Read values by name, such as the transforms of a dataset."""
    reader = _Reader(code, {})
    for name, value in values.items():
        reader.value(name, value, 0)
    return reader.state


def read_functions(functions: Mapping[str, Any], code: UserCode) -> State:
    """Read the constants that functions hold; `code` takes in what they run."""
    reader = _Reader(code, {})
    for name, function in functions.items():
        reader.tried(name, reader.called, function)
    return reader.state


class _Reader:
    """Walks over objects once each.

    Args:
        code: takes in functions and classes.
        known: the names of modules that are only to be named, by identity.
        parameters: whether to read them.
    """

    def __init__(self, code: UserCode, known: Mapping[int, str], *, parameters: bool = True) -> None:
        self.state, self._code, self._known, self._parameters = State(), code, dict(known), parameters
        self._seen: dict[int, Any] = {}  # the objects are kept, so that no other takes the place of one
        self._open: set[int] = set()
        self._shown: set[str] = set()
        self._most = _MOST

    def tried(self, path: str, read: Callable[[str, Any], None], value: Any) -> None:
        """Read what may resist, in whatever way: it is not ours."""
        try:
            read(path, value)
        except Exception:
            self.state.settings.setdefault(path, dotted_name(type(value)))
            self.state.unread.append(path)

    # Modules

    def model(self, path: str, root: nn.Module) -> None:
        """A module with all modules in it."""
        try:
            self._weights(path, root)
            parts = list(root.named_modules())
        except Exception:
            self.state.unread.append(path)
            return
        extra = {_joined(path, name): value for name, value in extra_state_of(root).items()}
        self._shown |= extra.keys()
        for name, module in parts:
            if "_orig_mod" in module._modules:  # what torch.compile puts around a module
                continue
            self.tried(_joined(path, plain_name(name)), self._module, module)
        for name, value in extra.items():
            self.value(name, value, 0)
        for name in self.state.weights.keys() & self.state.settings.keys():
            del self.state.settings[name]

    def _weights(self, path: str, root: nn.Module) -> None:
        for name, tensor in weights_of(root).items():
            if not is_counter(name) and (self._parameters or not isinstance(tensor, nn.Parameter)):
                text = self.state.weights[_joined(path, name)] = tensor_text(tensor)
                if "unread" in text:
                    self.state.unread.append(_joined(path, name))

    def _module(self, path: str, module: nn.Module) -> None:
        if is_machinery(module):
            return
        self.state.settings[path] = dotted_name(type(module))
        if isinstance(module, torch.jit.ScriptModule):
            self.state.settings[path] = f"torch.jit {getattr(module, 'original_name', '')}"
            self.state.unread.append(path)
        if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):
            try:
                self.state.settings[_joined(path, "code")] = digest_of(str(module.code))
            except Exception:  # no `forward` was compiled
                self.state.unread.append(path)
        if not isinstance(module, torch.jit.ScriptModule):
            self._code.add_class(type(module))
            self.attributes(path, module, 0)
            for kind in ("forward pre", "forward"):
                hooks = getattr(module, f"_{kind.replace(' ', '_')}_hooks", {})
                for hook in hooks.values():
                    self._hook(f"{path} {kind} hook".strip(), hook)

    def _hook(self, path: str, hook: Any) -> None:
        inner = hook.func if isinstance(hook, functools.partial) else hook
        name = f"{path} {function_name(inner) or dotted_name(type(inner))}"
        self.state.settings[name] = "there again" if name in self.state.settings else "there"
        self.called(name, hook)

    def called(self, path: str, function: Any) -> None:
        """A function that is only called, such as a hook. Of what it holds only constants count: it fills the rest."""
        held = held_by(function)
        if isinstance(function, functools.partial):
            function = function.func
            held += held_by(function)
        self._code.add_function(function)
        for name, value in held:
            if isinstance(value, Tensor) or not (isinstance(value, (list, dict, set)) or plain_text(value) is None):
                self.value(_joined(path, name), value, 1)
        if not function_name(function):
            self._code.add_class(type(function))
            self.attributes(path, function, 0)

    # Values

    def object(self, path: str, value: Any) -> None:
        """An object that is known to be one."""
        self._seen[id(value)] = value
        self._code.add_class(type(value))
        self.attributes(path, value, 0)

    def value(self, path: str, value: Any, depth: int) -> None:
        """Anything at all, under this name."""
        if depth <= 1:
            self._most = len(self.state.settings) + _MOST
        self.tried(path, lambda path, value: self._value(path, value, depth), value)

    def _value(self, path: str, value: Any, depth: int) -> None:
        settings = self.state.settings
        text = plain_text(value)
        if text in _EMPTY:
            return
        if text is not None and (len(text) <= SHOWN or not isinstance(value, Mapping)):
            settings[path] = shortened(text)
        elif isinstance(value, Tensor):
            settings[path] = tensor_text(value)
        elif isinstance(value, np.ndarray):
            settings[path] = array_text(value)
        elif isinstance(value, ModuleType):
            settings[path] = f"the module {value.__name__}"
        elif isinstance(value, nn.Module):
            self._submodule(path, value)
        elif not isinstance(value, dict) and is_machinery(value):  # a dict of hyperparameters is no machinery
            return
        elif depth > _DEEPEST or len(settings) > self._most:
            settings[path] = dotted_name(type(value))
            self.state.unread.append(path)
        elif isinstance(value, (Mapping, list, tuple, set, frozenset)):
            if id(value) not in self._open:  # else it is in itself
                self._open.add(id(value))
                for place, item in _items(value):
                    self.value(f"{path}{place}", item, depth + 1)
                self._open.discard(id(value))
        elif function_name(value):
            self._function(path, value, depth)
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            settings[path] = dotted_name(type(value))
            self._code.add_class(type(value))
            self.attributes(path, value, depth)

    def _submodule(self, path: str, module: nn.Module) -> None:
        if id(module) in self._known:
            self.state.settings[path] = f"the module {self._known[id(module)] or 'itself'!r}"
        elif not is_machinery(module):
            self._known |= {part: _joined(path, name) for part, name in _named_parts(module).items()}
            self.model(path, module)

    def attributes(self, path: str, owner: Any, depth: int) -> None:
        """What an object holds, in its `__dict__`, its slots or what pickle would keep of it."""
        found = _attributes(owner)
        for name in sorted(found):
            self.value(_joined(path, name), found[name], depth + 1)
        if not found and type(owner) is not object and not hasattr(owner, "__dict__"):
            self._pickled(path, owner, depth)

    def _pickled(self, path: str, owner: Any, depth: int) -> None:
        if path in self._shown:  # a packed weight, which `state_dict` unpacks
            return
        reduced = owner.__reduce_ex__(2)
        if not isinstance(reduced, tuple):
            raise TypeError(path)
        for place, part in enumerate(reduced[1:3]):
            if part is not None:
                self.value(f"{path}[{place}]", part, depth + 1)

    def _function(self, path: str, value: Any, depth: int) -> None:
        self.state.settings[path] = function_name(value)
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        self._code.add_function(value)
        if isinstance(value, torch.jit.ScriptFunction):
            self.state.settings[_joined(path, "code")] = digest_of(str(value.code))
            return
        held = held_by(value)
        held += [("func", value.func)] if isinstance(value, functools.partial) else []
        held += [("__self__", value.__self__)] if isinstance(value, MethodType) else []
        for name, item in held:
            self.value(_joined(path, name), item, depth + 1)


def _named_parts(model: nn.Module) -> dict[int, str]:
    try:
        return {id(module): plain_name(name) for name, module in model.named_modules()}
    except Exception:
        return {id(model): ""}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}".strip(".")


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        keys = [(plain_text(key) or dotted_name(type(key)), item) for key, item in value.items()]
        return [(f"[{key}]", item) for key, item in sorted(keys, key=lambda pair: pair[0])]
    if hasattr(value, "_fields"):
        return [(f".{name}", item) for name, item in zip(value._fields, value, strict=False)]
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=lambda item: plain_text(item) or dotted_name(type(item)))
    return [(f"[{place}]", item) for place, item in enumerate(value)]


def _attributes(owner: Any) -> dict[str, Any]:
    """The object's own attributes, and plain constants of the user's classes that it is of."""
    found: dict[str, Any] = {}
    kinds = type(owner).__mro__
    for kind in reversed(kinds):
        if is_users(kind):
            found |= {name: value for name, value in vars(kind).items() if _is_constant(name, value)}
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__") and hasattr(owner, slot):
                found[slot] = getattr(owner, slot)
    with contextlib.suppress(AttributeError):
        found |= object.__getattribute__(owner, "__dict__")
    return deciding(owner, found)


def _is_constant(name: str, value: Any) -> bool:
    return not name.startswith("__") and not isinstance(value, type) and plain_text(value) is not None
