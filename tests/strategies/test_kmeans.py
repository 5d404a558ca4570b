"""`kmeans` against scikit-learn and against what makes a fixed point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import blobs, noise
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from cval_torch.strategies.kmeans import _Lead, _Share, kmeans, kmeans_beside, mean_of


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


class TestBeside:
    """New clusters beside what is labeled."""

    def test_what_is_labeled_keeps_centres_of_its_own(self) -> None:
        """Labeled frames lie in two blobs, so there are two centres; their mean lies in a third blob, which is free."""
        ends = torch.tensor([[-3.0, 0.0], [3.0, 0.0]])
        labeled = ends.repeat_interleave(5, 0) + 0.01 * noise(10, 2)
        points = torch.cat([ends.repeat_interleave(10, 0), torch.zeros(10, 2)]) + 0.01 * noise(30, 2, seed=1)
        found, known = kmeans_beside(points, 1, 4, seed=0, labeled=labeled)
        assert known.tolist() == [True] * 20 + [False] * 10
        assert torch.allclose(found.centres[-1], points[20:].mean(0), atol=1e-4)

    @pytest.mark.parametrize("n", [1, 2, 50])
    def test_they_are_as_many_as_asked_and_those_of_the_labeled_alone(self, n: int) -> None:
        labeled, points = noise(7, 3), noise(40, 3, seed=1)
        found, known = kmeans_beside(points, 4, n, seed=3, labeled=labeled)
        own = kmeans(labeled, min(n, 7), seed=3).centres
        assert torch.allclose(found.centres[: len(own)], own, atol=1e-6)
        assert len(found.centres) == len(own) + 4
        assert torch.equal(known, torch.cdist(points, found.centres).argmin(1) < len(own))

    @pytest.mark.parametrize("labeled", [None, torch.zeros(0, 3)])
    def test_nothing_is_labeled(self, labeled: torch.Tensor | None) -> None:
        points = noise(40, 3)
        found, known = kmeans_beside(points, 4, 9, seed=3, labeled=labeled)
        assert not bool(known.any())
        assert torch.equal(found.labels, kmeans(points, 4, seed=3).labels)

    def test_weights_are_of_the_points_alone(self) -> None:
        points, weights = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([3.0, 1.0, 1.0])
        found, _ = kmeans_beside(points, 1, 1, seed=0, labeled=torch.tensor([[10.0]]), weights=weights)
        assert found.centres.flatten().tolist() == pytest.approx([10, 0.25], abs=1e-5)


def test_a_centre_without_points_moves_to_the_farthest_point() -> None:
    """One step, worked out by hand: of three centres the middle one has no points, and (9,) is 4 from its own."""
    points = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    lead = _Lead(points, None)
    centres = torch.tensor([[0.5], [50.0], [5.0]]) - lead.middle
    now = lead.assign(centres)
    assert lead.share.column(_Share.own_labels).tolist() == [0, 0, 2, 2]
    assert now.inertia == pytest.approx(0.25 + 0.25 + 16)

    def moved(held: int) -> list[float]:
        return (lead.move(centres, now, held=held) + lead.middle).flatten().tolist()

    assert moved(0) == [0.5, 9.0, 7.0]
    assert moved(2) == [0.5, 50.0, 7.0], "those that are fixed stay"


def test_more_vacant_centres_than_points_and_points_without_a_pull() -> None:
    points = torch.tensor([[0.0], [8.0]])
    lead = _Lead(points, torch.tensor([1.0, 0.0]))
    centres = torch.tensor([[1.0], [90.0], [91.0], [92.0]]) - lead.middle
    moved = lead.move(centres, lead.assign(centres), held=0) + lead.middle
    assert moved.flatten().tolist() == [0.0, 0.0, 8.0, 92.0], (
        "by how far a point is times its pull, and there are two points"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_mean_is_added_up_in_float64(dtype: torch.dtype) -> None:
    points = (noise(5000, 3) * 100 + 3000).to(dtype)
    assert torch.allclose(mean_of(points), points.double().mean(0), rtol=1e-12)
    assert mean_of(points).dtype == torch.float64
