"""Rough scores of frames: reductions of rough scores of boxes, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.selection import rough_frames as module
from cval_torch.selection.rough_frames import rough_frames
from cval_torch.selection.rough_scores import RoughScores

LOOPS = {"min": min, "max": max, "mean": lambda values: math.fsum(values) / len(values), "sum": math.fsum}


def check(counts: list[int], policy: str) -> None:
    offsets = offsets_of(torch.tensor(counts))
    column = torch.rand(int(offsets[-1]), generator=torch.Generator().manual_seed(len(counts)))
    pool = Pool([f"{row}" for row in range(len(counts))], offsets, scores=column)
    boxes = RoughScores(column, lambda values: values.numpy(), 0.0, 0.75)
    got, radius = rough_frames(pool, boxes, policy)
    radii = np.broadcast_to(np.asarray(radius), got.shape)
    for score, far, part in zip(got, radii, torch.split(column, counts), strict=True):
        exact = LOOPS[policy](part.tolist()) if len(part) else 0.75
        assert abs(float(score) - exact) <= far
        if policy in ("min", "max"):
            assert far == 0


@pytest.mark.parametrize("policy", ["min", "max", "mean", "sum"])
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any))
@settings(max_examples=60, deadline=None)
def test_ragged_frames(policy: str, counts: list[int]) -> None:
    check(counts, policy)


@pytest.mark.parametrize("policy", ["min", "max", "mean", "sum"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 16, 20, 33])
def test_uniform_frames(policy: str, count: int) -> None:
    check([count] * 11, policy)


@pytest.mark.parametrize("policy", ["min", "max", "mean", "sum"])
@pytest.mark.parametrize("counts", [[0, 3, 0, 0, 2, 0, 0], [5000, 0, 1, 7], [5000, 5000], [0, 0, 1], [3] * 40])
def test_chunks_that_end_anywhere(policy: str, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for elements in (1, 4, 2**18):
        monkeypatch.setattr(module, "_CHUNK_ELEMENTS", elements)
        check(counts, policy)
