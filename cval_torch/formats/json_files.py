"""JSON files as other programs write them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError

_COMPRESSED = {b"\x1f\x8b": "a gzip file", b"PK\x03\x04": "a zip file"}


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file: in UTF-8, with or without a byte order mark, or in UTF-16 or UTF-32.

    Raises:
        InvalidInputError: the file is not JSON; the message names it and the place.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    name = os.fspath(path)
    for start, kind in _COMPRESSED.items():
        if content.startswith(start):
            raise InvalidInputError(f"{name} is {kind}: unpack it, and pass the JSON file in it")
    return parse_json(content, name)


def parse_json(content: bytes, name: str) -> Any:
    """The value in the content of a JSON file; see `read_json`.

    Args:
        content: the bytes.
        name: what to call the file in messages.
    """
    try:
        return json.loads(content)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{name} is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidInputError(f"{name} is not JSON that can be read: it is nested too deeply") from error


def integer_or(value: Any, default: int) -> int:
    """A number of a JSON file as an integer of 64 bits; `default` for all other values."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**62  # NaN is not less
    return int(value) if usable else default


def number_or_nan(value: Any) -> float:
    """A number of a JSON file as a float; NaN for all other values."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer of more than 300 digits
        return math.nan
