"""`PassCache`: a folder in which an inference pass survives the process that makes it."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cval_torch.errors import ExtractionError, InvalidInputError
from cval_torch.pool.files import read_json, write_json
from cval_torch.pool.layout import Gathered, Layout
from cval_torch.pool.locks import FolderLock
from cval_torch.pool.pool import Pool
from cval_torch.pool.shards import Part, Slices, sync_folder

FORMAT = "cval_torch.pass/2"
_SECONDS = 30.0  # a shard is written after so long, however few frames wait for it


class PassCache:
    """The manifest, the lock and the parts of one pass.

    A part is what one process wrote: `part-0` that of a single process or of rank 0, and so on. `part-all-...`, where
    there is one, holds all batches in order, and replaces the others.

    Args:
        folder: where.
        frames_per_shard: a shard is written once so many frames wait for it.

    Attributes:
        batches: the dataset rows of each batch, as the pass was begun with.
        token: distinguishes this pass from every other.
    """

    def __init__(self, folder: Path, *, frames_per_shard: int) -> None:
        if frames_per_shard < 1:
            raise InvalidInputError(f"`frames_per_shard` must be at least 1; got {frames_per_shard}")
        self.folder, self.frames_per_shard = folder, frames_per_shard
        self.batches: list[list[int]] = []
        self.token = ""
        self._lock: FolderLock | None = None
        self._part: Part | None = None
        self._layout: Layout | None = None
        self._waiting: list[tuple[int, Pool]] = []
        self._since = time.monotonic()

    def __enter__(self) -> PassCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()

    # What the pass is

    def read(self) -> dict[str, Any] | None:
        """The manifest, and with it `batches` and `token`; None where no pass was begun.

        Raises:
            InvalidInputError: the file there is not a manifest.
        """
        path = self.folder / "manifest.json"
        if not path.exists():
            return None
        manifest = read_json(path, what="the manifest of a pass")
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        if isinstance(found, str) and found != FORMAT and found.startswith(FORMAT.partition("/")[0]):
            raise InvalidInputError(
                f"`cache_dir` {str(self.folder)!r} holds a pass that another version of cval_torch made: its format is "
                f"{found!r}, and this version reads {FORMAT!r}. Give another `cache_dir`, or delete this one"
            )
        if found != FORMAT:
            raise InvalidInputError(f"{str(path)!r} must be the manifest of a pass of {FORMAT!r}; got {found!r}")
        rows = iter(map(int, manifest["rows"].split()))
        self.batches = [[next(rows) for _ in range(int(size))] for size in manifest["sizes"].split()]
        self.token = manifest["token"]
        return dict(manifest)

    def begin(self, identity: Mapping[str, Any], machine: Mapping[str, Any], batches: list[list[int]]) -> None:
        """Write the manifest of a new pass. Raises OSError."""
        manifest = {
            "format": FORMAT,
            "token": uuid.uuid4().hex,
            "of": identity,
            "made_with": machine,
            "sizes": " ".join(str(len(batch)) for batch in batches),
            "rows": " ".join(str(row) for batch in batches for row in batch),
        }
        write_json(self.folder / "manifest.json", manifest)
        sync_folder(self.folder)
        self.read()

    def refusal(self, differing: Sequence[str]) -> InvalidInputError:
        """The error for a run that is of another pass, and how it differs."""
        return InvalidInputError(
            f"`cache_dir` {str(self.folder)!r} holds another pass: {'; '.join(differing)}. To begin anew give "
            "another `cache_dir`, or delete this one"
        )

    def lock(self, *, alone: bool) -> None:
        """Keep other runs out. Raises `InvalidInputError` if one is there, and OSError."""
        if self._lock is None:
            self._lock = FolderLock(self.folder / "lock")
        if alone:
            self._lock.alone()
        else:
            self._lock.together()

    # What there is of it

    def parts(self, *, verify: bool) -> list[Part]:
        """The parts, as they lie on the disk."""
        return [Part(path, verify=verify) for path in sorted(self.folder.glob("part-*"))]

    def mend(self) -> list[Part]:
        """Read everything, and cut off what is damaged. For the process that holds the lock. Raises OSError."""
        parts = self.parts(verify=True)
        for part in parts:
            part.cut_off()
        return parts

    def missing(self, parts: Sequence[Part]) -> list[int]:
        """The numbers of the batches that no part has."""
        there = {number for part in parts for number, frames in part.batches if self._fits(number, frames)}
        return [number for number in range(len(self.batches)) if number not in there]

    def _fits(self, number: int, frames: int) -> bool:
        return number < len(self.batches) and frames == len(self.batches[number])

    # Writing

    def write_as(self, rank: int) -> None:
        """From now on `add` goes to the part of `rank`."""
        self._part = Part(self.folder / f"part-{rank}")
        self._layout, self._since = self._part.layout, time.monotonic()

    def add(self, number: int, pool: Pool) -> None:
        """Take batch `number` in; a shard is written when enough wait.

        Raises:
            InvalidInputError: other columns than before.
            OSError: the disk is full or read-only; earlier shards are as they were.
        """
        layout = Layout.of(pool)
        self._layout = self._layout or layout
        self._layout.check_same(layout)
        self._waiting.append((number, pool))
        frames = sum(len(waiting) for _, waiting in self._waiting)
        if frames >= self.frames_per_shard or time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises OSError."""
        waiting, self._waiting, self._since = self._waiting, [], time.monotonic()
        if self._part is not None and waiting:
            rows = Gathered()
            for _, pool in waiting:
                rows.add(pool)
            self._part.append(rows, [(number, len(pool)) for number, pool in waiting])

    def finish(self) -> Iterator[int]:
        """Make of all parts one that holds every batch in order, unless one does already. For one process to do.

        Yields:
            The frames of each shard that was copied; the last step is done only when there is no more.

        Raises:
            ExtractionError: a batch is missing.
            OSError: a full disk, as elsewhere.
        """
        parts = self.parts(verify=False)
        if self._whole(parts) is not None:
            return
        if missing := self.missing(parts):
            raise ExtractionError(
                f"batch {missing[0]} is missing from `cache_dir` {str(self.folder)!r}: was a file removed meanwhile?",
                batch=missing[0],
                frames_done=sum(part.num_frames for part in parts),
            )
        for stale in self.folder.glob("joining-*"):
            shutil.rmtree(stale)
        whole = Part(self.folder / f"joining-{uuid.uuid4().hex}")
        reading = [Slices(part) for part in parts]
        place = {number: slices for slices in reversed(reading) for number in slices.numbers}
        rows, numbers = Gathered(), list[tuple[int, int]]()
        for number in range(len(self.batches)):
            numbers.append((number, place[number].give(number, rows)))
            if len(rows) >= self.frames_per_shard or number == len(self.batches) - 1:
                whole.append(rows, numbers)
                yield len(rows)
                rows, numbers = Gathered(), []
        whole.folder.replace(self.folder / f"part-all-{uuid.uuid4().hex}")
        sync_folder(self.folder)
        for part in parts:
            shutil.rmtree(part.folder, ignore_errors=True)

    def pool(self) -> Pool:
        """The finished pass, mapped from the disk."""
        whole = self._whole(self.parts(verify=False))
        if whole is None:
            raise InvalidInputError(f"`cache_dir` {str(self.folder)!r} must hold a finished pass; it does not")
        return whole.pool()

    def _whole(self, parts: Sequence[Part]) -> Part | None:
        for part in parts:
            if part.batches == [(number, len(batch)) for number, batch in enumerate(self.batches)]:
                return part
        return None
