"""Work on points where they lie; points in several processes are met in `test_shared_rows.py`."""

from __future__ import annotations

import torch

from cval_torch.strategies.parts import Part, workers_of
from cval_torch.strategies.points import Joined


def _add_rows(part: Part) -> torch.Tensor:
    return part.rows + 100 * part.points[:].sum(1).long()


def _count(part: Part) -> tuple[int, int]:
    return len(part.points), part.total


def test_one_worker_has_all_points_of_this_process() -> None:
    ask = workers_of(torch.tensor([[1.0], [2.0]]), lambda part: part)
    assert ask.count == 1
    assert ask.each(_count) == [(2, 2)]
    assert ask.column(_add_rows).tolist() == [100, 201]
    assert int(ask.total(lambda part: part.rows.sum())) == 1


def test_points_that_stand_after_others_have_a_worker_of_their_own() -> None:
    joined = Joined(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0]]))
    ask = workers_of(joined, lambda part: part)
    assert ask.count == 2
    assert ask.each(_count) == [(2, 3), (1, 3)]
    assert ask.column(_add_rows).tolist() == [100, 201, 502]
    assert int(ask.total(lambda part: part.rows.sum())) == 3
