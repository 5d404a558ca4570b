"""Which adapter reads a model, and which module of a user's model is the detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cval_torch.errors import InvalidInputError, UnsupportedModelError, dotted_name
from cval_torch.hooks.base import DetectorAdapter, OpensHolders
from cval_torch.hooks.registry import adapters_known, families_known


def unwrap(model: Any) -> Any:
    """The detector itself, out of any nesting of DataParallel, DistributedDataParallel, AveragedModel, torch.compile,
    and out of the objects in which hosts keep a network, such as an `ultralytics.YOLO`.

    >>> layer = nn.Linear(1, 1)
    >>> unwrap(nn.DataParallel(layer)) is layer
    True
    """
    return opened(model, adapters_known())[0]


def opened(model: Any, adapters: Sequence[DetectorAdapter]) -> tuple[Any, DetectorAdapter | None]:
    """What `unwrap` returns, and the adapter that opened the host's object, as it read what that says; None: none did.

    Args:
        model: anything.
        adapters: those that are asked whether they can open it.
    """
    reader: DetectorAdapter | None = None
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):  # what torch.compile returns
            model = model._orig_mod
        else:
            inside = (each.open(model) for each in adapters if isinstance(each, OpensHolders))
            found = next((pair for pair in inside if pair is not None), None)
            if found is None:
                return model, reader
            model, reader = found


def find_adapter(model: Any, adapter: DetectorAdapter | None = None) -> DetectorAdapter:
    """The adapter that knows `model`.

    Args:
        model: a detector, already out of its wrappers.
        adapter: the caller's own, or None to look among those that are registered, those that other packages bring,
            and `ADAPTERS`. One of this library, with options, is asked whether it knows the model; an adapter with a
            `matches` of its own is taken at its word.

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
        return _given(model, checked(adapter))
    loaded = adapters_known()
    if isinstance(model, nn.Module):
        for known in loaded:
            if known.matches(model):
                return known
    kind = type(model)
    hint = "".join(
        f" Its `{name}` is a {inner}: pass `model.{name}`, or `detector={name!r}` to the callback of a framework."
        for name, inner in _inside(model, loaded)
    )
    said = f"a {kind.__module__}.{kind.__qualname__}{_reason(model, loaded)}"
    raise UnsupportedModelError(f"no adapter knows `model`, {said}.{hint} {_known()}")


def _reason(model: Any, adapters: Sequence[DetectorAdapter]) -> str:
    """Why a model is not read, if an adapter of this library says so."""
    asked = (each.refusal(model) for each in adapters if hasattr(each, "refusal"))
    reason = next((each for each in asked if each), None)
    return f": {reason}" if reason else ""


def _given(model: Any, adapter: DetectorAdapter) -> DetectorAdapter:
    """An adapter that the caller gave, unless it is of this library and does not know `model`."""
    if is_built_in(adapter.matches) and not adapter.matches(model):
        raise UnsupportedModelError(
            f"`adapter` reads {adapter.name}; it does not know `model`, a {dotted_name(model)}"
            f"{_reason(model, [adapter])}. Leave `adapter=` out to have one found, or pass one of your own. A class "
            "that derives from this adapter, to read a detector like its own, must override `matches`"
        )
    return adapter


def is_built_in(thing: Any) -> bool:
    """Whether a class or a method is defined in this library."""
    return str(getattr(thing, "__module__", "")).startswith("cval_torch.")


def _known() -> str:
    return (
        f"Known are: {families_known()}. For any other detector pass `adapter=`, an object of your own with the "
        "methods of cval_torch.hooks.base.DetectorAdapter; examples/extend/detector.py has a whole one"
    )


def _inside(model: Any, adapters: list[DetectorAdapter]) -> Iterator[tuple[str, str]]:
    """The first submodule, by name, that an adapter would know: the user passed what holds it."""
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            for adapter in adapters:
                if name and adapter.matches(module):
                    yield name, adapter.name
                    return


def checked(adapter: Any) -> DetectorAdapter:
    """`adapter`, if it has the methods of one. Raises `InvalidInputError`."""
    if isinstance(adapter, type):
        raise InvalidInputError(f"`adapter` must be an instance; got the class {adapter.__qualname__}")
    if isinstance(adapter, DetectorAdapter):
        return adapter
    missing = [part for part in ("name", "matches", "modules", "forward", "read") if not hasattr(adapter, part)]
    raise InvalidInputError(
        f"`adapter` must answer to cval_torch.hooks.base.DetectorAdapter; {type(adapter).__qualname__} lacks "
        f"{', '.join(f'`{part}`' for part in missing)}"
    )
