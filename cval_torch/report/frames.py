"""What a picture of chosen frames is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from cval_torch.pool.pool import Pool


class ChosenFrames(Protocol):
    """What a contact sheet is made of; `SelectedFrames` is one.

    Item `i` is an image, or a tuple that begins with one and may go on with a target: a dict with `boxes` and
    `labels`. An image is a (C, H, W) tensor of 1 or 3 channels, bool, integer or floating, or a PIL image.
    """

    @property
    def frame_ids(self) -> Sequence[str]:
        """Names of the n frames, in rank order."""

    @property
    def scores(self) -> Tensor:
        """(n,) frame scores; NaN where there is none."""

    @property
    def predictions(self) -> Pool:
        """The same n frames, in the same order, with `boxes`."""

    def __len__(self) -> int:
        """The number of frames, n."""

    def __getitem__(self, index: int) -> Any:
        """An image, or a tuple that begins with one."""
