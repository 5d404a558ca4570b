"""`SkippedFrame`: a frame that a pass left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True)
class SkippedFrame:
    """A frame that an inference pass left out, because its image could not be loaded.

    Attributes:
        frame_id: its id; None if only its target could tell it.
        index: its row in the loader's dataset.
        path: its file, if the dataset lists files; else None.
        reason: the error, such as `"OSError: image file is truncated"`.
    """

    frame_id: str | None
    index: int
    path: str | None
    reason: str

    def __str__(self) -> str:
        file = "" if self.path is None else f", {self.path}"
        if self.frame_id is None:
            return f"the frame of row {self.index} of the dataset{file} cannot be loaded: {self.reason}"
        return f"frame {self.frame_id!r} (row {self.index} of the dataset{file}) cannot be loaded: {self.reason}"

    def to_json(self) -> list[Any]:
        """As plain values."""
        return list(astuple(self))

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> SkippedFrame:
        """From what `to_json` gave."""
        return cls(*values)
