"""What `import cval_torch` offers: listed, documented, and nothing else."""

from __future__ import annotations

import inspect
import types
from pathlib import Path

import cval_torch

README = (Path(__file__).parent.parent / "README.md").read_text()


def public_names() -> set[str]:
    return {
        name
        for name, value in vars(cval_torch).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


def test_names_are_listed_and_sorted() -> None:
    listed = [name for name in cval_torch.__all__ if name != "__version__"]
    assert set(listed) == public_names() - {"annotations"}
    assert listed == sorted(listed)


def test_every_name_is_documented() -> None:
    for name in cval_torch.__all__:
        value = getattr(cval_torch, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name} has no docstring"
            assert value.__doc__.strip()[0].isupper() or value.__doc__.strip()[0] == "`", name


def test_every_public_method_is_documented() -> None:
    for name in cval_torch.__all__:
        value = getattr(cval_torch, name)
        if not inspect.isclass(value):
            continue
        for attribute, method in vars(value).items():
            if inspect.isfunction(method) and not attribute.startswith("_"):
                assert inspect.getdoc(method), f"{name}.{attribute} has no docstring"


def test_the_readme_names_every_public_function_and_class() -> None:
    public = [name for name in cval_torch.__all__ if not name.endswith("Error") and not name.startswith("_")]
    missing = [name for name in public if name not in README]
    assert missing == []
