"""Whether a service has what it was sent: its embeddings are read back, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from cval_torch.errors import ProtocolError
from cval_torch.service.protocol import FrameEmbedding, FrameEmbeddingMeta

Vector = npt.NDArray[np.float32]

_FRAMES = TypeAdapter(list[FrameEmbedding])
_AT_ONCE = 100  # frames of one slice with vectors
PRECISION = 1e-5  # relative: a service may keep fewer digits than it was sent


class Sent:
    """The embeddings of an upload, by frame and name; of what stands twice the last.

    Args:
        body: the JSON that was sent.
    """

    def __init__(self, body: bytes) -> None:
        self._vectors: dict[str, dict[str, Vector]] = {}
        for frame in _FRAMES.validate_json(body):
            self._vectors.setdefault(frame.frame_id, {}).update(_vectors_of(frame))

    def is_stored(
        self, pages: Iterable[Sequence[FrameEmbeddingMeta]], read: Callable[[int, int], Sequence[FrameEmbedding]]
    ) -> bool:
        """Whether all of it is there, number by number.

        Args:
            pages: the names of all that the service has, in its order.
            read: a slice of it with its vectors.
        """
        missing = {frame_id: set(vectors) for frame_id, vectors in self._vectors.items()}
        rows = list[int]()
        row = 0
        for page in pages:
            for frame in page:
                if frame.frame_id in missing:
                    if not missing.pop(frame.frame_id) <= set(frame.embeddings):
                        return False
                    rows.append(row)
                row += 1
            if not missing:
                break
        return not missing and all(self._agrees(read(start, stop)) for start, stop in _slices(rows))

    def _agrees(self, stored: Sequence[FrameEmbedding]) -> bool:
        for frame in stored:
            there = _vectors_of(frame)
            for name, vector in self._vectors.get(frame.frame_id, {}).items():
                other = there.get(name)
                if other is None or other.shape != vector.shape or not np.allclose(other, vector, PRECISION, 0):
                    return False
        return True


def checked_pages(
    read: Callable[[int, int], Sequence[FrameEmbeddingMeta]], at_once: int
) -> Iterator[Sequence[FrameEmbeddingMeta]]:
    """All pages of names, until one is not full.

    Args:
        read: a slice of the names.
        at_once: frames of a slice.

    Raises:
        ProtocolError: a page holds more than was asked for, or a frame of an earlier page: the service does not look at
            the limits, and would go on for ever.
    """
    seen = set[str]()
    for start in range(0, 1 << 40, at_once):
        page = read(start, start + at_once)
        ids = {frame.frame_id for frame in page}
        if len(page) > at_once or not seen.isdisjoint(ids):
            raise ProtocolError(
                f"frames {start} to {start + at_once} were asked for, and others were answered: the service does not "
                "look at `start_limit` and `stop_limit`"
            )
        seen |= ids
        yield page
        if len(page) < at_once:
            return


def _vectors_of(frame: FrameEmbedding) -> dict[str, Vector]:
    with np.errstate(over="ignore"):
        return {item.embedding_id: np.array(item.embedding, dtype=np.float32) for item in frame.embeddings}


def _slices(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Slices that hold the rows, which ascend."""
    begin = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] - rows[begin] >= _AT_ONCE:
            yield rows[begin], rows[end - 1] + 1
            begin = end
