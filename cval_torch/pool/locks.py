"""A lock on a folder that the system lets go when the process ends, however it ends."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO

from cval_torch.errors import InvalidInputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Held by one process, or by the processes of one run, each of which holds it in the end.

    The locks are POSIX record locks: the children of a process (a loader's workers, which outlive it for a moment) do
    not hold them, and network file systems know them. Where the system has none (Windows) nothing is locked.

    Args:
        path: a file; it is made if need be, and stays.

    Raises:
        InvalidInputError: another process holds it; the message says which.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file: IO[str] | None = path.open("a+", encoding="utf-8")

    def alone(self) -> None:
        """Hold it against every other process."""
        self._take(exclusive=True)
        if self._file is not None:
            self._file.truncate(0)
            json.dump({"process": os.getpid(), "machine": socket.gethostname()}, self._file)
            self._file.flush()

    def together(self) -> None:
        """Hold it against those that want to be `alone`."""
        self._take(exclusive=False)

    def release(self) -> None:
        """Let go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, *, exclusive: bool) -> None:
        if fcntl is None or self._file is None:
            return
        try:
            fcntl.lockf(self._file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = "another process"
            with suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(self._path.read_text(encoding="utf-8"))
                holder = f"process {told['process']} on {told['machine']}"
            self.release()
            raise InvalidInputError(
                f"`cache_dir` {str(self._path.parent)!r} is in use by {holder}: wait for it, or use another folder"
            ) from None
