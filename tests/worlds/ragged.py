"""Ragged columns of random numbers, for the tests of what adds them up."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

frames_of_boxes = st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=19), min_size=1, max_size=8)


def columns(frames: list[list[float]], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    offsets = torch.tensor([0, *(len(frame) for frame in frames)]).cumsum(0)
    return torch.tensor([value for frame in frames for value in frame], dtype=dtype), offsets
