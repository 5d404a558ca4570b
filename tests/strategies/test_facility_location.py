"""`facility_location` against a naive loop over all pairs of points."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import Recorded, blobs, noise, squares
from torch import Tensor

from cval_torch.strategies.facility_location import _sample, _Unchosen, facility_location
from cval_torch.strategies.kmeans import Cloud
from cval_torch.strategies.points import Points

MODULE = sys.modules["cval_torch.strategies.facility_location"]  # as an attribute, the function of that name


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
    monkeypatch.setattr(MODULE, "_CANDIDATES", 7)
    assert torch.equal(whole, facility_location(points, 9, seed=0))


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """More than 100 rows are sampled: 64 at first, and anew after 4, 8, 16, ... choices."""
    for name, value in {"EXACT_ROWS": 100, "_FEWEST_SAMPLED": 64, "_CANDIDATES": 8, "_MOST_CANDIDATES": 32}.items():
        monkeypatch.setattr(MODULE, name, value)
    return monkeypatch


def gain(points: Tensor, rows: Tensor, weights: Tensor | None = None) -> float:
    """The objective: by how much the costs fall."""
    centred = points.double() - points.double().mean(0)
    saved = 4 * centred.square().sum(1).max() - squares(points, points[rows]).amin(1)
    return float((saved * (1 if weights is None else weights)).sum())


def cost(points: Tensor, rows: Tensor) -> float:
    return float(squares(points, points[rows]).amin(1).sum())


@pytest.mark.parametrize("labeled", [0, 5])
def test_where_all_rows_are_sampled_and_drawn_it_is_the_naive_loop(sampled: pytest.MonkeyPatch, labeled: int) -> None:
    sampled.setattr(MODULE, "_EPSILON", 1e-300)
    sampled.setattr(MODULE, "_FEWEST_SAMPLED", 150)
    sampled.setattr(MODULE, "_SAMPLED_A_CHOICE", 150)  # a new sample, the same rows, after 1, 2, 4, 8, 16
    points, known = noise(150), noise(labeled, seed=9) if labeled else None
    got = facility_location(points, 20, seed=3, labeled=known)
    assert got.tolist() == naive_facility(points, 20, known, torch.ones(150))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("weighted", [False, True])
def test_samples_come_within_the_bound(sampled: pytest.MonkeyPatch, seed: int, kind: str, weighted: bool) -> None:
    points, n = noise(1500, 8, seed), 30
    if kind == "scenes":
        points = noise(25, 8, seed + 9).repeat(60, 1) + 0.2 * points
    weights = torch.rand(1500, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    used = weights if weighted else torch.ones(1500, dtype=torch.float64)
    exact = torch.tensor(naive_facility(points, n, None, used))
    got = facility_location(points, n, seed=seed, weights=weights if weighted else None)
    centred = points.double() - points.double().mean(0)
    greatest = 4 * float(centred.square().sum(1).max()) * float(used.sum())
    best = gain(points, exact, used)
    assert gain(points, got, used) >= (1 - 1 / math.e - 0.1) * best
    # 64 rows are off by t of the greatest with 1 %
    assert gain(points, got, used) >= best - math.sqrt(math.log(200) / 128) * greatest
    drawn = torch.randperm(1500, generator=torch.Generator().manual_seed(seed))[:n]
    assert cost(points, got) < 0.6 * cost(points, exact) + 0.4 * cost(points, drawn)


@pytest.mark.parametrize("labeled", [False, True])
def test_the_choice_begins_with_that_of_fewer(sampled: pytest.MonkeyPatch, labeled: bool) -> None:
    points, known = noise(500), noise(3, seed=8) if labeled else None
    many = facility_location(points, 70, seed=1, labeled=known)
    for n in (1, 4, 5, 16, 33):
        assert torch.equal(facility_location(points, n, seed=1, labeled=known), many[:n])
    assert not torch.equal(facility_location(points, 70, seed=2, labeled=known), many)


def test_all_of_a_pool_of_copies(sampled: pytest.MonkeyPatch) -> None:
    for points in (torch.ones(130, 3), noise(13).repeat(10, 1)):
        rows = facility_location(points, 130, seed=0)
        assert rows.sort().values.tolist() == list(range(130))
        assert torch.equal(rows, facility_location(points, 130, seed=0))
    assert facility_location(torch.ones(130, 3), 2, seed=0).tolist() == [0, 1]  # all rows are looked at, by row
    # 13 distinct points: those that are drawn come first, one copy each
    assert len(torch.unique(facility_location(points, 13, seed=0) % 13)) >= 11


def test_what_is_labeled_is_not_chosen_again(sampled: pytest.MonkeyPatch) -> None:
    points, truth = blobs([90, 60, 50])
    known = torch.eye(8)[[0, 0, 2]] * 3
    assert truth[facility_location(points, 1, seed=0)].tolist() == [0]
    assert truth[facility_location(points, 1, seed=0, labeled=known)].tolist() == [1]
    assert torch.equal(facility_location(points, 9, seed=0, labeled=points[:0]), facility_location(points, 9, seed=0))


def test_frames_without_weight_are_served_by_chance_only(sampled: pytest.MonkeyPatch) -> None:
    points, truth = blobs([90, 60, 50])
    first = facility_location(points, 1, seed=0, weights=(truth == 1).double())
    assert truth[first].tolist() == [1]
    unweighted = facility_location(points, 9, seed=0)
    assert torch.equal(facility_location(points, 9, seed=0, weights=torch.zeros(200)), unweighted)
    assert torch.equal(facility_location(points, 9, seed=0, weights=torch.full((200,), 0.5)), unweighted)


def test_never_all_rows_at_once(sampled: pytest.MonkeyPatch) -> None:
    sampled.setattr(sys.modules["cval_torch.strategies.kmeans"], "_BLOCK_ELEMENTS", 500)
    sampled.setattr(sys.modules["cval_torch.strategies.points"], "_BLOCK_ELEMENTS", 500)
    sampled.setattr(MODULE, "_MOST_SAMPLED", 128)
    points = Recorded(noise(3000).half())
    assert isinstance(points, Points)
    rows = facility_location(points, 20, seed=0, labeled=noise(3))
    assert points.most <= 128
    assert len(torch.unique(rows)) == 20


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.3, 1.0, 7.0, 1e9]), min_size=1, max_size=60), st.integers(1, 80), st.data()
)
def test_a_sample_is_in_proportion_to_the_weights(values: list[float], size: int, data: st.DataObject) -> None:
    weights = torch.tensor(values)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    found = _sample(Cloud(torch.arange(len(values))[:, None], torch.zeros(1), weights), size, generator)
    times = torch.zeros(len(values))
    times[found.points[:].squeeze(1).long()] = found.pull
    expected = weights / weights.sum() if weights.sum() else torch.full_like(weights, 1 / len(weights))
    assert times.sum() == size
    assert ((times - size * expected).abs() < 2).all()
    if weights.sum():
        assert not times[weights == 0].any()


def test_a_sampled_sum_is_unbiased() -> None:
    weights = torch.tensor([0.1, 2.0, 0.0, 0.7, 1.3])
    cloud, total = Cloud(torch.arange(5.0)[:, None], torch.zeros(1), weights), torch.zeros(5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4000):
        found = _sample(cloud, 3, generator)
        total[found.points[:].squeeze(1).long()] += found.pull
    assert (total / 4000).tolist() == pytest.approx((3 * weights / weights.sum()).tolist(), abs=0.03)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.data())
def test_draws_are_of_rows_that_are_not_chosen(count: int, data: st.DataObject) -> None:
    unchosen, left, generator = _Unchosen(count), set(range(count)), torch.Generator().manual_seed(count)
    while left:
        drawn = unchosen.draw(data.draw(st.integers(1, count)), generator).tolist()
        assert drawn == sorted(set(drawn))
        assert drawn
        assert left.issuperset(drawn)
        assert unchosen.draw(len(left), generator).tolist() == sorted(left)
        row = data.draw(st.sampled_from(sorted(left)))
        unchosen.remove(row)
        left.remove(row)


def test_draws_are_uniform() -> None:
    unchosen, generator, times = _Unchosen(6), torch.Generator().manual_seed(0), torch.zeros(6)
    unchosen.remove(1)
    unchosen.remove(5)
    for _ in range(4000):
        times[unchosen.draw(1, generator)] += 1
    assert (times / 4000).tolist() == pytest.approx([0.25, 0, 0.25, 0.25, 0.25, 0], abs=0.03)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(101, 160), st.booleans(), st.booleans(), st.data())
def test_distinct_rows(seed: int, count: int, labeled: bool, weighted: bool, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "EXACT_ROWS", 100)
        patch.setattr(MODULE, "_FEWEST_SAMPLED", data.draw(st.integers(1, 64)))
        points = noise(count, 3, seed).round()  # many copies
        weights = noise(count, 1, seed).squeeze(1).clamp_min(0) if weighted else None
        known, n = noise(2, 3, seed + 1) if labeled else None, data.draw(st.integers(1, count))
        rows = facility_location(points, n, seed=seed, labeled=known, weights=weights)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == n
    assert int(rows.amin()) >= 0
    assert int(rows.amax()) < count
