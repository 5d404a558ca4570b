"""A strategy of one's own, as a callable and by a name in the registry."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scripts import EXAMPLES

from cval_torch import Pool
from cval_torch.strategies import STRATEGIES


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the script defines. It adds a name to the registry, which no other test may see."""
    before = dict(STRATEGIES)
    yield runpy.run_path(str(EXAMPLES / "extend/strategy.py"))
    STRATEGIES.clear()
    STRATEGIES.update(before)


def test_strategy(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    by_callable, by_name, within_a_budget = names["main"](frames=60)
    assert len(set(by_callable)) == len(set(by_name)) == 8
    assert within_a_budget[: len(by_name)] == by_name[: len(within_a_budget)]  # it is greedy
    assert "by farthest_from_mean" in capsys.readouterr().out


def test_small_objects_by_hand(names: dict[str, Any]) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 5], [0, 0, 2, 3], [1, 1, 2, 2]])
    pool = Pool(["a", "b", "c"], torch.tensor([0, 2, 2, 3]), boxes=boxes)
    assert names["small_objects"](pool).tolist() == [-6, -1e9, -1]


def test_farthest_from_mean_by_hand(names: dict[str, Any]) -> None:
    embeddings = torch.tensor([[1.0, 0], [0, 0], [-4, 0], [3, 0]])  # the mean is the origin
    assert names["farthest_from_mean"](embeddings, 3, seed=0).tolist() == [2, 3, 0]
