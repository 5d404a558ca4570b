"""Values as short text that is the same in every process: what a record of a pass keeps of a setting."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cval_torch.errors import dotted_name
from cval_torch.extraction.fingerprint import tensor_digest

SHOWN = 80  # characters of a text that are kept as they are
_SHOWN_NUMBERS = 4  # of a tensor
_DEEPEST = 12  # containers within containers
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|xla|hpu|npu|meta)(:\d+)?")
_SELF_NAMED = (torch.dtype, torch.layout, torch.memory_format, range)


def plain_text(value: Any) -> str | None:
    """A plain value, or containers of them, as text; None for any other value.

    Lists and tuples read alike, because a configuration that was saved has lists in the place of tuples. So do all
    devices, and paths of one file in other folders: they do not decide what a model answers. Sets and dicts are sorted.

    >>> plain_text([1, 2.5, "a"]), plain_text({"b": 1, "a": (2,)})
    ("(1, 2.5, 'a')", "{'a': (2,), 'b': 1}")
    >>> plain_text(torch.device("cuda", 1)) == plain_text("cpu")
    True
    >>> plain_text(object()) is None
    True
    """
    return _plain(value, 0)


def shortened(text: str) -> str:
    """`text`, or its beginning and a digest where it is long.

    >>> shortened("x" * 100) == shortened("x" * 101)
    False
    """
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ... {digest_of(text)}"


def digest_of(text: str) -> str:
    """16 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def tensor_text(tensor: Tensor) -> str:
    """The dtype, the shape and a digest of the numbers; a few numbers as they are.

    >>> tensor_text(torch.tensor([0.5, 0.25]))
    'float32 (0.5, 0.25)'
    """
    kind, _, digest = tensor_digest(tensor).removeprefix("torch.").rpartition(" ")
    if len(digest) != 64:  # it has no numbers
        return f"{kind} {digest}"
    if type(tensor.detach()) is Tensor and tensor.layout == torch.strided and 0 < tensor.numel() <= _SHOWN_NUMBERS:
        numbers = _plain(_listed(tensor), 0)
        if numbers is not None and len(numbers) <= SHOWN:
            return f"{kind.partition(' ')[0]} {numbers}"
    return f"{kind} {digest[:16]}"


def array_text(array: np.ndarray[Any, Any]) -> str:
    """The same of a numpy array."""
    if array.dtype.hasobject:
        return f"{array.dtype} {array.shape} {shortened(_plain(array.tolist(), 0) or 'of objects')}"
    return f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"


def _listed(tensor: Tensor) -> Any:
    return None if tensor.is_quantized or tensor.device.type == "meta" else tensor.detach().cpu().tolist()


def _plain(value: Any, depth: int) -> str | None:
    if depth > _DEEPEST:
        return None
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}" if value.name is not None else f"{value.value!r}"
    if isinstance(value, str):
        return _string(str(value))
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, torch.device):
        return "a device"
    if isinstance(value, PurePath):
        return f"the file {value.name!r}"
    if value is None or value is ... or isinstance(value, _SELF_NAMED):
        return repr(value)
    if isinstance(value, np.generic):
        return _plain(value.item(), depth + 1) if not isinstance(value.item(), np.generic) else repr(value)
    if type(value) in (bool, int, float, complex):
        return repr(value)
    if isinstance(value, slice):
        return _plain((value.start, value.stop, value.step), depth + 1)
    if isinstance(value, type):
        return dotted_name(value)
    return _container(value, depth)


def _string(value: str) -> str:
    if _DEVICE.fullmatch(value):
        return "a device"
    if "/" in value or "\\" in value:
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return f"the file {kind(value).name!r}"
    return repr(value)


def _container(value: Any, depth: int) -> str | None:
    if isinstance(value, Mapping):
        keys, values = _all(value.keys(), depth), _all(value.values(), depth)
        if keys is None or values is None:
            return None
        return "{" + ", ".join(f"{key}: {item}" for key, item in sorted(zip(keys, values, strict=True))) + "}"
    if isinstance(value, (set, frozenset)):
        items = _all(value, depth)
        return None if items is None else "{" + ", ".join(sorted(items)) + "}" if items else "{}"
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        items = _all(value, depth)
        if items is None:
            return None
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return None


def _all(values: Any, depth: int) -> list[str] | None:
    found = []
    for value in values:
        text = _plain(value, depth + 1)
        if text is None:
            return None
        found.append(text)
    return found
