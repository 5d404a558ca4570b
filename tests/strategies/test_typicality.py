"""`typicality` against a naive loop over all neighbours."""

from __future__ import annotations

import pytest
import torch
from points import blobs_in_order, noise, squares
from torch import Tensor

from cval_torch.strategies.typicality import mean_distance, typicality


def naive_mean_distance(points: Tensor, neighbours: int) -> list[float]:
    means = []
    for row in range(len(points)):
        others = sorted(
            squares(points, points)[row].sqrt()[[other for other in range(len(points)) if other != row]].tolist()
        )
        nearest = others[:neighbours]
        means.append(sum(nearest) / len(nearest) if nearest else 0.0)
    return means


@pytest.mark.parametrize("rows", [1, 2, 7, 30])
def test_mean_distance(rows: int) -> None:
    assert mean_distance(noise(rows), 20).tolist() == pytest.approx(naive_mean_distance(noise(rows), 20), abs=1e-5)


def test_typicality_takes_the_most_typical_of_each_cluster() -> None:
    points, truth = blobs_in_order([30, 12, 22])
    rows = typicality(points, 3, seed=0).tolist()
    assert truth[rows].tolist() == [0, 2, 1]
    for row in rows:
        members = (truth == truth[row]).nonzero().squeeze(1)
        means = naive_mean_distance(points[members], 20)
        assert row == members[means.index(min(means))]


def test_typicality_goes_to_clusters_without_labels_first() -> None:
    points, truth = blobs_in_order([30, 12, 22])
    labeled = torch.eye(8)[[0, 0, 2]] * 3
    # 64 frames and 3 labels in as many clusters as will be labeled: 3 + 3, but only three are apart
    assert truth[typicality(points, 1, seed=0, labeled=labeled[:2])].tolist() != [0]
    chosen = typicality(torch.eye(8)[truth], 3, seed=0, labeled=torch.eye(8)[[0, 0, 2]])
    assert truth[chosen].tolist() == [1, 2, 0]
