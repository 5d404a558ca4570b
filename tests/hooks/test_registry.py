"""Adapters that users register, and those that packages bring by entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from one_box import OneBox
from small_nets import Net
from torch import nn

from cval_torch.errors import InvalidInputError, UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks import find_adapter, register_adapter, registry


class Layer(nn.Linear):
    """Stands for a detector of the user's."""


class LayerAdapter(OneBox):
    def matches(self, model: nn.Module) -> bool:
        return isinstance(model, Layer)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    fresh: dict[str, object] = {}
    monkeypatch.setattr(registry, "_registered", fresh)
    yield fresh
    registry._entry_points.cache_clear()


def test_a_registered_adapter_is_found() -> None:
    with pytest.raises(UnsupportedModelError, match="no adapter knows"):
        extract(Layer(1, 1), [torch.rand(2, 3, 4, 4)], progress=False)
    assert register_adapter(LayerAdapter) is LayerAdapter
    holder = nn.ModuleDict({"net": Layer(1, 1)})
    for model in (holder["net"], holder):
        assert len(extract(model, [torch.rand(2, 3, 4, 4)], progress=False)) == 2
    with pytest.raises(UnsupportedModelError, match=r"Known are: LayerAdapter \(registered\); .*Faster"):
        find_adapter(Net())


def test_the_last_one_is_asked_first_and_one_of_the_same_name_replaces_it(registered: dict[str, object]) -> None:
    @register_adapter
    class Other(LayerAdapter):
        name = "other"

    assert find_adapter(Layer(1, 1)).name == "other"
    register_adapter(LayerAdapter)
    assert find_adapter(Layer(1, 1)).name == "one box"
    register_adapter(Other)
    register_adapter(Other)
    assert find_adapter(Layer(1, 1)).name == "other"
    assert len(registered) == 2


def test_an_adapter_in_place_of_its_class_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"register the class of an adapter, or a function .*; got a Layer"):
        register_adapter(LayerAdapter())  # type: ignore[arg-type]


def package(folder: Path, name: str, code: str) -> None:
    """An installed package with an entry point, as pip leaves it."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cval_torch.adapters]\n{name}_detectors = {name}:Brought\n")
    (folder / f"{name}_detectors.py").write_text("from torch import nn\nclass Net(nn.Linear):\n    pass\n")


def test_an_adapter_of_another_package_is_found_once_its_detectors_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package(
        tmp_path,
        "brought",
        "from one_box import OneBox\nfrom brought_detectors import Net\n"
        "class Brought(OneBox):\n    def matches(self, model):\n        return isinstance(model, Net)\n",
    )
    with pytest.raises(UnsupportedModelError, match=r"Known are: brought:Brought \(brought_detectors\); Faster"):
        find_adapter(Net())
    assert "brought" not in sys.modules
    from brought_detectors import Net as Theirs  # type: ignore[import-not-found]

    assert type(find_adapter(Theirs(1, 1))).__name__ == "Brought"
    del sys.modules["brought"], sys.modules["brought_detectors"]


def test_an_entry_point_that_is_broken_is_warned_of_and_harms_no_other_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "broken", "import no_such_package\n")
    import broken_detectors  # type: ignore[import-not-found]  # noqa: F401

    register_adapter(LayerAdapter)
    with pytest.warns(UserWarning, match=r"broken:Brought, which a package brings .* No module named"):
        assert find_adapter(Layer(1, 1)).name == "one box"
    del sys.modules["broken_detectors"]
