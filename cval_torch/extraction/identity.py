"""What one inference pass is over and how it is made, as plain values that a later run compares with its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from cval_torch.errors import callable_name, dotted_name
from cval_torch.extraction.ids import length_of, own_ids
from cval_torch.extraction.listing import row_marks
from cval_torch.extraction.loading import LoadingPlan
from cval_torch.extraction.model_state import read_functions, read_model, read_object, read_values
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.plain_text import digest_of
from cval_torch.extraction.user_code import UserCode, compiler
from cval_torch.hooks.recorder import evaluating

WEIGHTS = "the model's weights"
SETTINGS = "the model's"
ADAPTERS = "the adapter's"
TRANSFORMS = "the dataset's"
LOADING = "the loader's"
FUNCTIONS = "the functions'"
CODE = f"the compiled code ({compiler()}) of"  # another Python compiles other code, and does not compare it
UNREAD = "what cannot be read"

TOP_BOXES = "`top_boxes`"
ONCE_UNSAID = {TOP_BOXES: "None"}
"""What a pass was made with whose identity does not say it."""

_RUN_OF_ADAPTERS = ("modules", "forward", "read", "split")


def pass_identity(
    model: nn.Module, adapter: object, plan: LoadingPlan, options: PassOptions, device: torch.device
) -> dict[str, Any]:
    """What a pass is over and how it is made."""
    code = UserCode()
    with evaluating(model):  # some modules merge weights there
        found = model_identity(model, adapter, code)
    transforms = read_values(_callables_of(plan.dataset), code)
    loading = read_values({"collate_fn": getattr(plan.loader, "collate_fn", None)}, code)
    functions = {"`frame_id`": options.frame_id, "`split`": options.split}
    held = read_functions({name: value for name, value in functions.items() if value is not None}, code)
    return {
        **found,
        TRANSFORMS: transforms.settings | transforms.weights,
        LOADING: loading.settings | loading.weights,
        FUNCTIONS: held.settings | held.weights,
        **dataset_identity(plan.dataset),
        **option_identity(options, device),
        CODE: code.digests(),
    }


def model_identity(
    model: nn.Module, adapter: object, code: UserCode | None = None, *, parameters: bool = True
) -> dict[str, Any]:
    """What a model and the adapter that reads it consist of and hold; see `read_model`.

    Args:
        model: the detector, unwrapped.
        adapter: of any class.
        code: takes in the user's code; it is part of what is returned.
        parameters: whether to read the parameters, which are most of the cost.
    """
    code = UserCode() if code is None else code
    state, beside = read_model(model, code, parameters=parameters), read_object(adapter, code, beside=model)
    code.add_class(type(adapter), _RUN_OF_ADAPTERS)
    state.settings.pop("", None)  # the class, which has a name of its own here
    return {
        "the model's class": dotted_name(type(model)),
        WEIGHTS: state.weights,
        SETTINGS: state.settings,
        "the adapter": dotted_name(type(adapter)),
        ADAPTERS: beside.settings | beside.weights,
        CODE: code.digests(),
        UNREAD: sorted({*state.unread, *beside.unread}),
    }


DATASET_NAMES = ("the dataset", "the dataset's length", "the dataset's frame ids", "what the dataset lists")
"""What of an identity may differ for a dataset to which files were added, or from which some were removed."""


def without_parameters(model: nn.Module, adapter: object) -> dict[str, dict[str, str]]:
    """What a forward pass may change of `model_identity`, by kind and name."""
    found = model_identity(model, adapter, parameters=False)
    return {kind: found[kind] for kind in (WEIGHTS, SETTINGS, ADAPTERS, CODE)}


def dataset_identity(dataset: Any) -> dict[str, Any]:
    """The type, length and ids of a dataset, down through `Subset` and `ConcatDataset`; the data are not read."""
    ids, length = own_ids(dataset), length_of(dataset)
    marks = row_marks(dataset, range(length)) if ids is None and length is not None else None
    return {
        "the dataset's kind": ", ".join(sorted(_kinds(dataset))),
        "the dataset": _structure(dataset),
        "the dataset's length": length,
        "the dataset's frame ids": None if ids is None else _digest(ids),
        "what the dataset lists": None if marks is None else _digest(marks),
    }


def option_identity(options: PassOptions, device: torch.device) -> dict[str, Any]:
    """The options of a pass that change what it returns; an autocast of the caller's counts as one of ours."""
    autocast = options.autocast
    if autocast is None and torch.is_autocast_enabled(device.type):
        autocast = torch.get_autocast_dtype(device.type)
    return {
        "`autocast`": str(autocast),
        "`embedding_dtype`": str(options.embedding_dtype),
        TOP_BOXES: str(options.top_boxes),
        "the columns left out": ", ".join(options.dropped) or "none",
        "`frame_id`": _named(options.frame_id),
        "`split`": _named(options.split),
    }


def machine_identity(device: torch.device, *parts: object) -> dict[str, Any]:
    """What may change the last bits of a result: it must not change within a pass, but may after it.

    Args:
        device: where the pass runs.
        parts: models, with all modules in them, and other objects; the versions of the packages of their classes count.
    """
    import torchvision  # noqa: PLC0415, it takes a second, and only a pass needs it

    kinds = {type(each) for part in parts for each in (part.modules() if isinstance(part, nn.Module) else [part])}
    packages = {name.partition(".")[0] for kind in kinds if isinstance(name := kind.__module__, str)}
    versions = {name: getattr(sys.modules.get(name), "__version__", None) for name in sorted(packages)}
    return {
        **{name: version for name, version in versions.items() if isinstance(version, str)},
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "the kind of device": device.type,
    }


def changes(
    then: Mapping[str, Any], now: Mapping[str, Any], *, form: str = "{name} was {old} and is {new} now"
) -> list[str]:
    """What two identities do not agree on, in words, each in this `form`; only what both have compares."""
    found = []
    for name in then.keys() & now.keys():
        old, new = then[name], now[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name} {change}" for change in changes(old, new, form=form)]
        elif old != new:
            found.append(form.format(name=name, old=old, new=new))
    return sorted(found)


def _callables_of(dataset: Any, path: str = "", within: tuple[int, ...] = ()) -> dict[str, Any]:
    """What a dataset, and datasets within it, hold that is called: transforms and loading functions, by name."""
    found: dict[str, Any] = {}
    if id(dataset) in within:  # it refers to itself, such as to a view of itself
        return found
    for name, value in sorted(getattr(dataset, "__dict__", {}).items()):
        parts = {f"{path}{name}": value}
        if isinstance(dataset, ConcatDataset) and isinstance(value, (list, tuple)):
            parts = {f"{path}{name}[{place}]": part for place, part in enumerate(value)}
        for where, part in parts.items():
            if isinstance(part, Dataset):  # a `Subset` has no say in how its frames are loaded
                before = path if isinstance(dataset, Subset) else f"{where}."
                found |= _callables_of(part, before, (*within, id(dataset)))
            elif callable(part) and not isinstance(part, type):
                found[where] = part
    return found


def _kinds(dataset: Any) -> set[str]:
    """The classes of the datasets within all `Subset`s and `ConcatDataset`s."""
    if isinstance(dataset, Subset):
        return _kinds(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return {kind for part in dataset.datasets for kind in _kinds(part)}
    return {dotted_name(type(dataset))}


def _structure(dataset: Any) -> Any:
    if isinstance(dataset, Subset):
        return f"Subset {_digest(list(map(int, dataset.indices)))} of {_structure(dataset.dataset)}"
    if isinstance(dataset, ConcatDataset):
        return f"[{', '.join(_structure(part) for part in dataset.datasets)}]"
    return f"{dotted_name(type(dataset))} of {length_of(dataset)}"


def _digest(value: Any) -> str:
    return digest_of(json.dumps(value))


def _named(function: Callable[..., Any] | None) -> str:
    return "None" if function is None else callable_name(function)
