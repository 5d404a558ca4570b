"""`weighted_kmeans` against its definition, alone and after a stage that gives the weights."""

from __future__ import annotations

import pytest
import torch
from points import blobs_in_order, noise
from strategy_names import DIVERSITIES
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.strategies.kmeans import kmeans
from cval_torch.strategies.weighted_kmeans import weighted_kmeans


def test_weighted_kmeans_takes_the_most_informative_of_each_cluster() -> None:
    points, truth = blobs_in_order([30, 20, 10])
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
    points, _ = blobs_in_order([30, 20, 10])
    assert torch.equal(
        weighted_kmeans(points, 3, seed=0, weights=weights), DIVERSITIES["clustering"](points, 3, seed=0)
    )


def test_weighted_kmeans_leaves_what_is_labeled_for_last() -> None:
    points, truth = blobs_in_order([30, 20, 10])
    rows = weighted_kmeans(points, 2, seed=0, weights=(truth == 0).double() + 0.1, labeled=torch.eye(8)[:1] * 3)
    assert set(truth[rows].tolist()) == {1, 2}


class TestHandedOn:
    """A later stage weighs by the scores of an earlier one."""

    @pytest.fixture
    def pool(self) -> Pool:
        points, _ = blobs_in_order([20, 20, 20])
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
