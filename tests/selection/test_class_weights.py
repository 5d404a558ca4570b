"""Weights of classes: the formula against its definition, and frame scores against naive loops."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_names import UNCERTAINTIES

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.class_weights import balanced_class_weights, box_weights, class_counts
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.strategies.scores import class_distribution

COUNTS = st.dictionaries(
    st.integers(-3, 90), st.one_of(st.just(0.0), st.floats(0, 1e6), st.integers(0, 10**6)), max_size=12
)


def stage(strategy: Any = "entropy", n: int = 5, **options: Any) -> DetectionSampling:
    return DetectionSampling.model_validate({"selection_strategy": strategy, "num_of_samples": n, **options})


def make_pool(kind: str = "softmax", *, frames: int = 30, seed: int = 0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 6, (frames,), generator=generator)
    boxes = int(counts.sum())
    numbers = torch.randn(boxes, 5, generator=generator) * 2
    return Pool(
        [f"{row:03}" for row in torch.randperm(frames, generator=generator).tolist()],
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(0, 5, (boxes,), generator=generator),
        probabilities={"softmax": numbers.softmax(1), "sigmoid": numbers.sigmoid(), "scores": None}[kind],
        activation=None if kind == "scores" else kind,  # type: ignore[arg-type]
    )


@given(counts=COUNTS, classes=st.sets(st.integers(-3, 90)), smoothing=st.floats(0.01, 10), cap=st.floats(1, 50))
@settings(max_examples=200, deadline=None)
def test_balanced_weights_are_what_they_say(
    counts: dict[int, float], classes: set[int], smoothing: float, cap: float
) -> None:
    weights = balanced_class_weights(counts, classes=classes, smoothing=smoothing, cap=cap)
    assert weights.keys() == counts.keys() | classes
    objects = {label: counts.get(label, 0) for label in weights}
    total = sum(objects.values())
    if total == 0:
        assert set(weights.values()) <= {1.0}
        return
    assert all(0 < weight <= cap for weight in weights.values())
    assert sum(objects[label] * weights[label] for label in weights) == pytest.approx(total)
    # below the cap a weight is inverse to the smoothed count, and at the cap it would have been no less
    scales = [weight * (objects[label] + smoothing) for label, weight in weights.items() if weight < cap]
    if scales:
        assert scales == pytest.approx([scales[0]] * len(scales))
        for label, weight in weights.items():
            assert weight < cap or scales[0] / (objects[label] + smoothing) >= cap * (1 - 1e-9)


def test_next_to_nothing_counted_is_nothing() -> None:
    assert balanced_class_weights({1: 5e-324, 2: 1e-12}, classes=[3]) == {1: 1.0, 2: 1.0, 3: 1.0}


def test_without_smoothing_and_cap_they_are_those_of_scikit_learn() -> None:
    class_weight = pytest.importorskip("sklearn.utils.class_weight")
    labels = [0] * 50 + [1] * 30 + [2] * 4
    theirs = class_weight.compute_class_weight("balanced", classes=np.arange(3), y=labels)
    ours = balanced_class_weights({0: 50, 1: 30, 2: 4}, smoothing=1e-9, cap=1e9)
    assert list(ours.values()) == pytest.approx(theirs.tolist())


@given(counts=COUNTS, others=st.sets(st.integers(-3, 90)), seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_neither_other_classes_nor_their_order_matter(counts: dict[int, float], others: set[int], seed: int) -> None:
    weights = balanced_class_weights(counts, classes=[1000])
    shuffled = list(counts.items())
    random.Random(seed).shuffle(shuffled)
    more = balanced_class_weights(dict(shuffled), classes=[*others, 1000])
    assert {label: more[label] for label in weights} == weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": {1: -1}}, "`counts` must be.*got 1: -1"),
        ({"counts": {1: math.nan}}, "`counts` must be.*got 1: nan"),
        ({"counts": {"car": 1}}, "got 'car': 1"),
        ({"counts": {1.5: 1}}, "got 1.5: 1"),
        ({"counts": {1: None}}, "got 1: None"),
        ({"counts": [3, 4]}, "must be a dict of label to objects; got list"),
        ({"counts": {1: 1}, "smoothing": 0}, "`smoothing`.*got 0"),
        ({"counts": {1: 1}, "smoothing": math.inf}, "`smoothing`.*got inf"),
        ({"counts": {1: 1}, "cap": 0.5}, "`cap`.*got 0.5"),
        ({"counts": {1: 1}, "cap": math.nan}, "`cap`.*got nan"),
    ],
)
def test_bad_counts_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        balanced_class_weights(**options)


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_counts_are_sums_of_scores_whatever_the_order_of_frames(seed: int) -> None:
    pool = make_pool(seed=seed)
    assert pool.labels is not None
    assert pool.scores is not None
    counts = class_counts(pool)
    shuffled = pool.take(torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)))
    assert class_counts(shuffled) == counts
    for label in range(5):
        mine = [s for s, other in zip(pool.scores.tolist(), pool.labels.tolist(), strict=True) if other == label]
        assert counts.get(label, 0) == pytest.approx(sum(mine))
    plain = class_counts(pool.replace(scores=None, probabilities=None, activation=None))
    assert plain == {label: pool.labels.tolist().count(label) for label in plain}


@given(
    labels=st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 4)),
    weights=st.dictionaries(st.integers(-1, 5), st.floats(0, 9)),
)
def test_box_weights(labels: list[int], weights: dict[int, float]) -> None:
    got = box_weights(torch.tensor(labels, dtype=torch.int64), weights)
    assert got.tolist() == [weights.get(label, 1.0) for label in labels]


AGGREGATED: dict[str, Any] = {"min": min, "max": max, "sum": math.fsum, "mean": statistics.fmean}


def naive(pool: Pool, strategy: str, policy: str, weights: dict[int, float]) -> list[float]:
    """Box by box; the uncertainties themselves are tested elsewhere."""
    assert pool.labels is not None
    results = []
    for begin, end in itertools.pairwise(pool.offsets.tolist()):
        values = []
        for box in range(begin, end):
            if pool.probabilities is None or pool.activation is None:
                column = pool.scores[box : box + 1]  # type: ignore[index]
            else:
                column = class_distribution(pool.probabilities[box : box + 1], pool.activation)
            values.append(float(UNCERTAINTIES[strategy](column)) * weights.get(int(pool.labels[box]), 1.0))
        values = values or [1.0]
        results.append(AGGREGATED[policy](values))
    return results


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "scores"])
@pytest.mark.parametrize("strategy", UNCERTAINTIES)
@pytest.mark.parametrize("policy", ["min", "max", "mean", "sum"])
def test_a_box_counts_by_its_class(kind: str, strategy: str, policy: str) -> None:
    pool, weights = make_pool(kind), {0: 0.0, 1: 3.0, 3: 0.25, 50: 7.0}
    got = frame_scores(pool, stage(strategy, bbox_selection_policy=policy, class_weights=weights))
    assert got.tolist() == pytest.approx(naive(pool, strategy, policy, weights), rel=1e-6)
    ones = frame_scores(pool, stage(strategy, bbox_selection_policy=policy, class_weights={}))
    assert ones.tolist() == pytest.approx(
        frame_scores(pool, stage(strategy, bbox_selection_policy=policy)).tolist(), rel=1e-6
    )


def test_a_policy_of_ones_own_gets_weighed_boxes() -> None:
    pool = make_pool()
    options = {"class_weights": {1: 3.0, 2: 0.5}}
    by_name = frame_scores(pool, stage(bbox_selection_policy="sum", **options))

    def total(scores: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.sum() for part in scores.split(offsets.diff().tolist())])

    assert frame_scores(pool, stage(bbox_selection_policy=total, **options)).tolist() == pytest.approx(by_name.tolist())


@pytest.mark.parametrize("kind", ["softmax", "scores"])
@pytest.mark.parametrize("policy", ["min", "max", "mean", "sum"])
@pytest.mark.parametrize("weights", [{0: 30.0, 1: 0.1}, "balanced"])
def test_large_pools_are_chosen_from_as_small_ones(kind: str, policy: str, weights: Any) -> None:
    """More frames than the first look of screening.py waits for."""
    pool = make_pool(kind, frames=10_500)
    counts = {0: 900.0, 1: 20.0, 2: 3.0}
    given_ = balanced_class_weights(counts, classes=range(5)) if weights == "balanced" else weights
    one = stage("entropy", 40, bbox_selection_policy=policy, class_weights=weights)
    rows, scores, ran = run_stages(pool, one, labeled_counts=counts)
    expected = frame_scores(pool, stage("entropy", bbox_selection_policy=policy, class_weights=given_))
    order = sorted(range(len(pool)), key=lambda row: (-float(expected[row]), pool.frame_ids[row]))[:40]
    assert rows.tolist() == order
    assert torch.equal(scores, expected[rows])
    assert ran == (one,), "the stage stays as it was given"


def test_rare_classes_come_first_and_unseen_ones_too() -> None:
    """Three frames with one box each of the same doubt: of a frequent, a rare and an unseen class."""
    pool = Pool(["a", "b", "c"], torch.arange(4), scores=torch.full((3,), 0.7), labels=torch.tensor([1, 2, 3]))
    one = stage("margin", 3, class_weights="balanced")
    exact = LocalBackend(labeled_counts={1: 80, 2: 20}).select(pool, one)
    assert exact.frame_ids == ("c", "b", "a")
    weights = balanced_class_weights({1: 80, 2: 20, 3: 0})
    assert exact.scores.tolist() == pytest.approx([0.6 * weights[label] for label in (3, 2, 1)])
    assert exact.stages == (one,)


def test_the_labelled_pool_is_counted_where_no_counts_are_given() -> None:
    pool, labeled = make_pool(seed=1), make_pool(seed=2)
    labeled = labeled.take(range(9)).replace(frame_ids=[f"labelled {row}" for row in range(9)])
    one = stage("entropy", 8, bbox_selection_policy="sum", class_weights="balanced")
    by_pool = LocalBackend(labeled=labeled).select(pool, one)
    by_counts = LocalBackend(labeled_counts=class_counts(labeled)).select(pool, one)
    assert by_pool.frame_ids == by_counts.frame_ids
    assert torch.equal(by_pool.scores, by_counts.scores)
    other = LocalBackend(labeled=labeled, labeled_counts={4: 1000}).select(pool, one)
    assert other.frame_ids != by_pool.frame_ids, "given counts are what counts"


def test_nothing_annotated_weighs_all_alike() -> None:
    pool = make_pool()
    balanced = LocalBackend(labeled_counts={}).select(pool, stage(n=30, class_weights="balanced"))
    assert balanced.frame_ids == LocalBackend().select(pool, stage(n=30, class_weights={})).frame_ids


@given(seed=st.integers(0, 999), policy=st.sampled_from(["min", "max", "mean", "sum"]))
@settings(max_examples=25, deadline=None)
def test_the_order_of_frames_changes_nothing(seed: int, policy: str) -> None:
    pool, labeled = make_pool(seed=seed), make_pool(seed=seed + 1)
    labeled = labeled.replace(frame_ids=[f"labelled {row}" for row in range(len(labeled))])
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    one = stage("least", 12, class_weights="balanced", bbox_selection_policy=policy)
    first = LocalBackend(labeled=labeled).select(pool, one)
    second = LocalBackend(labeled=labeled.take(order)).select(pool.take(order), one)
    assert first.frame_ids == second.frame_ids
    assert torch.equal(first.scores, second.scores)


def test_what_it_refuses() -> None:
    pool = make_pool()
    for strategy, name in (("probability", "'probability'"), (class_counts, "'class_counts'"), ("random", "'random'")):
        with pytest.raises(InvalidInputError, match=f"`class_weights` weigh least, margin.*got them with {name}"):
            LocalBackend().select(pool, stage(strategy, class_weights={1: 2}))
    with pytest.raises(InvalidInputError, match="`class_weights` need the column `labels`"):
        LocalBackend().select(pool.replace(labels=None), stage(class_weights={1: 2}))
    with pytest.raises(InvalidInputError, match=r"LocalBackend\(labeled_counts=.*LocalBackend\(labeled=.*balanced_cl"):
        LocalBackend().select(pool, stage(class_weights="balanced"))
    labeled = pool.replace(labels=None, frame_ids=[f"labelled {row}" for row in range(30)])
    with pytest.raises(InvalidInputError, match="labelled frames must have the column `labels`"):
        LocalBackend(labeled=labeled).select(pool, stage(class_weights="balanced"))
    with pytest.raises(InvalidInputError, match=r"`labeled_counts` must be.*got 'car': 3"):
        LocalBackend(labeled_counts={"car": 3})  # type: ignore[dict-item]


def test_frames_without_boxes_need_no_labels_and_weigh_1() -> None:
    empty = Pool(["a", "b"], torch.zeros(3, dtype=torch.int64))
    assert frame_scores(empty, stage(class_weights={1: 5})).tolist() == [1, 1]
