"""`PassCache`: a folder in which an inference pass survives the process that makes it."""

from __future__ import annotations

import itertools
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cval_torch.errors import ExtractionError, InvalidInputError
from cval_torch.pool.files import read_record, write_record
from cval_torch.pool.layout import Gathered, Layout
from cval_torch.pool.locks import FolderLock
from cval_torch.pool.pool import Pool
from cval_torch.pool.shards import Part, Slices, sync_folder
from cval_torch.pool.skipped import SkippedFrame

FORMAT = "cval_torch.pass/2"
_PREFIX = 8  # characters of a token that name the files of its pass
_SECONDS = 30.0  # a shard is written after so long, however few frames wait for it


class PassCache:
    """The manifest, the lock and the parts of one pass.

    A part is what one process wrote: `part-<token>-0` that of a single process or of rank 0, and so on.
    `part-<token>-all-...`, where there is one, holds all batches in order, and replaces the others. Parts that begin
    with another token are of an older pass in this folder, and count for nothing.

    Args:
        folder: where.
        frames_per_shard: a shard is written once so many frames wait for it.

    Attributes:
        batches: the dataset rows of each batch, as the pass was begun with.
        batch_size: what the loader said it is; None: it did not.
        token: distinguishes this pass from every other.
    """

    def __init__(self, folder: Path, *, frames_per_shard: int) -> None:
        if frames_per_shard < 1:
            raise InvalidInputError(f"`frames_per_shard` must be at least 1; got {frames_per_shard}")
        self.folder, self.frames_per_shard = folder, frames_per_shard
        self.batches: list[list[int]] = []
        self.batch_size: int | None = None
        self.token = ""
        self._lock: FolderLock | None = None
        self._part: Part | None = None
        self._layout: Layout | None = None
        self._waiting: list[tuple[int, Pool | None, list[SkippedFrame]]] = []
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
        manifest = read_record(path, what="the manifest of a pass", form=FORMAT)
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
        self.batch_size, self.token = manifest.get("batch_size"), manifest["token"]
        return dict(manifest)

    def begin(
        self,
        identity: Mapping[str, Any],
        machine: Mapping[str, Any],
        batches: list[list[int]],
        *,
        batch_size: int | None = None,
        marks: Sequence[bytes] | None = None,
        token: str | None = None,
    ) -> None:
        """Write the manifest of a new pass, in place of an older one.

        Args:
            identity: what the pass is over, and its options.
            machine: what must not change before it is finished.
            batches: the dataset rows of each batch.
            batch_size: what the loader says it is.
            marks: what tells the frames of these rows from others, see `frame_marks`; None: nothing does.
            token: distinguishes the pass; None: a new one.

        Raises:
            OSError: the disk is full or read-only.
        """
        token = uuid.uuid4().hex if token is None else token
        if marks is not None:
            (self.folder / f"frames-{token[:_PREFIX]}").write_bytes(b"".join(marks))
        manifest = {
            "format": FORMAT,
            "token": token,
            "of": identity,
            "made_with": machine,
            "batch_size": batch_size,
            "sizes": " ".join(str(len(batch)) for batch in batches),
            "rows": " ".join(str(row) for batch in batches for row in batch),
        }
        write_record(self.folder / "manifest.json", manifest)
        sync_folder(self.folder)
        self.read()

    def marks(self) -> list[bytes] | None:
        """The marks of the rows, in the order of `batches`; None if there are none."""
        path = self.folder / f"frames-{self.token[:_PREFIX]}"
        content = path.read_bytes() if path.exists() else b""
        marks = [content[start : start + 16] for start in range(0, len(content), 16)]
        return marks if len(marks) == sum(map(len, self.batches)) else None

    def remove_others(self) -> None:
        """Delete what other passes left in this folder. For the process that holds the lock."""
        own = self.token[:_PREFIX]
        for path in [*self.folder.glob("part-*"), *self.folder.glob("joining-*")]:
            if not path.name.startswith(f"part-{own}-"):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("frames-*"):
            if path.name != f"frames-{own}":
                path.unlink(missing_ok=True)

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
        return [Part(path, verify=verify) for path in sorted(self.folder.glob(f"part-{self.token[:_PREFIX]}-*"))]

    def mend(self) -> list[Part]:
        """Read everything, and cut off what is damaged. For the process that holds the lock. Raises OSError."""
        parts = self.parts(verify=True)
        for part in parts:
            part.cut_off()
        return parts

    def missing(self, parts: Sequence[Part]) -> list[int]:
        """The numbers of the batches that no part has."""
        there = {number for part in parts for number, frames in part.sizes().items() if self.fits(number, frames)}
        return [number for number in range(len(self.batches)) if number not in there]

    def fits(self, number: int, frames: int) -> bool:
        """Whether a batch has so many frames."""
        return number < len(self.batches) and frames == len(self.batches[number])

    # Writing

    def write_as(self, rank: int) -> None:
        """From now on `add` goes to the part of `rank`."""
        self._part = Part(self.folder / f"part-{self.token[:_PREFIX]}-{rank}")
        self._layout, self._since = self._part.layout, time.monotonic()

    def add(self, number: int, pool: Pool | None, skipped: Sequence[SkippedFrame] = ()) -> None:
        """Take batch `number` in; a shard is written when enough wait.

        Args:
            number: of the batch.
            pool: its frames; None if all of them are left out.
            skipped: those that are left out.

        Raises:
            InvalidInputError: other columns than before.
            OSError: the disk is full or read-only; earlier shards are as they were.
        """
        if pool is not None:
            layout = Layout.of(pool)
            self._layout = self._layout or layout
            self._layout.check_same(layout)
        self._waiting.append((number, pool, list(skipped)))
        frames = sum(len(waiting) for _, waiting, _ in self._waiting if waiting is not None)
        if frames >= self.frames_per_shard or time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises OSError."""
        waiting, self._waiting, self._since = self._waiting, [], time.monotonic()
        if self._part is not None and waiting:
            rows = Gathered(self._part.layout)
            for _, pool, _ in waiting:
                if pool is not None:
                    rows.add(pool)
            self._part.append(
                rows,
                [(number, len(pool)) for number, pool, _ in waiting if pool is not None],
                [(number, frame) for number, _, skipped in waiting for frame in skipped],
            )

    def finish(self, *, alone: bool = False) -> Iterator[int]:
        """Make of all parts one that holds every batch in order, unless one does already. For one process to do.

        Args:
            alone: take the lock first; False: it is held already.

        Yields:
            The frames of each shard that was copied; the last step is done only when there is no more.

        Raises:
            ExtractionError: a batch is missing.
            OSError: a full disk, as elsewhere.
        """
        parts = self.parts(verify=False)
        if self._whole(parts) is not None:
            return
        if alone:  # an earlier run was stopped while it did this
            self.lock(alone=True)
        if missing := self.missing(parts):
            raise ExtractionError(
                f"batch {missing[0]} is missing from `cache_dir` {str(self.folder)!r}: was a file removed meanwhile?",
                batch=missing[0],
                frames_done=sum(part.num_frames for part in parts),
            )
        for stale in self.folder.glob("joining-*"):
            shutil.rmtree(stale)
        whole = Part(self.folder / f"joining-{uuid.uuid4().hex}")
        reading = {
            number: (slices, skipped)
            for part in reversed(parts)
            for slices, skipped in [(Slices(part), _by_batch(part.skipped))]
            for number, frames in part.sizes().items()
            if self.fits(number, frames)
        }
        rows, numbers, left_out = Gathered(), list[tuple[int, int]](), list[tuple[int, SkippedFrame]]()
        for number in range(len(self.batches)):
            slices, skipped = reading[number]
            left_out += [(number, frame) for frame in skipped.get(number, ())]
            if frames := slices.give(number, rows):
                numbers.append((number, frames))
            if len(rows) >= self.frames_per_shard or number == len(self.batches) - 1:
                whole.append(rows, numbers, left_out)
                yield len(rows)
                rows, numbers, left_out = Gathered(whole.layout), [], []
        whole.folder.replace(self.folder / f"part-{self.token[:_PREFIX]}-all-{uuid.uuid4().hex}")
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
            numbers = [number for number, _ in part.batches]
            sizes = part.sizes()
            in_order = all(one < other for one, other in itertools.pairwise(numbers))
            if in_order and sizes == {number: len(batch) for number, batch in enumerate(self.batches)}:
                return part
        return None


def _by_batch(skipped: Sequence[tuple[int, SkippedFrame]]) -> dict[int, list[SkippedFrame]]:
    found: dict[int, list[SkippedFrame]] = {}
    for number, frame in skipped:
        found.setdefault(number, []).append(frame)
    return found
