"""The strategies beyond the protocol, each against a naive implementation on all pairs of points."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_names import DIVERSITIES
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.strategies.facility_location import facility_location
from cval_torch.strategies.k_center import first_greatest, k_center
from cval_torch.strategies.kmeans import kmeans
from cval_torch.strategies.kmeans_plus_plus import kmeans_plus_plus
from cval_torch.strategies.typicality import mean_distance, typicality
from cval_torch.strategies.weighted_kmeans import weighted_kmeans


def noise(rows: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def squares(points: Tensor, others: Tensor) -> Tensor:
    return (points.double()[:, None] - others.double()).square().sum(2)


def blobs(sizes: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.eye(8)[labels] * 3 + 0.05 * noise(len(labels), 8, seed), labels


def naive_k_center(points: Tensor, n: int, labeled: Tensor | None) -> list[int]:
    if labeled is None:
        chosen = [int((points.double() - points.double().mean(0)).square().sum(1).argmax())]
    else:
        chosen = [int(squares(points, labeled).amin(1).argmax())]
    while len(chosen) < n:
        taken = points[chosen] if labeled is None else torch.cat([labeled, points[chosen]])
        chosen.append(int(squares(points, taken).amin(1).argmax()))
    return chosen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labeled", [0, 1, 300])
def test_k_center(seed: int, labeled: int) -> None:
    points = noise(200, seed=seed) + 50
    known = noise(labeled, seed=seed + 100) * 0.1 + 50 if labeled else None
    assert k_center(points, 40, seed=0, labeled=known).tolist() == naive_k_center(points, 40, known)


@given(
    places=st.lists(st.tuples(*[st.integers(-2, 2)] * 2), min_size=1, max_size=40),
    known=st.lists(st.tuples(*[st.integers(-2, 2)] * 2), max_size=6),
    candidates=st.integers(1, 9),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_k_center_looks_at_few_rows_at_a_time_and_ties_go_by_row(
    places: list[tuple[int, int]], known: list[tuple[int, int]], candidates: int, data: st.DataObject
) -> None:
    points, labeled = torch.tensor(places).float() + 10, torch.tensor(known).float().reshape(-1, 2) + 10
    n = data.draw(st.integers(1, len(points)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys.modules["cval_torch.strategies.k_center"], "_CANDIDATES", candidates)
        chosen = k_center(points, n, seed=0, labeled=labeled).tolist()
    assert chosen == naive_ties(points, n, labeled)


def naive_ties(points: Tensor, n: int, labeled: Tensor) -> list[int]:
    """As `naive_k_center`, but what is equally far in float32 is, and no row is chosen twice."""
    if len(labeled) == 0:
        closest = (points.double() - points.double().mean(0)).square().sum(1)
    else:
        closest = squares(points, labeled).amin(1)
    chosen: list[int] = []
    for _ in range(n):
        left = [row for row in range(len(points)) if row not in chosen]
        chosen.append(max(left, key=lambda row: (float(closest[row].float()), -row)))
        step = squares(points, points[chosen[-1:]]).squeeze(1)
        closest = step if len(chosen) == 1 and len(labeled) == 0 else torch.minimum(closest, step)
    return chosen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scenes", [0, 40])
def test_k_center_of_many_frames_is_that_of_the_naive_loop(dtype: torch.dtype, scenes: int) -> None:
    points = noise(4000, 16)
    if scenes:
        points = noise(scenes, 16, seed=1).repeat(4000 // scenes, 1) + 0.1 * points
    points = points.to(dtype)
    chosen = k_center(points, 150, seed=0).tolist()
    closest = (points.double() - points.double().mean(0)).square().sum(1)
    for turn, row in enumerate(chosen):
        assert row == int(closest.argmax())
        step = squares(points, points[row : row + 1]).squeeze(1)
        closest = torch.minimum(closest, step) if turn else step


def test_k_center_is_within_twice_the_best_radius() -> None:
    points = noise(11, 2)
    best = min(squares(points, points[list(rows)]).amin(1).max() for rows in itertools.combinations(range(11), 3))
    ours = squares(points, points[k_center(points, 3, seed=0)]).amin(1).max()
    assert ours.sqrt() <= 2 * best.sqrt()


def test_equally_far_ones_go_by_row() -> None:
    points = torch.tensor([[0.0], [1.0], [-1.0], [1.0], [-1.0]])
    assert k_center(points, 5, seed=0).tolist() == [1, 2, 0, 3, 4]
    assert first_greatest(torch.tensor([1.0, 3.0, 3.0])) == 1


def naive_facility(points: Tensor, n: int, labeled: Tensor | None, weights: Tensor) -> list[int]:
    centred = points.double() - points.double().mean(0)
    cost = torch.full((len(points),), 4 * float(centred.square().sum(1).max()), dtype=torch.float64)
    if labeled is not None:
        cost = torch.minimum(cost, squares(points, labeled).amin(1))
    pairs, chosen = squares(points, points), []
    for _ in range(n):
        gains = ((cost[:, None] - pairs).clamp_min(0) * weights[:, None]).sum(0)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        cost = torch.minimum(cost, pairs[:, chosen[-1]])
    return chosen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labeled", [0, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_facility_location(seed: int, labeled: int, weighted: bool) -> None:
    points = noise(150, seed=seed)
    known = noise(labeled, seed=seed + 9) if labeled else None
    weights = torch.rand(150, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got = facility_location(points, 20, seed=0, labeled=known, weights=weights if weighted else None)
    assert got.tolist() == naive_facility(points, 20, known, weights if weighted else torch.ones(150))


@pytest.mark.parametrize("scenes", [0, 20])
def test_facility_location_of_many_frames_is_that_of_the_naive_loop(scenes: int) -> None:
    points = noise(1000, 16)
    if scenes:
        points = noise(scenes, 16, seed=1).repeat(1000 // scenes, 1) + 0.1 * points
    weights = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = facility_location(points, 60, seed=0, weights=weights).tolist()
    assert chosen == naive_facility(points, 60, None, weights)


def test_facility_location_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = noise(90)
    whole = facility_location(points, 9, seed=0)
    module = sys.modules["cval_torch.strategies.facility_location"]  # as an attribute, the function of that name
    monkeypatch.setattr(module, "_CANDIDATES", 7)
    assert torch.equal(whole, facility_location(points, 9, seed=0))


def test_weighted_kmeans_takes_the_most_informative_of_each_cluster() -> None:
    points, truth = blobs([30, 20, 10])
    weights = torch.rand(60, generator=torch.Generator().manual_seed(1)) + 0.1
    rows = weighted_kmeans(points, 3, seed=0, weights=weights).tolist()
    best = [int(torch.where(truth == blob, weights, 0).argmax()) for blob in range(3)]
    assert rows == sorted(best, key=lambda row: -weights[row])


def test_weighted_kmeans_against_its_definition() -> None:
    points, weights = noise(80), torch.rand(80, generator=torch.Generator().manual_seed(1))
    found = kmeans(points, 10, seed=3, weights=weights)
    best = [max((found.labels == c).nonzero().squeeze(1).tolist(), key=lambda row: weights[row]) for c in range(10)]
    assert weighted_kmeans(points, 10, seed=3, weights=weights).tolist() == sorted(best, key=lambda row: -weights[row])


@pytest.mark.parametrize("weights", [None, torch.zeros(60)])
def test_weighted_kmeans_without_weights_takes_the_nearest(weights: Tensor | None) -> None:
    points, _ = blobs([30, 20, 10])
    assert torch.equal(
        weighted_kmeans(points, 3, seed=0, weights=weights), DIVERSITIES["clustering"](points, 3, seed=0)
    )


def test_weighted_kmeans_leaves_what_is_labeled_for_last() -> None:
    points, truth = blobs([30, 20, 10])
    rows = weighted_kmeans(points, 2, seed=0, weights=(truth == 0).double() + 0.1, labeled=torch.eye(8)[:1] * 3)
    assert set(truth[rows].tolist()) == {1, 2}


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
    points, truth = blobs([30, 12, 22])
    rows = typicality(points, 3, seed=0).tolist()
    assert truth[rows].tolist() == [0, 2, 1]
    for row in rows:
        members = (truth == truth[row]).nonzero().squeeze(1)
        means = naive_mean_distance(points[members], 20)
        assert row == members[means.index(min(means))]


def test_typicality_goes_to_clusters_without_labels_first() -> None:
    points, truth = blobs([30, 12, 22])
    labeled = torch.eye(8)[[0, 0, 2]] * 3
    # 64 frames and 3 labels in as many clusters as will be labeled: 3 + 3, but only three are apart
    assert truth[typicality(points, 1, seed=0, labeled=labeled[:2])].tolist() != [0]
    chosen = typicality(torch.eye(8)[truth], 3, seed=0, labeled=torch.eye(8)[[0, 0, 2]])
    assert truth[chosen].tolist() == [1, 2, 0]


@pytest.mark.parametrize("name", sorted(DIVERSITIES))
@pytest.mark.parametrize("n", [1, 4, 12])
@pytest.mark.parametrize(
    "make", [lambda: noise(12), lambda: torch.zeros(12, 3), lambda: torch.eye(3).repeat(4, 1), lambda: noise(12).half()]
)
@pytest.mark.parametrize("labeled", [0, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_distinct_and_the_same_again(
    name: str, n: int, make: Callable[[], Tensor], labeled: int, weighted: bool
) -> None:
    points = make()
    known = points[:labeled] if labeled else None
    weights = torch.arange(12).double() if weighted else None
    rows = DIVERSITIES[name](points, n, seed=5, labeled=known, weights=weights)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == n == len(rows)
    assert torch.equal(rows, DIVERSITIES[name](points, n, seed=5, labeled=known, weights=weights))


class TestHandedOn:
    """A later stage weighs by the scores of an earlier one."""

    @pytest.fixture
    def pool(self) -> Pool:
        points, _ = blobs([20, 20, 20])
        return Pool([f"{row:02d}" for row in range(60)], torch.arange(61), frame_embeddings=points,
                    scores=torch.rand(60, generator=torch.Generator().manual_seed(0)))  # fmt: skip

    @pytest.mark.parametrize("sort", ["descending", "ascending"])
    def test_higher_is_more_informative_in_either_direction(self, pool: Pool, sort: str) -> None:
        stages = [
            DetectionSampling.model_validate(
                {"num_of_samples": 60, "selection_strategy": "probability", "sort_strategy": sort}
            ),
            DetectionSampling(num_of_samples=3, selection_strategy="weighted_kmeans"),
        ]
        sign = 1 if sort == "descending" else -1
        assert pool.scores is not None
        best = [max(range(begin, begin + 20), key=lambda row: sign * pool.scores[row]) for begin in (0, 20, 40)]
        rows, scores, _ = run_stages(pool, stages)
        assert rows.tolist() == sorted(best, key=lambda row: -sign * pool.scores[row])
        assert scores.tolist() == pool.scores[rows].double().tolist()

    def test_negative_scores_and_frames_without_one(self, pool: Pool) -> None:
        """Of a callable that gives negative numbers; empty frames, which were sampled, weigh nothing."""
        empty = Pool(
            ["z"], torch.zeros(2, dtype=torch.int64), frame_embeddings=torch.eye(8)[:1] * 3, scores=torch.empty(0)
        )
        both = Pool.cat([pool, empty])
        first = DetectionSampling(
            num_of_samples=61, selection_strategy=lambda pool: torch.arange(len(pool)) - 100.0, null_policy="sample"
        )
        second = DetectionSampling(num_of_samples=3, selection_strategy="weighted_kmeans")
        rows, _, _ = run_stages(both, [first, second])
        assert rows.tolist() == [59, 39, 19]
