"""A copy of a server's directory, which is a directory that a server can use: a backup, or what restores one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from cval_torch.errors import InvalidInputError
from cval_torch.service.server.settings import DATABASE, POOLS

_TRIES = 20


def copy_data(source: Path, target: Path) -> int:
    """Copy what a server keeps: datasets, embeddings, tasks and results. The server may run, and waits for nothing.

    Args:
        source: the directory of a server, or a copy of one.
        target: which is not there yet. It is there once the copy is whole.

    Returns:
        How many tasks wait in it.

    Raises:
        InvalidInputError: the source is no such directory, or the target is there.
        OSError: something cannot be read or written.
    """
    if not (source / DATABASE).is_file():
        raise InvalidInputError(f"{source} is not the directory of a server: it has no {DATABASE}")
    if target.exists():
        raise InvalidInputError(f"{target} is there already: name a directory that is not")
    target.parent.mkdir(parents=True, exist_ok=True)
    making = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    (making / POOLS).mkdir(mode=0o700, parents=True)
    making.chmod(0o700)
    try:
        waiting = _copied(source, making)
        making.rename(target)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return len(waiting)


def _copied(source: Path, making: Path) -> set[str]:
    """The file as it is at one moment, and the frames of the tasks that wait in it.

    The frames of a task that ends meanwhile are gone; then the file is copied once more, with the end of that task.
    """
    for _ in range(_TRIES):
        waiting = _copy_database(source / DATABASE, making / DATABASE)
        if all(_copy_pool(source, making, f"{task_id}.pool") for task_id in waiting):
            for path in (making / POOLS).iterdir():
                if path.stem not in waiting:
                    path.unlink()
            return waiting
    raise InvalidInputError(f"the tasks of {source} end faster than they can be copied: try again when there are fewer")


def _copy_database(source: Path, target: Path) -> set[str]:
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)
        rows = written.execute("SELECT id FROM tasks WHERE state IN ('queued', 'running')").fetchall()
    return {task_id for (task_id,) in rows}


def _copy_pool(source: Path, making: Path, name: str) -> bool:
    """Whether it is there. It is whole where it is at all, and never changes."""
    target = making / POOLS / name
    if target.exists():
        return True
    try:
        shutil.copyfile(source / POOLS / name, target)
        target.chmod(0o600)
    except FileNotFoundError:
        return False
    return True
