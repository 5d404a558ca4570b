"""`kmeans_plus_plus` against the probabilities of its draws."""

from __future__ import annotations

import math
from collections import Counter

import pytest
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


def chances_of_pairs(points: torch.Tensor, first: int) -> dict[tuple[int, int], float]:
    """The chance of every second and third choice, by the definition."""
    squares = torch.cdist(points.double(), points.double()).square()
    chances = {}
    for second in range(len(points)):
        once = squares[first]
        twice = torch.minimum(once, squares[second])
        for third in range(len(points)):
            if twice[third] > 0 and once[second] > 0:
                chances[second, third] = float(once[second] / once.sum() * twice[third] / twice.sum())
    return chances


@pytest.mark.parametrize(("fresh", "draws"), [(1, 64), (256, 64), (256, 1), (1, 1)])
def test_draws_by_rejection_have_the_same_chances(fresh: int, draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square of pairs, with a pass for every choice or for none, and many draws at a time or one."""
    monkeypatch.setattr("cval_torch.strategies.kmeans_plus_plus._FRESH", fresh)
    monkeypatch.setattr("cval_torch.strategies.kmeans_plus_plus._DRAWS", draws)
    points = torch.tensor([[5.0, 0], [4, 1], [0, 3], [-2, 1], [-2, 1.5], [1, -3]])
    runs = 4000
    found = Counter(tuple(kmeans_plus_plus(points, 3, seed=seed).tolist()[1:]) for seed in range(runs))
    chances = chances_of_pairs(points, 0)
    assert set(found) <= set(chances)
    assert sum(chances.values()) == pytest.approx(1)
    statistic = sum((found[pair] - runs * chance) ** 2 / (runs * chance) for pair, chance in chances.items())
    freedom = len(chances) - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


def test_copies_come_last_and_by_row() -> None:
    points = torch.tensor([[1.0, 0], [1, 0], [0, 2], [0, 2], [1, 0]])
    for seed in range(10):
        rows = kmeans_plus_plus(points, 5, seed=seed).tolist()
        assert rows[0] == 2
        assert rows[1] in (0, 1, 4)
        assert rows[2:] == sorted({0, 1, 3, 4} - {rows[1]})


def test_a_seed_gives_the_same_choice_again() -> None:
    points = noise(400)
    assert torch.equal(kmeans_plus_plus(points, 50, seed=1), kmeans_plus_plus(points, 50, seed=1))
    assert not torch.equal(kmeans_plus_plus(points, 50, seed=1), kmeans_plus_plus(points, 50, seed=2))
    assert len(set(kmeans_plus_plus(points, 400, seed=1).tolist())) == 400
