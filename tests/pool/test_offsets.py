"""Ragged columns against plain lists."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import columns, frames_of_boxes

from cval_torch.pool.offsets import chunks, offsets_of, places_of, rows_in_parts


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


@given(counts=st.lists(st.integers(0, 5), max_size=12))
def test_offsets_are_sums_of_what_lies_before(counts: list[int]) -> None:
    offsets = offsets_of(torch.tensor(counts, dtype=torch.int64))
    assert offsets.dtype == torch.int64
    assert offsets.tolist() == [sum(counts[:row]) for row in range(len(counts) + 1)]


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=12), data=st.data())
def test_places_against_lists(counts: list[int], data: st.DataObject) -> None:
    """In any order, and frames that are asked for twice have their rows twice."""
    rows = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=15))
    offsets = [sum(counts[:row]) for row in range(len(counts) + 1)]
    places, theirs = places_of(torch.tensor(offsets), torch.tensor(rows, dtype=torch.int64))
    assert places.tolist() == [place for row in rows for place in range(offsets[row], offsets[row + 1])]
    assert theirs.tolist() == [sum(counts[row] for row in rows[:n]) for n in range(len(rows) + 1)]
    assert places.dtype == theirs.dtype == torch.int64


@given(sizes=st.lists(st.integers(0, 4), max_size=6), data=st.data())
def test_rows_in_parts_against_a_loop(sizes: list[int], data: st.DataObject) -> None:
    rows = sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1)))) if sum(sizes) else []
    found = [part.tolist() for part in rows_in_parts(torch.tensor(rows, dtype=torch.int64), sizes)]
    whole = [(part, row) for part, size in enumerate(sizes) for row in range(size)]
    assert found == [[whole[row][1] for row in rows if whole[row][0] == part] for part in range(len(sizes))]
