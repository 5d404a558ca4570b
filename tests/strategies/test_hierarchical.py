"""`hierarchical` on blobs, and Ward's tree against scipy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from points import blobs, noise
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from cval_torch.strategies.hierarchical import cut, hierarchical, ward_merges


class TestWard:
    @pytest.mark.parametrize(("rows", "width", "seed"), [(2, 3, 0), (3, 1, 1), (60, 4, 2), (250, 16, 3)])
    @pytest.mark.filterwarnings("ignore:The number of unique classes")  # scikit-learn, of few rows
    def test_the_tree_is_that_of_scipy(self, rows: int, width: int, seed: int) -> None:
        points = noise(rows, width, seed).double().numpy()
        merges = ward_merges(points, np.ones(rows))
        tree = linkage(points, "ward")
        for k in {1, 2, 3, 5, 11, 40, rows} & set(range(1, rows + 1)):
            ours, theirs = cut(merges, rows, k), fcluster(tree, k, "maxclust")
            assert len(np.unique(ours)) == k
            assert adjusted_rand_score(theirs, ours) == 1

    def test_sizes_stand_for_copies(self) -> None:
        points, sizes = noise(30, 3).double().numpy(), np.arange(30) % 4 + 1.0
        copies = np.repeat(points, sizes.astype(int), axis=0)
        theirs = fcluster(linkage(copies, "ward"), 6, "maxclust")
        ours = np.repeat(cut(ward_merges(points, sizes), 30, 6), sizes.astype(int))
        assert adjusted_rand_score(theirs, ours) == 1

    def test_one_point_has_no_merges(self) -> None:
        assert ward_merges(np.zeros((1, 2)), np.ones(1)).shape == (0, 2)


class TestHierarchical:
    @pytest.mark.parametrize("limit", [4096, 60])
    def test_the_number_of_clusters_is_found(self, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Exactly, and through groups and a sample, as for a large set."""
        module = sys.modules["cval_torch.strategies.hierarchical"]  # as an attribute, the function of that name
        monkeypatch.setattr(module, "MOST_POINTS", limit)
        monkeypatch.setattr(module, "_GROUPS", 25)
        monkeypatch.setattr(module, "_SILHOUETTE_POINTS", limit)
        points, truth = blobs([40, 30, 20, 10])
        rows = hierarchical(points, 8, seed=0)
        assert truth[rows].tolist() == [0, 1, 2, 3] * 2

    def test_frames_are_drawn_at_random_within_a_cluster(self) -> None:
        points, truth = blobs([6, 5])
        drawn = {tuple(hierarchical(points, 2, seed=seed, num_of_clusters=2).tolist()) for seed in range(60)}
        assert all(truth[list(pair)].tolist() == [0, 1] for pair in drawn)
        assert {pair[0] for pair in drawn} == set((truth == 0).nonzero().squeeze(1).tolist())

    def test_clusters_that_hold_labeled_frames_are_drawn_last(self) -> None:
        points, truth = blobs([40, 20, 10])
        rows = hierarchical(points, 35, seed=0, num_of_clusters=3, labeled=torch.eye(8)[:1] * 3)
        assert set(truth[rows[:30]].tolist()) == {1, 2}
        assert set(truth[rows[30:]].tolist()) == {0}

    @pytest.mark.parametrize("n", [1, 2, 5, 12])
    @pytest.mark.parametrize("clusters", [-1, 1, 3, 50])
    def test_there_are_always_n_distinct_rows(self, n: int, clusters: int) -> None:
        for points in (torch.eye(3).repeat(4, 1), torch.zeros(12, 2), noise(12, 2)):
            rows = hierarchical(points, n, seed=0, num_of_clusters=clusters)
            assert len(set(rows.tolist())) == n
