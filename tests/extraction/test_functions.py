"""Functions by name, what they wrap, and what they hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cval_torch.extraction.functions import function_in, function_name, held_by


def plain(x: Any, gain: float = 2.0, *, shift: int = 1) -> Any:
    return x


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


class Owner:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @property
    def read(self) -> None: ...

    @functools.cached_property
    def kept(self) -> None: ...

    def __call__(self) -> None: ...


HERE = "tests.extraction.test_functions"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (plain, f"{HERE}.plain"),
        (decorated(plain), f"{HERE}.plain"),
        (functools.lru_cache(plain), f"{HERE}.plain"),
        (torch.no_grad()(plain), f"{HERE}.plain"),
        (Owner().method, f"{HERE}.Owner.method"),
        (Owner.static, f"{HERE}.Owner.static"),
        (Owner.of_class, f"{HERE}.Owner.of_class"),
        (functools.partial(plain, 1), "functools.partial"),
        (functional.relu, "torch.nn.functional.relu"),
        (functional.gelu, "torch._C._nn.gelu"),
        (np.exp, "numpy.exp"),
        (torch.ops.aten.relu.default, "aten.relu.default"),
        (len, "builtins.len"),
        (Owner(), ""),
        (Owner, ""),
        (nn.ReLU(), ""),
        (3, ""),
    ],
)
def test_names(value: Any, name: str) -> None:
    assert function_name(value) == name


def test_the_function_within() -> None:
    assert function_in(decorated(plain)) is plain
    assert [function_in(vars(Owner)[name]).__name__ for name in ("static", "of_class", "read", "kept")] == [  # type: ignore[union-attr]
        "static", "of_class", "read", "kept",
    ]  # fmt: skip
    assert function_in(len) is None
    assert function_in(Owner) is None

    def around() -> None: ...

    around.__wrapped__ = around  # type: ignore[attr-defined]
    assert function_in(around) is around


def test_what_a_function_holds() -> None:
    kept = [1]

    def closing() -> Any:
        return kept, unfilled

    assert held_by(closing) == [("kept", kept)]
    unfilled = 2
    assert held_by(closing) == [("kept", kept), ("unfilled", 2)]
    assert held_by(plain) == [("gain", 2.0), ("shift", 1)]
    assert held_by(functools.partial(plain, 3, shift=2, gain=1)) == [("argument 0", 3), ("gain", 1), ("shift", 2)]
    assert held_by(len) == []
