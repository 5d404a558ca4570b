"""The detector in what people hold: a wrapper, a training's module, a host's own object."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from cval_torch.errors import InvalidInputError, UnsupportedModelError, dotted_name
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.hooks.finding import checked, find_adapter, opened
from cval_torch.hooks.registry import adapters_known


class Found(NamedTuple):
    """A detector, and the adapter that reads it as its holder would."""

    model: nn.Module
    adapter: DetectorAdapter


def find_detector(model: Any, *, name: str | None = None, adapter: DetectorAdapter | None = None) -> Found:
    """The detector in `model`, and its adapter.

    This is the one rule of `extract`, `select` and the callbacks of frameworks:

    - `model` may be a detector, or hold one in DataParallel, DistributedDataParallel, AveragedModel, torch.compile or
      an object of its host, such as an `ultralytics.YOLO`.
    - Or it is a module with one detector inside, however deep: a `LightningModule`, a PEFT model, an averaged copy. The
      detector is run, and not the `forward` of what is around it.
    - Of several detectors inside, the caller must say which.
    - An adapter of the caller's own, which knows neither the model nor a part of it, reads the model as it is.

    Args:
        model: what the user holds.
        name: of the attribute that is or holds the detector; dots lead further in. None: see above.
        adapter: the user's own, or None for those that are known.

    Raises:
        InvalidInputError: no such attribute, or several detectors; or `adapter` is not an adapter.
        UnsupportedModelError: no detector is known, it is sharded over processes, it is behind layers of an
            `nn.Sequential` that would not run, or torch.jit has made it opaque to hooks.
    """
    if adapter is not None:
        adapter = checked(adapter)
    if name is not None:
        model = _attribute(model, name)
    core, reader = _opened(model, adapter)
    if not isinstance(core, nn.Module):
        raise UnsupportedModelError(_no_module(core))
    _check_not_sharded(core)
    if reader is None and (place := _place_of_detector(core, adapter)):
        core, reader = _opened(core.get_submodule(place), adapter)
    return Found(core, find_adapter(core, adapter if reader is None else reader))


def _opened(model: Any, adapter: DetectorAdapter | None) -> tuple[Any, DetectorAdapter | None]:
    """`model` out of its wrappers, and the adapter that says how, if one opened a host's object."""
    core, reader = opened(model, adapters_known() if adapter is None else [adapter, *adapters_known()])
    wanted = adapter is None or type(reader) is type(adapter)
    reads = reader is not None and isinstance(core, nn.Module) and reader.matches(core)
    return core, reader if wanted and reads else None


def _place_of_detector(model: nn.Module, adapter: DetectorAdapter | None) -> str:
    """The name of the one detector inside `model`; empty if the model is one itself, or none is known."""
    adapters = adapters_known() if adapter is None else [adapter]

    def knows(module: nn.Module) -> bool:
        return any(each.matches(module) for each in adapters)

    if isinstance(model, torch.jit.ScriptModule) or knows(model):
        return ""
    places = [name for name, _ in _outermost(model, knows, set())]
    if len(places) > 1:
        raise InvalidInputError(
            f"`model`, a {dotted_name(model)}, holds several detectors: {', '.join(map(repr, places))}. Say which: "
            f"pass `model.{places[0]}`, or `detector={places[0]!r}` to the callback of a framework"
        )
    if not places:
        return ""
    _check_nothing_is_left_out(model, places[0])
    return places[0]


def _outermost(
    module: nn.Module, knows: Callable[[nn.Module], bool], seen: set[int], prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """The detectors inside a module, by name, each once; what is inside of these is not looked at."""
    for name, child in module.named_children():
        if id(child) in seen:
            continue
        seen.add(id(child))
        if knows(child):
            yield prefix + name, child
        else:
            yield from _outermost(child, knows, seen, f"{prefix}{name}.")


def _check_nothing_is_left_out(model: nn.Module, place: str) -> None:
    """Refuse a detector beside other layers of an `nn.Sequential`, which would not run."""
    holder = model
    for part in place.split("."):
        beside = {name: layer for name, layer in holder.named_children() if name != part}
        if isinstance(holder, nn.Sequential):
            for name, layer in beside.items():
                if not isinstance(layer, nn.Identity):
                    raise UnsupportedModelError(
                        f"`model` holds a detector, `model.{place}`, in an nn.Sequential, beside `{name}`, a "
                        f"{dotted_name(layer)}, which would not run. Pass `model.{place}`, and let the loader do what "
                        f"`{name}` does; or read the whole by an adapter of your own (`adapter=`)"
                    )
        holder = holder.get_submodule(part)


def _check_not_sharded(model: nn.Module) -> None:
    """Refuse a model of which each process has a part only: its passes differ, and each step needs all processes."""
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    parts = [type(each).__name__ == "DTensor" or hasattr(each, "ds_id") for each in model.parameters()]
    if any(parts) or kinds & {"FSDPModule", "FullyShardedDataParallel"}:
        raise UnsupportedModelError(
            "`model` is sharded: each process has a part of its weights only. Load the whole into a detector that is "
            "not sharded, and pass that: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
            "options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)) gives its weights"
        )


def _no_module(model: Any) -> str:
    """What to say of something that is no `nn.Module`."""
    if model is None:
        return "`model` must be a detector, an nn.Module; got None"
    if isinstance(model, (str, os.PathLike)):
        return (
            f"`model` must be a detector, an nn.Module; got the path {os.fspath(model)!r}. Load it first, with the "
            "package that wrote the file"
        )
    if isinstance(model, type):
        return f"`model` must be a detector, an nn.Module; got the class {dotted_name(model)}. Make one of it"
    inside = list(_modules_held(model))
    known = [place for place, module in inside if isinstance(module, nn.Module) and _is_known(module)]
    hint = ". It holds no nn.Module that can be seen"
    if known:
        hint = f". Its detector is `model.{known[0]}`: pass that"
    elif inside:
        place, module = inside[0]
        hint = (
            f". Its `{place}` is a {dotted_name(module)}, which no adapter knows: pass `model.{place}` with an adapter "
            "of your own (`adapter=`); examples/extend/detector.py has one"
        )
    return f"`model` must be a detector, an nn.Module; got a {dotted_name(model)}{hint}"


def _modules_held(holder: Any, *, depth: int = 2) -> Iterator[tuple[str, nn.Module]]:
    """The modules in the attributes of an object, and in those of its attributes."""
    for name, value in getattr(holder, "__dict__", {}).items():
        if isinstance(value, nn.Module):
            yield name, value
        elif depth > 1:
            yield from ((f"{name}.{inner}", module) for inner, module in _modules_held(value, depth=depth - 1))


def _is_known(module: nn.Module) -> bool:
    try:
        find_detector(module)
    except (InvalidInputError, UnsupportedModelError):
        return False
    return True


def _attribute(holder: Any, name: str) -> nn.Module:
    found: Any = holder
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, nn.Module):
        raise InvalidInputError(
            f"`detector` must name a module within {type(holder).__name__}; got {name!r}, which is {found!r}"
        )
    return found
