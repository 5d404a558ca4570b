"""`facility_location` against a naive loop over all pairs of points."""

from __future__ import annotations

import sys

import pytest
import torch
from points import noise, squares
from torch import Tensor

from cval_torch.strategies.facility_location import facility_location


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
