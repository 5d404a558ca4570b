"""Another process, made by a fork: what it finds out comes back, and it can be told when to go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a process of its own, as JSON brings it, or `[type, message]` of what it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            told = {"value": work()}
        except BaseException as error:
            told = {"error": [type(error).__name__, str(error)]}
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = json.loads(pipe.read())
    os.waitpid(child, 0)
    return told.get("value", told.get("error"))


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[int]:
    """A process that has done `work` and lives until the end of the block; its id."""
    done_reading, done_writing = os.pipe()
    end_reading, end_writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(done_reading)
        os.close(end_writing)
        try:
            held = work()  # until the end
            os.write(done_writing, b"done")
            os.read(end_reading, 1)
            del held
        finally:
            os._exit(0)
    os.close(done_writing)
    os.close(end_reading)
    try:
        assert os.read(done_reading, 4) == b"done", "the other process failed"
        yield child
    finally:
        os.close(end_writing)
        os.close(done_reading)
        os.waitpid(child, 0)
