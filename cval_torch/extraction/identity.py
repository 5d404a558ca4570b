"""What one inference pass is over and how it is made, as plain values that a later run compares with its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from cval_torch.errors import callable_name, dotted_name
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.ids import length_of, own_ids
from cval_torch.extraction.listing import row_marks
from cval_torch.extraction.options import PassOptions

_SHOWN = 80  # characters of a setting that are kept as they are


def model_identity(model: nn.Module, adapter: object) -> dict[str, Any]:
    """The class, weights and settings of a model, and of the adapter that reads it.

    Settings are what the modules hold as plain numbers, strings and tuples or lists of them, such as a detector's
    score threshold; what a forward pass caches there is taken for one too, so only what two runs both have compares.
    """
    settings = {
        f"{name}.{key}".removeprefix("."): value
        for name, module in model.named_modules()
        for key, value in _settings(module).items()
    }
    return {
        "the model's class": dotted_name(type(model)),
        "the model's weights": model_fingerprint(model),
        "the model's": settings,
        "the adapter": dotted_name(type(adapter)),
        "the adapter's": _settings(adapter),
    }


def dataset_identity(dataset: Any) -> dict[str, Any]:
    """The type, length and ids of a dataset, down through `Subset` and `ConcatDataset`; the data are not read."""
    ids, length = own_ids(dataset), length_of(dataset)
    marks = row_marks(dataset, range(length)) if ids is None and length is not None else None
    return {
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
        "the columns left out": ", ".join(options.dropped) or "none",
        "`frame_id`": _named(options.frame_id),
        "`split`": _named(options.split),
    }


def machine_identity(device: torch.device) -> dict[str, Any]:
    """What may change the last bits of a result: it must not change within a pass, but may after it."""
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "the kind of device": device.type,
    }


def changes(
    then: Mapping[str, Any], now: Mapping[str, Any], *, form: str = "{name} was {old} and is {new} now"
) -> list[str]:
    """What two identities do not agree on, in words, each in this `form`."""
    found = []
    for name in then.keys() & now.keys():
        old, new = then[name], now[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name} {change}" for change in changes(old, new, form=form)]
        elif old != new:
            found.append(form.format(name=name, old=old, new=new))
    return sorted(found)


def _settings(owner: Any) -> dict[str, str]:
    """The plain attributes of an object, as text."""
    found = {}
    for key, value in getattr(owner, "__dict__", {}).items():
        if key == "training" or key.startswith("_") or not _is_plain(value):
            continue
        text = repr(value)
        found[key] = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ... {_digest(text)}"
    return found


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return bool(value) and all(_is_plain(item) for item in value)
    return type(value) in (bool, int, float, str)


def _structure(dataset: Any) -> Any:
    if isinstance(dataset, Subset):
        return f"Subset {_digest(list(map(int, dataset.indices)))} of {_structure(dataset.dataset)}"
    if isinstance(dataset, ConcatDataset):
        return f"[{', '.join(_structure(part) for part in dataset.datasets)}]"
    return f"{dotted_name(type(dataset))} of {length_of(dataset)}"


def _digest(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _named(function: Callable[..., Any] | None) -> str:
    return "None" if function is None else callable_name(function)
