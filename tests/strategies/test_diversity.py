"""Diversity against scikit-learn, scipy and naive loops."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics import silhouette_score as sklearn_silhouette
from torch import Tensor

from cval_torch.strategies.clustering import clustering, rows_by_turns
from cval_torch.strategies.hierarchical import cut, hierarchical, ward_merges
from cval_torch.strategies.kmeans import kmeans
from cval_torch.strategies.silhouette import candidate_counts, silhouette_score


def blobs(sizes: list[int], *, width: int = 8, spread: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points about distant unit vectors, and the blob of each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    points = torch.eye(width)[labels] * 3 + spread * torch.randn(len(labels), width, generator=generator)
    order = torch.randperm(len(labels), generator=generator)
    return points[order], labels[order]


def noise(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


class TestKmeans:
    @pytest.mark.parametrize(("rows", "width", "k"), [(300, 8, 10), (500, 32, 40), (200, 2, 7), (3000, 4, 20)])
    def test_the_inertia_is_that_of_scikit_learn(self, rows: int, width: int, k: int) -> None:
        """From single starts, on the mean."""
        points = noise(rows, width)
        theirs = [KMeans(k, n_init=1, random_state=seed).fit(points.numpy()).inertia_ for seed in range(20)]
        ours = [kmeans(points, k, seed=seed).inertia for seed in range(20)]
        assert sum(ours) <= 1.01 * sum(theirs)

    def test_the_result_is_a_fixed_point(self) -> None:
        points = noise(200, 4)
        found = kmeans(points, 6, seed=1, tolerance=0)
        distances = torch.cdist(points.double(), found.centres.double())
        assert torch.equal(distances.argmin(1), found.labels)
        assert torch.allclose(distances.amin(1).square().float(), found.distances, atol=1e-5)
        for label in range(6):
            assert torch.allclose(points[found.labels == label].mean(0), found.centres[label], atol=1e-5)

    def test_blobs_are_found(self) -> None:
        points, truth = blobs([30, 5, 50, 12, 3])
        assert adjusted_rand_score(truth, kmeans(points, 5, seed=0).labels) == 1

    def test_far_from_the_origin_digits_are_kept(self) -> None:
        """Without centring, squares of 1e4 would swallow the differences."""
        points, truth = blobs([20, 20, 20])
        assert adjusted_rand_score(truth, kmeans(points + 1e4, 3, seed=0).labels) == 1

    def test_blocks_give_what_one_block_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = noise(300, 8)
        whole = kmeans(points, 9, seed=3)
        monkeypatch.setattr("cval_torch.strategies.kmeans._BLOCK_ELEMENTS", 64)
        blocks = kmeans(points, 9, seed=3)
        assert torch.equal(whole.labels, blocks.labels)

    @pytest.mark.parametrize("seed", range(10))
    def test_the_start_takes_the_best_of_a_few_candidates(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cval_torch.strategies.kmeans._LEAST_CANDIDATES", 20)
        points, truth = blobs([200, 20, 200])
        assert adjusted_rand_score(truth, kmeans(points, 3, seed=seed).labels) == 1

    @given(places=st.lists(st.integers(0, 7), min_size=1, max_size=30), k=st.integers(1, 9), data=st.data())
    @settings(max_examples=100, deadline=None)
    def test_there_are_as_many_centres_as_distinct_points(self, places: list[int], k: int, data: st.DataObject) -> None:
        """Of those that pull and are not at a fixed centre, however few candidates are drawn."""
        pulls = data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)).filter(any))
        held = data.draw(st.sampled_from([None, 0, 3]))
        spots = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr("cval_torch.strategies.kmeans._LEAST_CANDIDATES", 1)
            found = kmeans(
                spots[places],
                k,
                seed=0,
                weights=torch.tensor(pulls).float(),
                fixed=None if held is None else spots[held : held + 1],
            )
        distinct = {place for place, pull in zip(places, pulls, strict=True) if pull} - {held}
        assert len(found.centres) == min(k, len(distinct)) + (held is not None)

    def test_copies_are_one_point(self) -> None:
        points = torch.eye(3).repeat(20, 1)
        found = kmeans(points, 5, seed=0)
        assert len(found.centres) == 3
        assert found.inertia == pytest.approx(0, abs=1e-6)

    def test_fixed_centres_stay(self) -> None:
        points, truth = blobs([20, 20, 20])
        fixed = torch.eye(8)[:1] * 3
        found = kmeans(points, 2, seed=0, fixed=fixed)
        assert torch.allclose(found.centres[:1], fixed, atol=1e-6)
        assert torch.equal(found.labels == 0, truth == 0)

    def test_weights_pull(self) -> None:
        points = torch.tensor([[0.0], [1.0]])
        found = kmeans(points, 1, seed=0, weights=torch.tensor([3.0, 1.0]))
        assert found.centres.item() == pytest.approx(0.25)

    def test_weights_are_copies(self) -> None:
        points, counts = noise(40, 3), torch.randint(1, 5, (40,), generator=torch.Generator().manual_seed(0))
        weighted = kmeans(points, 4, seed=0, weights=counts.float(), tolerance=0)
        mean = [
            (points * counts[:, None])[weighted.labels == c].sum(0) / counts[weighted.labels == c].sum()
            for c in range(4)
        ]
        assert torch.allclose(torch.stack(mean), weighted.centres, atol=1e-5)


class TestClustering:
    def test_the_frame_nearest_to_each_centre_largest_cluster_first(self) -> None:
        points, truth = blobs([10, 40, 20])
        rows = clustering(points, 3, seed=0)
        assert truth[rows].tolist() == [1, 2, 0]
        for row in rows.tolist():
            members = (truth == truth[row]).nonzero().squeeze(1)
            middle = points[members].mean(0)
            assert row == members[(points[members] - middle).square().sum(1).argmin()].item()

    def test_fewer_clusters_take_turns(self) -> None:
        points, truth = blobs([10, 40, 2])
        assert truth[clustering(points, 8, seed=0, num_of_clusters=3)].tolist() == [1, 0, 2, 1, 0, 2, 1, 0]

    def test_more_clusters_than_frames_asked_for(self) -> None:
        points, truth = blobs([10, 40, 20])
        assert truth[clustering(points, 2, seed=0, num_of_clusters=3)].tolist() == [1, 2]

    @pytest.mark.parametrize("n", [1, 3, 4, 9, 30])
    def test_fewer_distinct_points_than_frames_asked_for(self, n: int) -> None:
        points = torch.eye(3).repeat(10, 1)
        rows = clustering(points, n, seed=0)
        assert len(set(rows.tolist())) == n
        assert len(points[rows].unique(dim=0)) == min(n, 3), "copies come last"

    def test_what_is_labeled_is_left_for_last(self) -> None:
        points, truth = blobs([40, 20, 10])
        labeled = torch.eye(8)[:1] * 3 + 0.01
        assert truth[clustering(points, 2, seed=0, labeled=labeled)].tolist() == [1, 2]
        rows = clustering(points, 70, seed=0, labeled=labeled, num_of_clusters=2)
        assert sorted(rows.tolist()) == list(range(70))
        assert set(truth[rows[30:]].tolist()) == {0}

    def test_nothing_labeled_yet(self) -> None:
        points, _ = blobs([40, 20, 10])
        plain = clustering(points, 4, seed=0)
        assert torch.equal(plain, clustering(points, 4, seed=0, labeled=points[:0]))


@given(data=st.data(), rows=st.integers(1, 15))
@settings(max_examples=100, deadline=None)
def test_turns_against_a_loop(data: st.DataObject, rows: int) -> None:
    labels = data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    order = data.draw(st.permutations(range(rows)))
    last = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    n = data.draw(st.integers(1, rows))
    queues = [[row for row in order if labels[row] == label] for label in set(labels)]
    queues.sort(key=lambda queue: (-len(queue), queue[0]))
    turns = [queue[turn] for turn in range(rows) for queue in queues if turn < len(queue)]
    expected = [row for row in turns if not last[row]] + [row for row in turns if last[row]]
    got = rows_by_turns(torch.tensor(labels), torch.tensor(order), n, last=torch.tensor(last))
    assert got.tolist() == expected[:n]


class TestWard:
    @pytest.mark.parametrize(("rows", "width", "seed"), [(2, 3, 0), (3, 1, 1), (60, 4, 2), (250, 16, 3)])
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


class TestSilhouette:
    @given(seed=st.integers(0, 1000), k=st.integers(2, 6))
    @settings(max_examples=20, deadline=None)
    def test_is_that_of_scikit_learn(self, seed: int, k: int) -> None:
        points = noise(40, 3, seed).double()
        labels = torch.cat(
            [torch.arange(k), torch.randint(0, k, (39 - k,), generator=torch.Generator().manual_seed(seed))]
        )
        labels = torch.cat([labels, torch.tensor([k + 3])])  # one alone, and a gap among the labels
        got = silhouette_score(torch.cdist(points, points), labels)
        assert got == pytest.approx(sklearn_silhouette(points.numpy(), labels.numpy()), abs=1e-9)

    def test_copies_apart_are_perfect(self) -> None:
        points = torch.eye(2).repeat(3, 1).double()
        assert silhouette_score(torch.cdist(points, points), torch.tensor([0, 1] * 3)) == 1

    @pytest.mark.parametrize(("most", "expected"), [(0, []), (1, []), (2, [2]), (5, [2, 3, 4, 5])])
    def test_candidates(self, most: int, expected: list[int]) -> None:
        assert candidate_counts(most) == expected


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
