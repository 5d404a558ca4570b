"""`k_center` against a naive loop over all pairs of points."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import noise, squares
from torch import Tensor

from cval_torch.strategies.k_center import Front, first_greatest, greatest_rows, k_center


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
        module = sys.modules["cval_torch.strategies.k_center"]
        monkeypatch.setattr(module, "_CANDIDATES", candidates)
        monkeypatch.setattr(module, "_FRONT", data.draw(st.integers(2, 4)))
        chosen = k_center(points, n, seed=0, labeled=labeled).tolist()
    assert chosen == naive_ties(points, n, labeled)


@given(
    values=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    count=st.integers(1, 5),
    front=st.integers(2, 4),
    data=st.data(),
)
@settings(deadline=None)
def test_a_front_finds_what_is_greatest_of_all(values: list[int], count: int, front: int, data: st.DataObject) -> None:
    falling, found = torch.tensor(values, dtype=torch.float64), Front()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys.modules["cval_torch.strategies.k_center"], "_FRONT", front)
        for _ in range(4):
            rows, bound, following = found.greatest(falling, count)
            expected, least, first = greatest_rows(falling.float(), count)
            assert (rows.tolist(), bound, following) == (expected.tolist(), least, first)
            some = data.draw(st.lists(st.sampled_from(range(len(values))), max_size=9))
            falling[torch.tensor(some, dtype=torch.int64)] -= 1


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
