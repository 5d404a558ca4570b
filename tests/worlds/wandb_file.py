"""What a wandb run wrote offline, read from its file: blocks of a log as LevelDB has them, each record a protobuf."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

_BLOCK, _HEADER, _START = 32768, 7, 7


def records(path: Path) -> list[bytes]:
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    found, part, place = [], b"", _START
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:  # too little room for a header: padding
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + _HEADER])
        part += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            found.append(part)
            part = b""
    return found


def history(folder: Path, *, patience_s: float = 60) -> list[dict[str, Any]]:
    """The rows that a finished run logged, each with its `_step`, without what wandb adds about time."""
    from wandb.proto import wandb_internal_pb2

    [path] = folder.glob("**/*.wandb")
    begun = time.monotonic()
    while True:  # another process writes the file, a little later
        found = []
        for content in records(path):
            found.append(wandb_internal_pb2.Record())
            found[-1].ParseFromString(content)
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            break
        assert time.monotonic() - begun < patience_s, f"{path} is not finished"
        time.sleep(0.1)
    rows = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                names = [item.key] if item.key else list(item.nested_key)
                place = row
                for name in names[:-1]:
                    place = place.setdefault(name, {})
                place[names[-1]] = json.loads(item.value_json)
            rows.append({name: row[name] for name in row if name not in ("_timestamp", "_runtime", "_wandb")})
    return rows
