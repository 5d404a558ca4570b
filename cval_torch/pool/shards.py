"""`Part`: rows of a pool in a folder that grows shard by shard, and is whole again after whatever stopped it.

One file a column, which only grows, and a journal with a line a shard: the batches in it, and the length and
checksum of what each file gained. A shard is written in two steps: its bytes are appended to the columns and forced
to the disk; then its line is appended to the journal and forced to the disk. Until that line is there, whole and with
a right checksum of its own, the shard does not exist, and what it left in the columns is cut off. So a process may be
killed at any moment, and a finished part is mapped into memory as it lies there, without being written once more.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cval_torch.pool.column_checks import rows_of
from cval_torch.pool.layout import Gathered, Layout
from cval_torch.pool.offsets import offsets_among, offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.pool.skipped import SkippedFrame

JOURNAL = "journal"
_IDS, _COUNTS = "frame_ids", "counts"
_CHUNK = 2**23  # bytes read at a time for a checksum


class Part:
    """The shards in one folder.

    Opening reads, and writes nothing. A shard that is damaged ends the part: it and those after it do not count.

    Args:
        folder: where the part is, or will be.
        verify: whether to compare the checksums of all columns, which reads them. False: only sizes are looked at.

    Attributes:
        batches: `(number of the batch, its frames)`, in the order in which they lie in the columns.
        skipped: `(number of the batch, frame)` of the frames that are left out of their batches.
        layout: the columns; None while there are none.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        self.folder = folder
        self.batches: list[tuple[int, int]] = []
        self.skipped: list[tuple[int, SkippedFrame]] = []
        self.layout: Layout | None = None
        self._sizes: dict[str, int] = {}
        self._journal_size = 0
        for line, record in _lines_of(folder / JOURNAL):
            layout = None if record["layout"] is None else Layout.from_json(record["layout"])
            if not self._goes_with(layout) or not self._is_whole(record["files"], verify=verify):
                break
            self._count(record, layout, len(line))

    @property
    def num_frames(self) -> int:
        """Frames in all shards."""
        return sum(frames for _, frames in self.batches)

    def sizes(self) -> dict[int, int]:
        """How many frames each batch has, with those that are left out."""
        sizes = dict(self.batches)
        for number, _ in self.skipped:
            sizes[number] = sizes.get(number, 0) + 1
        return sizes

    def append(
        self,
        gathered: Gathered,
        batches: Sequence[tuple[int, int]],
        skipped: Sequence[tuple[int, SkippedFrame]] = (),
    ) -> None:
        """Add a shard; when this returns it is on the disk.

        Args:
            gathered: its rows, of this part's layout.
            batches: which batches they are, and the frames of each.
            skipped: which frames are left out, and of which batch.

        Raises:
            OSError: it could not be written; the shards before it are as they were.
        """
        layout = gathered.layout
        if layout is None and not skipped:
            return
        fresh = not self._journal_size
        if fresh:
            self.folder.mkdir(parents=True, exist_ok=True)
        ids = "".join(f"{json.dumps(frame_id)}\n" for frame_id in gathered.frame_ids).encode()
        contents: dict[str, Any] = {}
        if layout is not None:
            counts, columns = gathered.join()
            contents = {_IDS: ids, _COUNTS: counts, **columns}
        try:
            files = {name: self._extend(name, _as_bytes(content)) for name, content in contents.items()}
            record = {
                "batches": [list(batch) for batch in batches],
                "skipped": [[number, *frame.to_json()] for number, frame in skipped],
                "layout": layout and layout.to_json(),
                "files": files,
            }
            line = _line_of(record)
            _write_at(self.folder / JOURNAL, self._journal_size, line)
            if fresh:
                sync_folder(self.folder)
                sync_folder(self.folder.parent)
        except OSError:
            with suppress(OSError):  # a full disk is given its room back; if not now, then by the next append
                self.cut_off()
            raise
        self._count(record, layout, len(line))

    def cut_off(self) -> None:
        """Take away what is not whole, for good: half a shard, or everything from a damaged one on. Raises OSError."""
        for name, size in ((JOURNAL, self._journal_size), *self._sizes.items()):
            path = self.folder / name
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)

    def _count(self, record: Mapping[str, Any], layout: Layout | None, line_size: int) -> None:
        self.layout = layout or self.layout
        self.batches += [(number, frames) for number, frames in record["batches"]]
        self.skipped += [(number, SkippedFrame.from_json(values)) for number, *values in record["skipped"]]
        self._journal_size += line_size
        for name, (size, _) in record["files"].items():
            self._sizes[name] = self._sizes.get(name, 0) + size

    def _extend(self, name: str, content: memoryview | bytes) -> tuple[int, int]:
        """Append to one column; what it gained, and the checksum of that."""
        return _write_at(self.folder / name, self._sizes.get(name, 0), content)

    def _goes_with(self, layout: Layout | None) -> bool:
        return layout is None or self.layout in (None, layout)

    def _is_whole(self, files: Mapping[str, Sequence[int]], *, verify: bool) -> bool:
        """Whether what a shard added to each file is there, and is what was written."""
        for name, (size, checksum) in files.items():
            start = self._sizes.get(name, 0)
            path = self.folder / name
            if not path.exists() or path.stat().st_size < start + size:
                return False
            if verify and _checksum(path, start, size) != checksum:
                return False
        return True

    def frame_ids(self) -> list[str]:
        """The ids of all frames, in the order of `batches`."""
        size = self._sizes.get(_IDS, 0)
        if not size:
            return []
        with (self.folder / _IDS).open("rb") as file:
            lines = file.read(size).decode().splitlines()
        ids: list[str] = json.loads(f"[{','.join(lines)}]")
        return ids

    def counts(self) -> Tensor:
        """(F,) int64, the boxes of each frame, mapped from the disk."""
        return _mapped(self.folder / _COUNTS, torch.int64, self.num_frames, None)

    def columns(self) -> dict[str, Tensor]:
        """The columns, mapped from the disk: they take memory only while they are read."""
        if self.layout is None:
            return {}
        boxes = embedded = int(self.counts().sum())
        if any(name == "embedded" for name, *_ in self.layout.columns):
            embedded = int(_mapped(self.folder / "embedded", torch.bool, boxes, None).sum())
        found = {}
        for name, dtype, width in self.layout.columns:
            rows = rows_of(name, frames=self.num_frames, boxes=boxes, embedded=embedded)
            found[name] = _mapped(self.folder / name, dtype, rows, width)
        return found

    def pool(self) -> Pool:
        """All of it as a `Pool` whose columns stay on the disk."""
        layout = self.layout
        columns: dict[str, Any] = dict(self.columns())
        if layout is not None:
            columns |= {"activation": layout.activation, "ids_from": layout.ids_from}
        skipped = [frame for _, frame in self.skipped]
        return Pool.of_checked(self.frame_ids(), offsets_of(self.counts()), skipped=skipped, **columns)


class Slices:
    """Reads the rows of single batches out of a part."""

    def __init__(self, part: Part) -> None:
        self._ids, self._columns, self._layout = part.frame_ids(), part.columns(), part.layout
        self._counts = part.counts()
        self._offsets = self._embedded_offsets = offsets_of(self._counts)
        if "embedded" in self._columns:
            self._embedded_offsets = offsets_among(self._offsets, self._columns["embedded"])
        self._places: dict[int, tuple[int, int]] = {}
        start = 0
        for number, frames in part.batches:
            self._places.setdefault(number, (start, start + frames))
            start += frames

    def give(self, number: int, to: Gathered) -> int:
        """Add batch `number` to `to`; the number of its frames, 0 if there are none."""
        begin, end = self._places.get(number, (0, 0))
        self.give_frames(begin, end, to)
        return end - begin

    def give_frames(
        self,
        begin: int,
        end: int,
        to: Gathered,
        *,
        frame_ids: Sequence[str] | None = None,
        indices: Tensor | None = None,
    ) -> None:
        """Add the frames from `begin` to `end`, in the order of the part, to `to`.

        Args:
            begin: the first, from 0.
            end: behind the last.
            to: what they are added to.
            frame_ids: their ids; None: as they are.
            indices: their rows of the dataset; None: as they are.
        """
        if self._layout is None or begin == end:
            return
        boxes, embedded = (slice(int(each[begin]), int(each[end])) for each in (self._offsets, self._embedded_offsets))
        columns = {
            name: column[rows_of(name, frames=slice(begin, end), boxes=boxes, embedded=embedded)]
            for name, column in self._columns.items()
        }
        if indices is not None:
            columns["indices"] = indices
        if to.layout is not None:
            to.layout.check_same(self._layout)
        ids = self._ids[begin:end] if frame_ids is None else frame_ids
        to.add_rows(self._layout, ids, self._counts[begin:end], columns)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can (Windows cannot open a folder)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _as_bytes(content: Tensor | bytes) -> memoryview | bytes:
    if isinstance(content, bytes):
        return content
    return content.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write_at(path: Path, start: int, content: memoryview | bytes) -> tuple[int, int]:
    """Write from `start` on, as the end of the file, and force it to the disk; the size and checksum of `content`."""
    with path.open("r+b" if path.exists() else "xb") as file:
        file.truncate(start)
        file.seek(start)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return len(content), zlib.crc32(content)


def _checksum(path: Path, start: int, size: int) -> int:
    checksum = 0
    with path.open("rb") as file:
        file.seek(start)
        while size > 0 and (chunk := file.read(min(size, _CHUNK))):
            checksum = zlib.crc32(chunk, checksum)
            size -= len(chunk)
    return checksum


def _mapped(path: Path, dtype: torch.dtype, rows: int, width: int | None) -> Tensor:
    numbers = rows * (1 if width is None else width)
    flat = (
        torch.from_file(str(path), shared=False, size=numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
    )
    return flat if width is None else flat.view(rows, width)


def _line_of(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines_of(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a journal, up to the first that is not whole."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            text = line[9:-1]
            if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(text):
                return
            yield line, json.loads(text)
