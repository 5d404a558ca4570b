"""`kmeans_plus_plus` against the probabilities of its draws."""

from __future__ import annotations

import torch
from points import noise

from cval_torch.strategies.kmeans_plus_plus import kmeans_plus_plus


def test_kmeans_plus_plus_draws_in_proportion_to_squared_distance() -> None:
    """From the longest vector at 3, the others are 1 and 2 away: one in five is the nearer."""
    points = torch.tensor([[3.0], [2.0], [1.0]])
    second = [kmeans_plus_plus(points, 2, seed=seed).tolist() for seed in range(500)]
    assert all(rows[0] == 0 for rows in second)
    assert 70 <= sum(rows[1] == 1 for rows in second) <= 130  # 100 expected, sd 8.9


def test_kmeans_plus_plus_sees_no_difference_among_frames_without_doubt() -> None:
    points, weights = noise(30), torch.zeros(30, dtype=torch.float64)
    weights[[4, 9, 20]] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for seed in range(20):
        assert len({4, 9, 20} & set(kmeans_plus_plus(points, 4, seed=seed, weights=weights).tolist())) == 3
