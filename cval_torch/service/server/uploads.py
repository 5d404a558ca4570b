"""Uploads of embeddings on their way to the store: checked first, and in a file until all of them are."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from pydantic_core import to_json

from cval_torch.service.protocol import Embedding, FrameEmbedding
from cval_torch.service.server.incoming import Portion
from cval_torch.service.server.settings import Limits, RefusedError, at_most
from cval_torch.service.server.store import Vectors

_LENGTH = struct.Struct("<I")


class Upload:
    """Takes frames in, and writes what the store is to have of them to a file.

    A transaction keeps all others from writing, so that it must not last as long as reading a large body does.

    Args:
        file: empty, for writing and reading.
        limits: of what is taken.

    Attributes:
        refusal: why the upload is not taken, by what was wrong first; None if nothing is.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self.refusal: RefusedError | None = None
        self._file, self._limits = file, limits
        self._frames = 0
        self._answer = bytearray()
        self._open: tuple[str, list[str]] | None = None  # the last frame, and the names of its embeddings

    def take(self, portion: Portion[FrameEmbedding]) -> None:
        """Take frames in."""
        for place, frame in enumerate(portion.frames):
            if not (portion.continued and place == 0):
                self._close_frame()
                self._frames += 1
                self._open = (frame.frame_id, [])
            if self.refusal is None and self._frames <= self._limits.frames:
                try:
                    self._write(frame)
                except RefusedError as refusal:
                    self.refusal = refusal

    def check(self) -> None:
        """Raise RefusedError if the upload is too much, or a vector is none that is taken."""
        at_most(self._frames, self._limits.frames, "frames")
        if self.refusal is not None:
            raise self.refusal

    def rows(self) -> Iterator[tuple[str, Vectors]]:
        """What the store is to have, from the file."""
        self._file.seek(0)
        while head := self._file.read(_LENGTH.size):
            frame_id, named = json.loads(self._file.read(*_LENGTH.unpack(head)))
            yield frame_id, [(name, self._file.read(size)) for name, size in named]

    def answer(self) -> bytes:
        """The names of what was taken in, as the JSON that the protocol has."""
        self._close_frame()
        return b'{"frames_quantity":%d,"frames":[%b]}' % (self._frames, bytes(self._answer))

    def _close_frame(self) -> None:
        if self._open is not None:
            frame_id, names = self._open
            meta = {"frame_id": frame_id, "embeddings_quantity": len(names), "embeddings": names}
            self._answer += (b"," if self._answer else b"") + to_json(meta)
        self._open = None

    def _write(self, frame: FrameEmbedding) -> None:
        vectors = [self._vector(item, frame.frame_id) for item in frame.embeddings]
        named = [(item.embedding_id, len(vector)) for item, vector in zip(frame.embeddings, vectors, strict=True)]
        head = json.dumps([frame.frame_id, named]).encode()
        self._file.write(_LENGTH.pack(len(head)) + head)
        self._file.writelines(vectors)
        if self._open is not None:
            self._open[1].extend(name for name, _ in named)

    def _vector(self, item: Embedding, frame_id: str) -> bytes:
        limits = self._limits
        at_most(len(item.embedding_id), limits.id_length, f"characters of an embedding id of frame {frame_id!r}")
        at_most(len(item.embedding), limits.vector_length, f"numbers in an embedding of frame {frame_id!r}")
        with np.errstate(over="ignore"):
            vector = np.array(item.embedding, dtype="<f4")
        if not np.isfinite(vector).all():
            raise RefusedError(422, f"an embedding of frame {frame_id!r} has a number that float32 cannot hold")
        return vector.tobytes()
