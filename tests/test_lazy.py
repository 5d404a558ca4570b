"""Names that are imported when they are asked for (`lazy_names`)."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from cval_torch.lazy import lazy_names


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that says when its modules are imported."""
    folder = tmp_path / "sleepy"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from cval_torch.lazy import lazy_names\n"
        "__getattr__, __dir__ = lazy_names(__name__, {'sleepy.things': ['Thing']}, modules=['things'])\n"
        "__all__ = ['Thing']\n"
    )
    (folder / "things.py").write_text("class Thing: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("sleepy", "sleepy.things"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "sleepy"


def test_a_name_is_imported_at_its_first_use(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sleepy

    assert f"{package}.things" not in sys.modules
    assert {"Thing", "things", "__all__"} <= set(dir(sleepy))
    assert f"{package}.things" not in sys.modules, "a list of names imports nothing"
    thing = sleepy.Thing
    assert f"{package}.things" in sys.modules
    monkeypatch.delattr(sleepy, "__getattr__")
    assert sleepy.Thing is thing, "it is asked for once"
    assert type(pickle.loads(pickle.dumps(thing()))) is thing
    monkeypatch.delitem(sys.modules, package)
    monkeypatch.delitem(sys.modules, f"{package}.things")


@pytest.mark.usefixtures("package")
def test_a_module_is_reached_as_an_attribute() -> None:
    import sleepy

    assert sleepy.things.Thing is sleepy.Thing
    assert sleepy.things.__name__ == "sleepy.things"


@pytest.mark.usefixtures("package")
def test_what_is_not_there_is_an_attribute_error() -> None:
    import sleepy

    with pytest.raises(AttributeError, match="module 'sleepy' has no attribute 'Thin'"):
        _ = sleepy.Thin
    with pytest.raises(ImportError, match="cannot import name 'Thin'"):
        from sleepy import Thin  # noqa: F401


def test_a_name_that_its_module_lacks_is_told() -> None:
    get, _ = lazy_names("cval_torch", {"cval_torch.errors": ["Missing"]})
    with pytest.raises(AttributeError, match=r"'cval_torch\.errors' has no attribute 'Missing'"):
        get("Missing")
