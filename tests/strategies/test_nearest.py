"""Distances to centres against differences in float64, and the same whatever rows are looked at beside a row."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import noise

from cval_torch.strategies.nearest import closest_of, distances_to_own, nearest_centres, squared_distances


@given(rows=st.integers(1, 9), centres=st.integers(1, 9), seed=st.integers(0, 99), far=st.sampled_from([0.0, 300.0]))
@settings(deadline=None)
def test_squared_distances_against_differences(rows: int, centres: int, seed: int, far: float) -> None:
    points, others = noise(rows, 4, seed).double() + far, noise(centres, 4, seed + 1).double() + far
    points[0] = others[0]
    expected = (points[:, None] - others).square().sum(2)
    got = squared_distances(points, others)
    assert torch.allclose(got, expected, atol=1e-6)
    assert got[0, 0] == 0
    nearest = closest_of(points, (points * points).sum(1), others, torch.full((rows,), 1.0).double())
    assert torch.allclose(nearest, expected.amin(1).clamp_max(1.0), atol=1e-6)


@given(data=st.data(), width=st.sampled_from([1, 3, 64, 257]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_what_is_nearest_does_not_depend_on_the_rows_beside(data: st.DataObject, width: int, seed: int) -> None:
    """Rows lie just between two centres, or on one, where a product rounds either way."""
    centres = noise(data.draw(st.integers(1, 40)), width, seed)
    pairs = torch.randint(0, len(centres), (300, 2), generator=torch.Generator().manual_seed(seed))
    rows = (centres[pairs[:, 0]] + centres[pairs[:, 1]]) / 2
    squares = (centres * centres).sum(1)
    labels = nearest_centres(rows, centres, squares)
    differences = (rows[:, None].double() - centres.double()).square().sum(2)
    assert torch.equal(labels, differences.argmin(1))
    own = distances_to_own(rows, centres, squares, labels)
    assert torch.allclose(own.double(), differences.amin(1), atol=1e-4)
    assert not bool(own[pairs[:, 0] == pairs[:, 1]].any()), "a copy of a centre is at 0"
    some = data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=9))
    assert torch.equal(nearest_centres(rows[some], centres, squares), labels[some])
    assert torch.equal(distances_to_own(rows[some], centres, squares, labels[some]), own[some])
