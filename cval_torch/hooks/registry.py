"""The adapters that are looked through for a model: this library's, those of other packages, and your own."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cval_torch.errors import InvalidInputError, callable_name, dotted_name, warn_user
from cval_torch.hooks.base import DetectorAdapter

ENTRY_POINTS = "cval_torch.adapters"
"""The group of entry points by which a package brings adapters."""


@dataclass(frozen=True)
class KnownAdapter:
    """Where an adapter lives; its module is imported only once its vendor's package has been.

    Attributes:
        families: the detectors it knows, as a user would name them.
        vendor: the package that defines them.
        module: the module with the adapter's class.
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
    KnownAdapter(
        "YOLO v3, 5, 6, 8 to 12 and 26, World, YOLOE",
        "ultralytics",
        "cval_torch.hooks.ultralytics",
        "UltralyticsAdapter",
    ),
    KnownAdapter("RT-DETR", "ultralytics", "cval_torch.hooks.ultralytics_rtdetr", "UltralyticsRTDETRAdapter"),
    KnownAdapter("EfficientDet", "effdet", "cval_torch.hooks.effdet", "EffDetAdapter"),
    KnownAdapter("RF-DETR", "rfdetr", "cval_torch.hooks.rfdetr", "RFDETRAdapter"),
    KnownAdapter(
        "DETR and Conditional, Deformable and DAB-DETR, Table Transformer, RT-DETR, D-FINE, DEIMv2, LW-DETR, RF-DETR, "
        "YOLOS",
        "transformers",
        "cval_torch.hooks.transformers",
        "TransformersAdapter",
    ),
)
"""Every family that this library knows, in the order in which they are asked."""

_registered: dict[str, Callable[[], DetectorAdapter]] = {}

Maker = TypeVar("Maker", bound=Callable[[], DetectorAdapter])


def register_adapter(make: Maker) -> Maker:
    """Have `extract`, `select` and the callbacks of frameworks find an adapter of yours by themselves.

    Registered adapters are asked before those of this library, the last one first. A class of the same module and name
    takes the place of the former, so that a notebook's cell may run again. What is registered holds for this process.

    A package registers its adapters by entry points instead, in the group `cval_torch.adapters`. The name of one is the
    package that defines the detectors, and its object the class. It is loaded once that package is imported:

        [project.entry-points."cval_torch.adapters"]
        my_detectors = "my_detectors.active_learning:MyAdapter"

    Args:
        make: the adapter's class, or a function that makes one. It is called without arguments, at each search.

    Returns:
        `make`, so that this may stand above a class as a decorator.

    Raises:
        InvalidInputError: an adapter where a class is wanted.
    """
    if not callable(make):
        raise InvalidInputError(
            f"register the class of an adapter, or a function that makes one; got a {type(make).__qualname__}"
        )
    name = dotted_name(make)
    _registered.pop(name, None)
    _registered[name] = make
    return make


def adapters_known() -> list[DetectorAdapter]:
    """One adapter of each kind whose detectors may be in this process, in the order in which they are asked."""
    registered = [make() for make in reversed(_registered.values())]
    brought = [_loaded(entry) for entry in _entry_points(tuple(sys.path))]
    own = [entry.load() for entry in ADAPTERS]
    return registered + [adapter for adapter in (*brought, *own) if adapter is not None]


def families_known() -> str:
    """What detectors are known, for errors."""
    registered = [f"{callable_name(make)} (registered)" for make in reversed(_registered.values())]
    listed = [f"{entry.families} ({entry.vendor})" for entry in (*_entry_points(tuple(sys.path)), *ADAPTERS)]
    return "; ".join(registered + listed)


@functools.cache
def _entry_points(_: tuple[str, ...]) -> tuple[KnownAdapter, ...]:
    """Those of other packages; asked for again if `sys.path` has changed."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return tuple(KnownAdapter(each.value, each.name, each.module, each.attr) for each in found)


def _loaded(entry: KnownAdapter) -> DetectorAdapter | None:
    """The adapter of another package. One that cannot be made is warned of, and must not stop all other detectors."""
    try:
        return entry.load()
    except Exception as error:
        warn_user(
            f"the adapter {entry.families}, which a package brings for `{entry.vendor}` by the entry points "
            f"{ENTRY_POINTS!r}, cannot be used: {type(error).__name__}: {error}"
        )
        return None
