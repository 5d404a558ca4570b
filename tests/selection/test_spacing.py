"""Frames that keep a distance, against a loop over all pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cval_torch.pool.pool import Pool
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages


def stage(strategy: Any = "entropy", n: int | None = None, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def test_copies_are_near_however_small_the_distance() -> None:
    vectors = torch.randn(1, 300).repeat(50, 1)
    pool = Pool([f"{row:02d}" for row in range(50)], torch.zeros(51, dtype=torch.int64), frame_embeddings=vectors)
    assert list(Spacing(pool, 1e-6).pass_over(torch.arange(50))) == [0]


def test_a_large_pool_is_walked_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix of all pairs, though most frames are copies and so all are looked at."""
    frames, generator = 20_000, torch.Generator().manual_seed(0)
    looks = torch.randn(900, 32, generator=generator)
    vectors = looks[torch.randint(0, 900, (frames,), generator=generator)]
    pool = Pool([f"{row:06d}" for row in range(frames)], torch.arange(frames + 1),
                scores=torch.rand(frames, generator=generator), box_embeddings=vectors)  # fmt: skip
    pairs: list[int] = []
    near = Spacing._near

    def counting(self: Spacing, points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        pairs.append(len(points) * len(others))
        return near(self, points, others)

    monkeypatch.setattr(Spacing, "_near", counting)
    with pytest.warns(UserWarning, match="fills up"):
        rows, _, _ = run_stages(pool, stage(n=1000, min_distance=0.2))
    assert len(torch.unique(vectors[rows[:900]], dim=0)) == 900
    assert max(pairs) <= 2 * 1024**2
    assert sum(pairs) <= 2 * frames * 1024
