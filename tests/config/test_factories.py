"""Functions of the user's, named in a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch.config.factories import call_factory
from cval_torch.errors import InvalidInputError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder."""
    (tmp_path / "users_own.py").write_text(
        "class Made:\n    @staticmethod\n    def make(size):\n        return [0] * size\n\nNUMBER = 3\n"
        "def fails():\n    raise RuntimeError('of the user')\n"
    )
    (tmp_path / "users_broken.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [each for each in __import__("sys").path if each])
    return "users_own"


def test_it_is_imported_from_the_current_folder_and_called(module: str) -> None:
    assert call_factory(f"{module}:Made.make", {"size": 2}, key="model.factory") == [0, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_own.make", "`model.factory` must be `package.module:function`; got 'users_own.make'"),
        (":make", "must be `package.module:function`"),
        ("users_own:", "must be `package.module:function`"),
        ("users_gone:make", "there is no module 'users_gone'"),
        ("users_own.gone:make", r"there is no module 'users_own.gone'"),
        ("users_own:gone", "'users_own' has no 'gone'"),
        ("users_own:NUMBER", "is a int, which cannot be called"),
    ],
)
def test_names_of_nothing(module: str, name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call_factory(name, {}, key="model.factory")


def test_what_the_users_code_raises_comes_through(module: str) -> None:
    with pytest.raises(RuntimeError, match="of the user"):
        call_factory(f"{module}:fails", {}, key="model.factory")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        call_factory("users_broken:make", {}, key="model.factory")
    with pytest.raises(TypeError, match="wrong"):
        call_factory(f"{module}:Made.make", {"wrong": 1}, key="model.factory")
