"""`diverse_prototypes` against a naive implementation that goes box by box."""

from __future__ import annotations

import pytest
import torch
from naive_objects import make_pool_of_objects, naive_prototypes

from cval_torch import Pool
from cval_torch.strategies.diverse_prototypes import diverse_prototypes


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("labeled", [0, 1, 12])
def test_diverse_prototypes(kind: str | None, labeled: int) -> None:
    for seed in range(5):
        pool = make_pool_of_objects(60, seed=seed, kind=kind)
        known = make_pool_of_objects(labeled, seed=seed + 50, kind=kind, prefix="known") if labeled else None
        for n in (1, 9, 50):
            got = diverse_prototypes(pool, n, seed=0, labeled=known).tolist()
            assert got == naive_prototypes(pool, n, known)


def test_minority_classes_are_served_first_and_up_to_their_quota() -> None:
    """Class 1 is in four frames, class 0 in sixteen that are more uncertain; every object looks different."""
    labels = torch.tensor([0] * 16 + [1] * 4)
    scores = torch.cat([torch.linspace(0.5, 0.6, 16), torch.tensor([0.8, 0.85, 0.9, 0.2])])
    pool = Pool([f"{row:02}" for row in range(20)], torch.arange(21), labels=labels, scores=scores,
                box_embeddings=torch.eye(20))  # fmt: skip
    assert diverse_prototypes(pool, 1, seed=0).tolist() == [16]
    assert diverse_prototypes(pool, 2, seed=0).tolist() == [16, 17]
    assert diverse_prototypes(pool, 8, seed=0).tolist() == [16, 17, 18, 0, 1, 2, 3, 4], "a score of 0.2 is not there"
    many = pool.take([16, 17, 18]).replace(frame_ids=list("abc"), box_embeddings=-torch.eye(20)[16:19])
    assert diverse_prototypes(pool, 4, seed=0, labeled=many).tolist() == [0, 1, 2, 3], "of what is labeled, 0 is rarer"


def test_rejected_frames_fill_up() -> None:
    pool = Pool(list("abcd"), torch.arange(5), labels=torch.zeros(4, dtype=torch.int64),
                scores=torch.tensor([0.9, 0.5, 0.6, 0.99]), box_embeddings=torch.eye(2)[[0, 0, 0, 1]])  # fmt: skip
    assert diverse_prototypes(pool, 4, seed=0).tolist() == [1, 3, 2, 0]
