"""Text files written whole or not at all; small ones of JSON, read with an error that says what was expected."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cval_torch.errors import InvalidInputError


@contextmanager
def replacing(path: str | os.PathLike[str], *, newline: str | None = None) -> Iterator[IO[str]]:
    """A text file to write to, which takes the place of `path` at the end; an older one stays intact if writing fails.

    Args:
        path: in a folder that is there.
        newline: as `open` has it.

    Raises:
        OSError: the disk is full or read-only.
    """
    target = Path(path)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value`; an older file stays intact if writing fails.

    Raises:
        OSError: the disk is full or read-only.
    """
    with replacing(path) as file:
        json.dump(value, file, indent=1, allow_nan=False)


def write_record(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write a dict of plain values with a checksum of them. Raises as `write_json` does."""
    write_json(path, {**record, _CHECKSUM: _checksum(record)})


def read_record(path: str | os.PathLike[str], *, what: str, form: str) -> Any:
    """Read what `write_record` wrote. Raises as `read_json` does, and `InvalidInputError` for other content than that.

    A file whose `format` is not `form`, for the caller to refuse, is returned as it is.
    """
    found = read_json(path, what=what)
    if isinstance(found, dict) and found.get("format") == form:
        checksum = found.pop(_CHECKSUM, None)
        if checksum != _checksum(found):
            raise InvalidInputError(f"{os.fspath(path)!r} is not {what} as it was written: it was damaged or edited")
    return found


_CHECKSUM = "checksum"


def _checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


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
