"""Which part of a host's module is the detector."""

from __future__ import annotations

from typing import Any

from torch import nn

from cval_torch.errors import InvalidInputError, UnsupportedModelError
from cval_torch.hooks import find_adapter, unwrap
from cval_torch.hooks.base import DetectorAdapter


def find_detector(module: nn.Module, *, name: str | None = None, adapter: DetectorAdapter | None = None) -> nn.Module:
    """The detector in a host's module, such as a `LightningModule`.

    Args:
        module: the host's.
        name: of the attribute that is the detector; dots lead further in. None: the module itself if an adapter
            knows it, else the one of its direct submodules that an adapter knows.
        adapter: the user's own, or None for those that are known.

    Raises:
        InvalidInputError: no such attribute, or several submodules are detectors.
        UnsupportedModelError: neither the module nor a direct submodule is known.
    """
    if name is not None:
        return _attribute(module, name)
    if _knows(module, adapter):
        return module
    inside = {child_name: child for child_name, child in module.named_children() if _knows(child, adapter)}
    if len(inside) > 1:
        raise InvalidInputError(f"several attributes are detectors: say which, as `detector=`; got {sorted(inside)}")
    if not inside:
        find_adapter(unwrap(module))  # raises, and says what is known
        raise UnsupportedModelError(f"`adapter` does not know {type(module).__name__}, nor any of its attributes")
    return next(iter(inside.values()))


def _attribute(module: nn.Module, name: str) -> nn.Module:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, nn.Module):
        raise InvalidInputError(
            f"`detector` must name a module within {type(module).__name__}; got {name!r}, which is {found!r}"
        )
    return found


def _knows(module: nn.Module, adapter: DetectorAdapter | None) -> bool:
    core = unwrap(module)
    if adapter is not None:
        return adapter.matches(core)
    try:
        find_adapter(core)
    except UnsupportedModelError:
        return False
    return True
