"""Which frames of a clip look like the one before, by thumbnails: no detector is needed to tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from cval_torch.errors import InvalidInputError
from cval_torch.formats.video_clip import ClipFrames, ClipReader

if TYPE_CHECKING:
    from av import VideoFrame
    from numpy.typing import NDArray

CELLS = 16
"""Cells of a thumbnail along each side."""


def thumbnail(frame: VideoFrame) -> NDArray[np.float32]:
    """(16, 16) in [0, 1]: the mean brightness of each of 16 x 16 equal cells of the frame."""
    small = frame.reformat(width=CELLS, height=CELLS, format="gray8", interpolation="AREA", threads=1)
    shares: NDArray[np.float32] = np.asarray(small.to_ndarray(), dtype=np.float32) / np.float32(255)
    return shares


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest difference in brightness of a cell between two thumbnails, in [0, 1].

    It is not the mean over cells, because an object that appears in one of 256 cells would hardly change that.

    >>> difference(np.zeros((16, 16), np.float32), np.full((16, 16), 0.25, np.float32))
    0.25
    """
    return float(np.abs(one - other).max())


def without_near_duplicates(
    reader: ClipReader, frames: ClipFrames, indices: Iterable[int], threshold: float
) -> tuple[list[int], list[str]]:
    """Those of a clip's frames that differ from the last one kept by `threshold` or more; the first is kept.

    Args:
        reader: of the clip.
        frames: of the clip.
        indices: increasing, into `frames.times`.
        threshold: of `difference`, in (0, 1].

    Returns:
        The indices that are kept, and a note for each frame that cannot be read; it is not kept.
    """
    kept: list[int] = []
    notes: list[str] = []
    last: NDArray[np.float32] | None = None
    for index in indices:
        try:
            seen = thumbnail(reader.read(frames.times[index], frames.starts[index]))
        except InvalidInputError as error:
            notes.append(str(error))
            continue
        if last is None or difference(seen, last) >= threshold:
            kept.append(index)
            last = seen
    return kept, notes
