"""Which adapter reads a model, and which module of a user's model is the detector."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cval_torch.errors import InvalidInputError, UnsupportedModelError, dotted_name
from cval_torch.hooks.base import DetectorAdapter


@dataclass(frozen=True)
class KnownAdapter:
    """Where an adapter lives; its module is imported only once its vendor's package has been.

    Attributes:
        families: the detectors it knows, as a user would name them.
        vendor: the package that defines them.
        module: the module of this library with the adapter's class.
        attribute: the name of the class; it takes no arguments.
    """

    families: str
    vendor: str
    module: str
    attribute: str

    def load(self) -> DetectorAdapter | None:
        """The adapter, or None where the vendor's package was never imported: no model can be one of its own."""
        if self.vendor not in sys.modules:
            return None
        adapter: DetectorAdapter = getattr(importlib.import_module(self.module), self.attribute)()
        return adapter


ADAPTERS: tuple[KnownAdapter, ...] = (
    KnownAdapter("Faster, Mask and Keypoint R-CNN", "torchvision", "cval_torch.hooks.torchvision", "RCNNAdapter"),
    KnownAdapter("RetinaNet", "torchvision", "cval_torch.hooks.torchvision", "RetinaNetAdapter"),
    KnownAdapter("FCOS", "torchvision", "cval_torch.hooks.torchvision", "FCOSAdapter"),
    KnownAdapter("SSD and SSDLite", "torchvision", "cval_torch.hooks.torchvision", "SSDAdapter"),
    KnownAdapter("YOLO v3, 5, 6, 8 to 12 and 26", "ultralytics", "cval_torch.hooks.ultralytics", "UltralyticsAdapter"),
    KnownAdapter(
        "DETR and Conditional, Deformable and DAB-DETR, Table Transformer, RT-DETR, D-FINE, YOLOS",
        "transformers",
        "cval_torch.hooks.transformers",
        "TransformersAdapter",
    ),
)
"""Every family that is known, in the order in which they are asked."""


def unwrap(model: Any) -> Any:
    """The detector itself, out of any nesting of DataParallel, DistributedDataParallel, AveragedModel, torch.compile,
    and out of an `ultralytics.YOLO`.

    >>> layer = nn.Linear(1, 1)
    >>> unwrap(nn.DataParallel(layer)) is layer
    True
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):  # what torch.compile returns
            model = model._orig_mod
        elif (inner := _network_inside(model)) is not None:
            model = inner
        else:
            return model


def _network_inside(model: Any) -> nn.Module | None:
    """What an `ultralytics.YOLO` holds; its own `train` would start a training. None for any other model."""
    if "ultralytics" not in sys.modules:
        return None
    found: nn.Module | None = importlib.import_module("cval_torch.hooks.ultralytics").wrapped_network(model)
    return found


def find_adapter(model: Any, adapter: DetectorAdapter | None = None) -> DetectorAdapter:
    """The adapter that knows `model`.

    Args:
        model: a detector, already out of its wrappers.
        adapter: the caller's own, or None to look among `ADAPTERS`. One of these, with options, is asked whether it
            knows the model; an adapter with a `matches` of its own is taken at its word.

    Raises:
        UnsupportedModelError: no adapter knows the model, or not the one that was given; or torch.jit has made the
            model opaque to hooks.
        InvalidInputError: `adapter` is not an adapter.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            "`model` is a torch.jit module, whose inner modules run no hooks; pass the detector that it was made "
            f"from. {_known()}"
        )
    if adapter is not None:
        return _given(model, _checked(adapter))
    loaded = [known for known in (entry.load() for entry in ADAPTERS) if known is not None]
    if isinstance(model, nn.Module):
        for known in loaded:
            if known.matches(model):
                return known
    kind = type(model)
    hint = "".join(
        f" Its `{name}` is a {inner}: pass `model.{name}`, or `detector={name!r}` to the callback of a framework."
        for name, inner in _inside(model, loaded)
    )
    raise UnsupportedModelError(f"no adapter knows `model`, a {kind.__module__}.{kind.__qualname__}.{hint} {_known()}")


def _given(model: Any, adapter: DetectorAdapter) -> DetectorAdapter:
    """An adapter that the caller gave, unless it is of this library and does not know `model`."""
    if is_built_in(adapter.matches) and not adapter.matches(model):
        raise UnsupportedModelError(
            f"`adapter` reads {adapter.name}; it does not know `model`, a {dotted_name(model)}. Leave `adapter=` out "
            "to have one found, or pass one of your own. A class that derives from this adapter, to read a detector "
            "like its own, must override `matches`"
        )
    return adapter


def is_built_in(thing: Any) -> bool:
    """Whether a class or a method is defined in this library."""
    return str(getattr(thing, "__module__", "")).startswith("cval_torch.")


def _known() -> str:
    families = "; ".join(f"{entry.families} ({entry.vendor})" for entry in ADAPTERS)
    return (
        f"Known are: {families}. For any other detector pass `adapter=`, an object of your own with the methods of "
        "cval_torch.hooks.base.DetectorAdapter; examples/extend/detector.py has a whole one"
    )


def _inside(model: Any, adapters: list[DetectorAdapter]) -> Iterator[tuple[str, str]]:
    """The first submodule, by name, that an adapter would know: the user passed what holds it."""
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            for adapter in adapters:
                if name and adapter.matches(module):
                    yield name, adapter.name
                    return


def _checked(adapter: Any) -> DetectorAdapter:
    if isinstance(adapter, type):
        raise InvalidInputError(f"`adapter` must be an instance; got the class {adapter.__qualname__}")
    if isinstance(adapter, DetectorAdapter):
        return adapter
    missing = [part for part in ("name", "matches", "modules", "forward", "read") if not hasattr(adapter, part)]
    raise InvalidInputError(
        f"`adapter` must answer to cval_torch.hooks.base.DetectorAdapter; {type(adapter).__qualname__} lacks "
        f"{', '.join(f'`{part}`' for part in missing)}"
    )


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
