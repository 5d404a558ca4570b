"""Small files of JSON: written whole or not at all, read with an error that says what was expected."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value`; an older file stays intact if writing fails.

    Raises:
        OSError: the disk is full or read-only.
    """
    target = Path(path)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(value, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | os.PathLike[str], *, what: str) -> Any:
    """Read a file that should be `what`, such as `"a saved LabelPool"`.

    Raises:
        InvalidInputError: it is no JSON.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{os.fspath(path)!r} is not {what}: {error}") from error
