"""Whatever cannot be served is named before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tied_frames import make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.service.protocol import DetectionSamplingRequest


def stage(strategy: Any = "entropy", n: int = 3, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


class TestRefused:
    """Whatever cannot be served is named."""

    @pytest.mark.parametrize(
        ("stages", "message"),
        [
            ([], "at least one"),
            ([stage(), "entropy"], "str at 1"),
            (stage("entropi"), "one of least.*'entropi'"),
            (DetectionSamplingRequest(selection_strategy="entropy", num_of_samples=2, frames=[]), "`frames`"),
            (stage(probs_weights=[1.0, 2.0]), "C=4.*got 2"),
            (stage("margin", probs_weights=[1.0] * 4), "entropy.*'margin'"),
            ([stage(), stage("clustering", n=1, probs_weights=[1.0] * 4)], "`probs_weights`.*'clustering'"),
            (stage("random", probs_weights=[1.0] * 4), "`probs_weights`.*'random'"),
            (stage(lambda pool: pool.counts, probs_weights=[1.0] * 4), "`probs_weights`.*lambda"),
        ],
    )
    def test_stages(self, stages: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            run_stages(make_tied_pool([1, 2, 3]), stages)

    def test_an_empty_pool(self) -> None:
        with pytest.raises(InvalidInputError, match="at least one frame"):
            run_stages(Pool([], torch.zeros(1, dtype=torch.int64)), stage())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strategy": "entropy"}, "`probabilities` or `scores`"),
            ({"strategy": "probability"}, "`scores`"),
            ({"strategy": "clustering"}, "`box_embeddings` or `frame_embeddings`.*extract"),
            ({"strategy": "hierarchical"}, "`box_embeddings` or `frame_embeddings`.*extract"),
        ],
    )
    def test_missing_columns(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            run_stages(Pool(["a", "b"], torch.arange(3)), stage(n=1, **options))

    def test_weights_without_probabilities(self) -> None:
        pool = Pool(["a", "b"], torch.arange(3), scores=torch.rand(2))
        with pytest.raises(InvalidInputError, match="`probs_weights` need the column `probabilities`"):
            run_stages(pool, stage(n=1, probs_weights=[1.0, 2.0]))

    def test_null_detections(self) -> None:
        pool = Pool(["a", "b", "c"], torch.tensor([0, 1, 1, 1]), scores=torch.rand(1))
        for strategy in ("entropy", "random", "clustering"):
            with pytest.raises(InvalidInputError, match="'b' has no boxes"):
                run_stages(pool, stage(strategy, 1, use_null_detections=False))

    def test_a_labeled_frame_in_the_pool(self) -> None:
        pool = make_tied_pool([1, 2, 3])
        with pytest.raises(InvalidInputError, match=f"{min(pool.frame_ids)!r} is in both"):
            run_stages(pool, stage(), labeled=pool)
