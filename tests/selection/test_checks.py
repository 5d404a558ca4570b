"""Whatever cannot be served is named before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tied_frames import make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.checks import check_apart, check_weights, checked_stages
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.service.protocol import DetectionSamplingRequest
from cval_torch.strategies.registry import STRATEGIES


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


def quota(strategy: Any) -> DetectionSampling:
    return stage(strategy, class_quotas={1: 1})


def test_stages_become_a_tuple_of_the_same_stages() -> None:
    one, two = stage(), stage("k_center")
    assert checked_stages(one) == (one,)
    assert checked_stages(iter([one, two])) == (one, two)  # type: ignore[arg-type]
    request = DetectionSamplingRequest(selection_strategy="entropy", num_of_samples=2)
    assert checked_stages([request])[0] is request


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_options_go_with_the_strategies_that_read_them(name: str) -> None:
    """Whether a strategy is an uncertainty of boxes, or compares frames, is known from its definition."""
    uncertainties = {"least", "margin", "ratio", "entropy"}
    ranks = uncertainties | {"probability", "random"}
    cases = (
        (stage(name, class_weights={1: 2.0}), name in uncertainties, f"`class_weights` weigh .* with '{name}'"),
        (stage(name, probs_weights=[1.0]), name == "entropy", f"`probs_weights` weigh .*`entropy`; got .* '{name}'"),
        (quota(name), name in ranks | {"auto", "class_gain"}, f"`class_quotas` are for .* '{name}' in stage 1"),
    )
    for one, fine, message in cases:
        if fine:
            assert checked_stages([stage(), one])[1] is one
        else:
            with pytest.raises(InvalidInputError, match=message):
                checked_stages([stage(), one])


def test_a_callable_ranks_by_numbers_that_nothing_weighs() -> None:
    def by_size(pool: Pool) -> torch.Tensor:
        return pool.counts

    assert len(checked_stages(quota(by_size))) == 1
    check_weights(stage(by_size))
    with pytest.raises(InvalidInputError, match=r"`class_weights` weigh least, margin, ratio, entropy .*by_size"):
        check_weights(stage(by_size, class_weights="balanced"))


def test_no_frame_is_chosen_again() -> None:
    labeled = make_tied_pool([1, 1]).replace(frame_ids=["b", "c"])
    check_apart(["a", "d"], labeled)
    check_apart(["a", "b"], None)
    check_apart([], labeled)
    with pytest.raises(InvalidInputError, match=r"cannot be chosen again: leave them out of `pool`; 'b' is in both"):
        check_apart(["a", "c", "b"], labeled)
