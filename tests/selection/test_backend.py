"""What a selection says of the frames that were chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Backend, Selection
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling


def stage(strategy: Any = "entropy", n: int = 2, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def select(pool: Pool, *stages: DetectionSampling) -> Selection:
    return LocalBackend().select(pool, stages)


@pytest.fixture
def pool() -> Pool:
    """Frames of 2, 0, 1, 3, 0 and 1 boxes."""
    return Pool(
        ["f", "e", "d", "c", "b", "a"],
        torch.tensor([0, 2, 2, 3, 6, 6, 7]),
        scores=torch.tensor([0.9, 0.6, 0.5, 0.99, 0.7, 0.8, 0.95]),
        indices=torch.tensor([10, 20, 30, 40, 50, 60]),
        box_embeddings=torch.eye(7),
        frame_embeddings=torch.eye(6),
    )


def test_it_is_a_backend() -> None:
    assert isinstance(LocalBackend(), Backend)


def test_a_selection_names_frames_rows_and_indices(pool: Pool) -> None:
    chosen = LocalBackend().select(pool, stage(n=3, null_policy="skip"))
    assert chosen.frame_ids == ("d", "f", "c")
    assert chosen.rows.tolist() == [2, 0, 3]
    assert chosen.indices is not None
    assert chosen.indices.tolist() == [30, 10, 40]
    assert chosen.scores.dtype == torch.float64
    assert chosen.scores[0] == 1
    assert len(chosen) == 3
    assert len(chosen.stages) == 1


def test_a_pool_without_indices_gives_none(pool: Pool) -> None:
    assert select(pool.replace(indices=None), stage()).indices is None


@given(rows=st.permutations(range(6)), n=st.integers(0, 6))
def test_what_a_selection_says_is_what_the_pool_says_of_its_rows(rows: list[int], n: int) -> None:
    scores = [[0.9, 0.6], [], [0.5], [0.99, 0.7, 0.8], [], [0.25]]
    pool = Pool(
        list("fedcba"),
        torch.tensor([0, *(len(frame) for frame in scores)]).cumsum(0),
        scores=torch.tensor([score for frame in scores for score in frame]),
        indices=torch.arange(6) * 10,
    )
    chosen = rows[:n]
    made = Selection.of(pool, torch.tensor(chosen, dtype=torch.int64), torch.arange(n).double(), (), remarks=("one",))
    assert made.frame_ids == tuple("fedcba"[row] for row in chosen)
    assert made.rows.tolist() == chosen
    assert made.indices is not None
    assert made.indices.tolist() == [10 * row for row in chosen]
    assert made.estimated_boxes is not None
    assert made.estimated_boxes.tolist() == pytest.approx([math.fsum(scores[row]) for row in chosen], abs=1e-6)
    assert made.num_of_boxes == pytest.approx(math.fsum(score for row in chosen for score in scores[row]), abs=1e-6)
    assert made.scores.tolist() == list(range(n))
    assert made.remarks == ("one",)
    assert len(made) == n


def test_without_scores_boxes_are_counted() -> None:
    pool = Pool(["a", "b"], torch.tensor([0, 3, 4]))
    made = Selection.of(pool, torch.tensor([1, 0]), torch.zeros(2), ())
    assert made.num_of_boxes == 4
    assert made.estimated_boxes is not None
    assert made.estimated_boxes.tolist() == [1, 3]


def test_a_backend_of_ones_own_need_not_say_what_frames_cost(pool: Pool) -> None:
    class First:
        """The first frames of the pool."""

        def select(self, pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]) -> Selection:
            ran = (stages,) if isinstance(stages, DetectionSampling) else tuple(stages)
            rows = torch.arange(ran[-1].num_of_samples or 1)
            return Selection(tuple(pool.frame_ids[row] for row in rows.tolist()), rows, rows.double(), ran)

    assert isinstance(First(), Backend)
    assert not isinstance(object(), Backend)
    chosen = First().select(pool, [stage("entropy"), stage("k_center", 2)])
    assert math.isnan(chosen.num_of_boxes)
    assert repr(chosen) == "Selection(2 frames of about nan boxes by entropy -> k_center)"
    assert chosen.indices is None
    assert chosen.remarks == ()


def test_its_words(pool: Pool) -> None:
    assert repr(select(pool, stage("least", 2, null_policy="skip"))) == "Selection(2 frames of about 2 boxes by least)"
