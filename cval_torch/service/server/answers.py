"""Answers that may be large: written in pieces, so that memory stays small and others get their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from pydantic_core import to_json

from cval_torch.service.decimals import shortest_doubles
from cval_torch.service.server.store import Store
from cval_torch.service.server.tasks import Tasks

PIECE_BYTES = 1 << 14
_VECTORS_AT_ONCE = 32
_NUMBERS_AT_ONCE = 1 << 14  # to write them keeps all others waiting for milliseconds

Frames = list[tuple[int, str]]
"""(key, frame id)."""


def embeddings_answer(store: Store, frames: Frames) -> Iterator[bytes]:
    """The frames with their embeddings, as the protocol has them."""
    yield from _joined(b"[", (_with_vectors(store, key, frame_id) for key, frame_id in frames), b"]")


def meta_answer(store: Store, frames: Frames) -> Iterator[bytes]:
    """The frames with the names of their embeddings."""
    head = b'{"frames_quantity":%d,"frames":[' % len(frames)
    yield from _joined(head, ([_with_names(store, key, frame_id)] for key, frame_id in frames), b"]}")


def embedding_answer(frame_id: str, embedding_id: str, vector: bytes) -> bytes:
    """One embedding, in its frame."""
    return b'{"frame_id":%b,"embeddings":[%b]}' % (to_json(frame_id), _embedding(embedding_id, vector))


def tasks_answer(tasks: Tasks, task_ids: Iterable[str]) -> Iterator[bytes]:
    """The tasks, one read after another; those that were forgotten meanwhile are left out."""
    found = (tasks.get(task_id) for task_id in task_ids)
    yield from _joined(b"[", ([task.payload()] for task in found if task is not None), b"]")


def list_answer(items: Iterable[Any], as_json: Callable[[Any], bytes]) -> Iterator[bytes]:
    """A list of small things."""
    yield from _joined(b"[", ([as_json(item)] for item in items), b"]")


def _joined(head: bytes, items: Iterable[Iterable[bytes]], tail: bytes) -> Iterator[bytes]:
    """Items, each in parts, with commas between them, in pieces that are worth sending."""
    held = bytearray(head)
    for number, parts in enumerate(items):
        held += b"," if number else b""
        for part in parts:
            held += part
            if len(held) >= PIECE_BYTES:
                yield bytes(held)
                held.clear()
    yield bytes(held + tail)


def _with_vectors(store: Store, key: int, frame_id: str) -> Iterator[bytes]:
    """A frame in parts, however many embeddings it has."""
    yield b'{"frame_id":%b,"embeddings":[' % to_json(frame_id)
    after, count = 0, 0
    while rows := store.vectors(key, after, _VECTORS_AT_ONCE):
        for after, name, vector in rows:  # noqa: B007 - the last one's place is where the next rows begin
            yield (b"," if count else b"") + _embedding(name, vector)
            count += 1
        if len(rows) < _VECTORS_AT_ONCE:
            break
    yield b"]}"


def _with_names(store: Store, key: int, frame_id: str) -> bytes:
    names = store.names(key)
    return to_json({"frame_id": frame_id, "embeddings_quantity": len(names), "embeddings": names})


def _embedding(name: str, vector: bytes) -> bytes:
    numbers = np.frombuffer(vector, dtype="<f4")
    pieces = [
        to_json(shortest_doubles(numbers[start : start + _NUMBERS_AT_ONCE]).tolist())[1:-1]
        for start in range(0, len(numbers), _NUMBERS_AT_ONCE)
    ]
    return b'{"embedding_id":%b,"embedding":[%b]}' % (to_json(name), b",".join(pieces))
