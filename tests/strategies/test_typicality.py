"""`typicality` against a naive loop over all neighbours."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import Recorded, blobs_in_order, noise, squares
from torch import Tensor

from cval_torch.strategies.typicality import mean_distance, sampled_mean_distance, typicality

MODULE = sys.modules["cval_torch.strategies.typicality"]  # as an attribute, the function of that name


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


@settings(max_examples=40, deadline=None)
@given(st.integers(21, 300), st.integers(0, 2**16))
def test_neighbours_among_some_of_a_large_cluster(count: int, seed: int) -> None:
    points = noise(count + 7, 4, seed) + 100  # far from the origin
    members = torch.randperm(count + 7, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "LARGE_CLUSTER", 20)
        got = sampled_mean_distance(points, members, 20, torch.Generator().manual_seed(seed)).tolist()
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:20].tolist()
    pairs, near = squares(points, points).sqrt(), max(round(400 / count), 5)
    for place, member in enumerate(members.tolist()):
        others = sorted(float(pairs[member, members[other]]) for other in drawn if other != place)
        assert got[place] == pytest.approx(sum(others[:near]) / len(others[:near]), abs=1e-3)


def test_the_estimate_is_comparable_and_ranks_as_the_mean_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LARGE_CLUSTER", 500)
    points, generator = noise(1500, 8), torch.Generator().manual_seed(0)
    exact = mean_distance(points, 20)
    estimate = sampled_mean_distance(points, torch.arange(1500), 20, generator)
    assert float((estimate / exact).mean()) == pytest.approx(1, abs=0.03)
    assert float(torch.corrcoef(torch.stack([estimate, exact]))[0, 1]) > 0.95
    assert exact[estimate.argmin()] < 1.1 * exact.amin()


def test_large_and_small_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    points, truth = blobs_in_order([600, 90, 120])
    whole = typicality(points, 9, seed=0).tolist()
    monkeypatch.setattr(MODULE, "LARGE_CLUSTER", 40)
    sampled = typicality(points, 3, seed=0)
    assert truth[sampled].tolist() == [0, 2, 1]
    assert torch.equal(sampled, typicality(points, 3, seed=0))
    means = mean_distance(points[:600], 20)
    assert float((means < means[sampled[0]]).float().mean()) < 0.1
    monkeypatch.setattr(MODULE, "LARGE_CLUSTER", 600)
    assert typicality(points, 9, seed=0).tolist() == whole


def test_a_large_cluster_is_never_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LARGE_CLUSTER", 256)
    monkeypatch.setattr(sys.modules["cval_torch.strategies.points"], "_BLOCK_ELEMENTS", 500)
    points = Recorded(noise(9000).half())
    sampled_mean_distance(points, torch.arange(9000), 20, torch.Generator().manual_seed(0))
    assert points.most <= 4096


def test_a_large_cluster_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LARGE_CLUSTER", 20)
    assert typicality(torch.ones(50, 3), 4, seed=0).tolist() == [0, 1, 2, 3]
