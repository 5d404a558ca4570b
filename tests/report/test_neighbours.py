"""Nearest frames and near-duplicates, beside naive loops over descriptors."""

from __future__ import annotations

import pytest
import torch
from reported import described

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.report.neighbours import Near, Places
from cval_torch.strategies.descriptor import classes_of, frame_descriptors

POOL = described(40)
LABELED = described(9, seed=3, prefix="labeled", classes=4)
CHOSEN = torch.tensor([5, 30, 2, 17])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).pow(2).sum().sqrt())


def points() -> tuple[torch.Tensor, torch.Tensor]:
    classes = classes_of(POOL, LABELED)
    return frame_descriptors(POOL, classes=classes), frame_descriptors(LABELED, classes=classes, part=True)


def test_the_nearest_annotated_or_chosen_before() -> None:
    ours, theirs = points()
    for rank, near in enumerate(Places(POOL, LABELED).nearest_before(CHOSEN)):
        before = [(distance(ours[CHOSEN[rank]], ours[row]), row, False) for row in CHOSEN[:rank].tolist()]
        before += [(distance(ours[CHOSEN[rank]], theirs[row]), row, True) for row in range(len(LABELED))]
        value, row, is_annotated = min(before)
        assert near is not None
        assert (near.row, near.is_annotated) == (row, is_annotated)
        assert near.distance == pytest.approx(value, abs=1e-5)


def test_the_first_choice_has_none_where_nothing_was_annotated() -> None:
    first, second, *_ = Places(POOL, None).nearest_before(CHOSEN)
    assert first is None
    assert second is not None
    assert (second.row, second.is_annotated) == (5, False)


@pytest.mark.parametrize("radius", [0.0, 0.6, 0.9, 5.0])
def test_each_frame_is_listed_under_the_nearest_chosen_one(radius: float) -> None:
    ours, _ = points()
    expected: list[list[tuple[float, int]]] = [[] for _ in CHOSEN]
    for row in range(len(POOL)):
        if row not in CHOSEN.tolist():
            value, owner = min((distance(ours[row], ours[each]), place) for place, each in enumerate(CHOSEN.tolist()))
            if value <= radius:
                expected[owner].append((value, row))
    found = Places(POOL, None).stands_for(CHOSEN, radius)
    assert [[near.row for near in each] for each in found] == [[row for _, row in sorted(each)] for each in expected]
    if radius == 5.0:
        assert sum(map(len, found)) == 36


def test_copies_are_at_distance_zero() -> None:
    twice = Pool.cat([POOL, POOL.replace(frame_ids=[f"copy-{row}" for row in range(40)])])
    found = Places(twice, None).stands_for(torch.tensor([7]), 1e-3)
    assert found == [[Near(0.0, 47)]]


def test_the_median_distance_is_that_of_all_pairs() -> None:
    ours, _ = points()
    values = torch.tensor([distance(ours[i], ours[j]) for i in range(40) for j in range(i)])
    assert Places(POOL, None).median_distance() == pytest.approx(float(values.median()), abs=1e-5)
    assert Places(POOL.take([3]), None).median_distance() == 0.0


def test_vectors_are_those_of_both() -> None:
    ours, theirs = points()
    found = Places(POOL, LABELED).vectors(torch.tensor([4, 1]), [2])
    assert torch.allclose(found, torch.stack([ours[4], ours[1], theirs[2]]).double(), atol=1e-6)


def test_no_embeddings_no_places() -> None:
    with pytest.raises(InvalidInputError, match="embeddings"):
        Places(POOL.only(("scores", "labels")), None)
