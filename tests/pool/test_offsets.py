"""Ragged columns against plain lists."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import columns, frames_of_boxes

from cval_torch.pool.offsets import chunks


@given(frames=frames_of_boxes, boxes=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_chunks_are_all_frames_and_bounded(frames: list[list[float]], boxes: int) -> None:
    _, offsets = columns(frames)
    ranges = list(chunks(offsets, boxes=boxes))
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == len(frames)
    for begin, end in ranges:
        assert begin < end
        small = sum(len(frame) for frame in frames[begin:end] if len(frame) <= boxes)
        assert small < 2 * boxes or end - begin == 1
