"""The file of a `Pool`: its columns and what is no column, with checksums, written whole or not at all."""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError

FILE_FORMAT = "cval_torch.pool/1"
_NAMES = ("frame_ids", "activation", "ids_from", "skipped")


def write_pool_file(path: str | os.PathLike[str], columns: Mapping[str, Tensor], named: Mapping[str, Any]) -> None:
    """Write columns to one file: an older file stays intact if writing fails.

    Args:
        path: the file.
        columns: by name.
        named: strings, or None, for each of `frame_ids`, `activation`, `ids_from` and `skipped`.

    Raises:
        OSError: the disk is full or read-only.
    """
    target = Path(path)
    payload: dict[str, Any] = {
        "format": FILE_FORMAT,
        **{name: named[name] for name in _NAMES},
        "columns": {name: column.detach().cpu().contiguous() for name, column in columns.items()},
    }
    payload["checksums"] = _checksums(payload)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except RuntimeError as error:  # how torch.save reports that the file could not take the bytes
        raise OSError(f"{os.fspath(path)!r} could not be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_pool_file(path: str | os.PathLike[str], *, mmap: bool) -> dict[str, Any]:
    """What `write_pool_file` wrote, with its checksums, which are not compared.

    Args:
        path: the file.
        mmap: leave the columns on the disk.

    Raises:
        InvalidInputError: the file is not a pool of this version.
        OSError: it cannot be read.
    """
    try:
        payload = torch.load(Path(path), map_location="cpu", weights_only=True, mmap=mmap)
    except OSError:
        raise
    except Exception as error:
        raise InvalidInputError(f"{os.fspath(path)!r} is not a saved Pool: {error}") from error
    if not isinstance(payload, dict) or payload.get("format") != FILE_FORMAT:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise InvalidInputError(f"{os.fspath(path)!r} is not a saved Pool of format {FILE_FORMAT!r}; got {found!r}")
    return payload


def check_bytes(payload: Mapping[str, Any]) -> None:
    """Raise an `InvalidInputError` if what was read is not what was written; this reads all of it."""
    if payload["checksums"] != _checksums(payload):
        raise InvalidInputError("its numbers or ids are not those that were written")


def _checksums(payload: Mapping[str, Any]) -> dict[str, int]:
    """The CRC-32 of what is no column, and of each column's bytes."""
    columns: Mapping[str, Tensor] = payload["columns"]
    named = repr([payload[name] for name in _NAMES])
    parts: dict[str, Any] = {name: column.reshape(-1).view(torch.uint8).numpy() for name, column in columns.items()}
    return {name: zlib.crc32(part) for name, part in [("", named.encode()), *parts.items()]}
