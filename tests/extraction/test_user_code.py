"""Which of the user's functions a model runs, and whether they are the same."""

from __future__ import annotations

import functools
import json
import sys
import textwrap
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from model_variants import Holder
from torch import nn

from cval_torch.extraction.user_code import MADE_AND_RUN, UserCode, compiler, is_users
from cval_torch.hooks.torchvision import RCNNAdapter


def made(source: str, name: str = "written") -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": name}
    exec(textwrap.dedent(source), space)
    return space


def digests(source: str, *names: str, runs: tuple[str, ...] = ("forward",)) -> dict[str, str]:
    """Of the functions and classes of these names in a module of this source."""
    code, space = UserCode(), made(source)
    for name in names:
        if isinstance(space[name], type):
            code.add_class(space[name], runs)
        else:
            code.add_function(space[name])
    return {name.removeprefix("written."): digest for name, digest in code.digests().items()}


def test_who_wrote_it() -> None:
    assert all(map(is_users, (Holder, made, Holder.forward)))
    assert not any(map(is_users, (nn.Linear, torch, np, np.mean, json.loads, len, int, RCNNAdapter, pytest, functools)))
    assert is_users(made("def f(): ...")["f"]), "a module without a file: of a notebook, say"
    assert is_users(sys.modules["model_variants"])


NET = """
    LIMIT, TABLE = 3, {"a": [1]}
    _seen = object()
    def helper(x):
        return second(x) + LIMIT
    def second(x):
        return x + TABLE["a"][0]
    def unused(x):
        return x
    class Base:
        def shared(self, x):
            return helper(x)
        def unnamed(self):
            return 0
    class Net(Base):
        def forward(self, x):
            _seen
            return self.shared(x)
        def training_step(self, x):
            return unused(x)
"""


def test_functions_are_followed_to_what_they_name() -> None:
    found = digests(NET, "Net")
    assert found.keys() == {"Net.forward", "Base.shared", "helper", "second", "LIMIT", "TABLE"}
    assert (found["LIMIT"], found["TABLE"]) == ("3", "{'a': (1,)}")
    assert digests(NET, "Net", runs=("training_step",)).keys() == {"Net.training_step", "unused"}
    assert digests(NET, "helper").keys() == {"helper", "second", "LIMIT", "TABLE"}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("x + TABLE", "x - TABLE", {"second"}),
        ('"a"][0]', '"a"][-1]', {"second"}),
        ("LIMIT, TABLE = 3", "LIMIT, TABLE = 4", {"LIMIT"}),
        ("return helper(x)", "return helper(x * 2)", {"Base.shared"}),
        ("return unused(x)", "return x", set()),
        ("def second(x):", "def second(x):  # a note\n", set()),
        ("def helper(x):\n        return second(x)", "def helper(value):\n\n        return second(value)", set()),
    ],
)
def test_an_edit_changes_the_digest_of_its_function_alone(old: str, new: str, changed: set[str]) -> None:
    assert old in NET
    before, after = digests(NET, "Net"), digests(NET.replace(old, new), "Net")
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == changed


def test_a_docstring_is_no_code() -> None:
    one, other = (digests(f"def f(x):\n    '''{text}'''\n    return x", "f") for text in ("One.", "Two."))
    assert one == other
    assert one != digests("def f(x):\n    'One.'\n    return 'Two.'", "f")


def test_wrapped_closed_over_and_made_code_counts() -> None:
    source = """
        import functools
        def around(function):
            @functools.wraps(function)
            def inner(x):
                return function(x)
            return inner
        def first(x): return x
        wrapped = around(first)
        partial = functools.partial(first, 1)
        def unnamed(function):
            return lambda x: function(x)
        lambda_over = unnamed(first)
        class Made:
            def __init__(self): self.value = 1
            def use(self): return 2
            def never(self): return 3
            @property
            def read(self): return 4
        def making():
            return Made().use() + Made().read
    """
    assert digests(source, "wrapped").keys() == {"first"}
    assert digests(source, "partial").keys() == {"first"}
    assert digests(source, "lambda_over").keys() == {"unnamed.<locals>.<lambda>", "first"}
    assert digests(source, "making").keys() == {"making", "Made.__init__", "Made.use", "Made.read"}
    code = UserCode()
    code.add_class(made(source)["Made"], MADE_AND_RUN)
    assert code.digests().keys() == {"written.Made.__init__"}


def test_modules_of_the_users_are_followed_and_others_not(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_tools")
    exec("GAIN = 2\ndef scaled(x): return x * GAIN\ndef other(x): return x", module.__dict__)
    monkeypatch.setitem(sys.modules, "own_tools", module)
    source = "import own_tools, torch\ndef f(x): return torch.relu(own_tools.scaled(x))"
    assert digests(source, "f").keys() == {"f", "own_tools.scaled", "own_tools.GAIN"}


def test_functions_of_one_name_are_all_told() -> None:
    one = "a, b = (lambda x: x + 1), (lambda x: x + 2)"
    other = "a, b = (lambda x: x + 1), (lambda x: x + 3)"
    assert digests(one, "a", "b") == digests(one, "b", "a")
    assert digests(one, "a", "b") != digests(other, "a", "b")
    assert digests("x = {1, 2} \ndef f(y): return y in {'b', 'a', 'c'}", "f").keys() == {"f"}


def test_code_that_names_itself_ends() -> None:
    source = "def f(x): return g(x)\ndef g(x): return f(x)\nclass C:\n    def forward(self): return C().forward()"
    assert digests(source, "f", "C").keys() == {"f", "g", "C.forward"}


def test_the_compiler_is_named() -> None:
    assert compiler().startswith(str(sys.implementation.cache_tag))
