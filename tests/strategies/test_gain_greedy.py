"""`gain_greedy` with few rows at hand against a loop over all; for several processes see `test_shared_rows.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cval_torch.strategies.class_sums import ClassSums
from cval_torch.strategies.gain_greedy import add_by_class, gain_greedy


def naive(
    places: Tensor, expected: Tensor, labeled: Tensor, n: int, quotas: Sequence[tuple[Tensor, int]] = ()
) -> list[int]:
    """Of frames with one object each of a class of (F, K) `expected`, without doubt and without a known object."""
    places, taken = places.double(), list(labeled.double())
    known, middle, chosen = torch.zeros(expected.shape[1], dtype=torch.float64), None, list[int]()
    free = torch.ones(len(places), dtype=torch.bool)
    gaining, waiting = True, [*quotas, (torch.ones(len(places), dtype=torch.bool), n)]
    while len(chosen) < n:
        among, quota = waiting[0]
        if int(among[chosen].sum()) >= quota or not (among & free).any():
            gaining, waiting = True, waiting[1:]
            continue
        nearest = torch.full((len(places),), 9.0, dtype=torch.float64)
        if taken:
            nearest = (places[:, None] - torch.stack(taken)).square().sum(2).amin(1)
            middle = max(float(nearest.sort().values[(len(nearest) - 1) // 2]), 1e-12) if middle is None else middle
        gains = (0.3 * expected / (known + 1)).sum(1) / (expected.sum(1) + 0.5).sqrt()
        worth = gains * nearest / (nearest + (middle or 0)) if gaining else nearest
        worth = torch.where(free & among, worth, -1).float()
        best = int((worth == worth.amax()).nonzero()[0])
        if float(worth[best]) == 0 and gaining:
            gaining = False
            continue
        chosen.append(best)
        taken.append(places[best])
        free[best] = False
        known += expected[best]
    return chosen


@given(
    places=st.lists(st.tuples(*[st.integers(0, 3)] * 2), min_size=1, max_size=40),
    known=st.lists(st.tuples(*[st.integers(0, 3)] * 2), max_size=4),
    candidates=st.integers(1, 9),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_few_rows_at_hand_give_the_choice_of_a_loop_and_ties_go_by_row(
    places: list[tuple[int, int]], known: list[tuple[int, int]], candidates: int, seed: int, data: st.DataObject
) -> None:
    points, labeled = torch.tensor(places) / 4, torch.tensor(known).reshape(-1, 2) / 4
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (len(points),), generator=generator)
    sizes = torch.randint(0, 3, (len(points),), generator=generator) / 2
    objects = ClassSums(torch.arange(len(points) + 1), labels, torch.stack([torch.zeros_like(sizes), sizes], 1))
    expected = torch.zeros(len(points), 3, dtype=torch.float64)
    expected[torch.arange(len(points)), labels] = sizes.double()
    n = data.draw(st.integers(1, len(points)))
    masks = [torch.rand(len(points), generator=generator) < share for share in (0.1, 0.5)]
    quotas = [(mask, data.draw(st.integers(1, 9))) for mask in masks[: data.draw(st.integers(0, 2))]]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys.modules["cval_torch.strategies.k_center"], "_CANDIDATES", candidates)
        monkeypatch.setattr(sys.modules["cval_torch.strategies.gain_greedy"], "_FRONT", data.draw(st.integers(1, 4)))
        chosen = gain_greedy(
            points,
            objects,
            classes=torch.arange(3),
            known=torch.zeros(3, dtype=torch.float64),
            labeled=labeled,
            n=n,
            quotas=quotas,
        )
    assert chosen.tolist() == naive(points, expected, labeled, n, quotas)


def test_what_is_known_grows_by_class() -> None:
    known = torch.tensor([1.0, 0.0], dtype=torch.float64)
    add_by_class(known, torch.tensor([1, 0, 1]), torch.tensor([0.5, 2.0, 0.25]))
    assert known.tolist() == [3.0, 0.75]
