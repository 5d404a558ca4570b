"""What a selection says of the frames that were chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Backend, Selection
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling


def stage(strategy: Any = "entropy", n: int = 2, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def select(pool: Pool, *stages: DetectionSampling) -> Selection:
    return LocalBackend().select(pool, stages)


@pytest.fixture
def pool() -> Pool:
    """Frames of 2, 0, 1, 3, 0 and 1 boxes."""
    return Pool(
        ["f", "e", "d", "c", "b", "a"],
        torch.tensor([0, 2, 2, 3, 6, 6, 7]),
        scores=torch.tensor([0.9, 0.6, 0.5, 0.99, 0.7, 0.8, 0.95]),
        indices=torch.tensor([10, 20, 30, 40, 50, 60]),
        box_embeddings=torch.eye(7),
        frame_embeddings=torch.eye(6),
    )


def test_it_is_a_backend() -> None:
    assert isinstance(LocalBackend(), Backend)


def test_a_selection_names_frames_rows_and_indices(pool: Pool) -> None:
    chosen = LocalBackend().select(pool, stage(n=3, null_policy="skip"))
    assert chosen.frame_ids == ("d", "f", "c")
    assert chosen.rows.tolist() == [2, 0, 3]
    assert chosen.indices is not None
    assert chosen.indices.tolist() == [30, 10, 40]
    assert chosen.scores.dtype == torch.float64
    assert chosen.scores[0] == 1
    assert len(chosen) == 3
    assert len(chosen.stages) == 1


def test_a_pool_without_indices_gives_none(pool: Pool) -> None:
    assert select(pool.replace(indices=None), stage()).indices is None
