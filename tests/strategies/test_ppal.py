"""`ppal` against a naive implementation that goes box by box and knows all pairs of frames."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from naive_objects import make_pool_of_objects, naive_ppal
from torch import Tensor

from cval_torch.strategies.ppal import ppal


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("labeled", [0, 1, 12])
def test_ppal(seed: int, labeled: int) -> None:
    pool = make_pool_of_objects(50, seed=seed)
    known = make_pool_of_objects(labeled, seed=seed + 50, prefix="known") if labeled else None
    for n in (1, 8):
        assert ppal(pool, n, seed=seed, labeled=known).tolist() == naive_ppal(pool, n, seed, known)


def test_ppal_makes_no_matrix_of_all_frames_or_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    module = sys.modules["cval_torch.strategies.objects"]
    nearness = module._nearness

    def watching(mine: Any, theirs: Any) -> Tensor:
        sizes.append(len(mine.vectors) * len(theirs.vectors))
        return nearness(mine, theirs)

    monkeypatch.setattr(module, "_nearness", watching)
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 4000)
    pool = make_pool_of_objects(300, classes=1)
    ppal(pool, 3, seed=0)
    assert len(sizes) > 100
    assert max(sizes) < 8000 < len(pool) ** 2 / 10


def test_frames_of_another_kind_of_embedding_are_compared_by_boxes_alone() -> None:
    """Labeled frames without a comparable whole-frame embedding: frames without boxes are all alike then."""
    pool, labeled = make_pool_of_objects(30), make_pool_of_objects(9, seed=1, prefix="known")
    bare = labeled.replace(frame_embeddings=None)
    expected = naive_ppal(pool.replace(frame_embeddings=None), 6, 0, bare)
    for known in (bare, labeled.replace(frame_embeddings=torch.rand(9, 7))):
        assert ppal(pool, 6, seed=0, labeled=known).tolist() == expected
