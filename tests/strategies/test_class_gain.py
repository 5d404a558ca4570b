"""`class_gain` against a loop that follows its formula, and what it is for: scarce classes, one frame of a scene."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_descriptors import naive_descriptors

from cval_torch import LocalBackend, Pool
from cval_torch.errors import InvalidInputError
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.class_gain import class_gain


def make_pool(counts: list[int], seed: int, *, prefix: str = "f", classes: int = 4, kind: str = "sigmoid") -> Pool:
    generator = torch.Generator().manual_seed(seed)
    boxes = sum(counts)
    raw = torch.rand(boxes, classes, generator=generator)
    probabilities = raw / raw.sum(1, keepdim=True) if kind == "softmax" else raw
    return Pool(
        [f"{prefix}{row:03d}" for row in range(len(counts))],
        torch.tensor([0, *itertools.accumulate(counts)]),
        labels=probabilities.argmax(1),
        scores=torch.rand(boxes, generator=generator),
        probabilities=probabilities,
        activation=kind,  # type: ignore[arg-type]
        box_embeddings=torch.randn(boxes, 6, generator=generator),
        frame_embeddings=torch.randn(len(counts), 5, generator=generator),
    )


def entropy_of(row: list[float], kind: str) -> float:
    if kind == "sigmoid":
        odds = [p / (1 - p) for p in row]
        row = [o / (1 + sum(odds)) for o in odds] + [1 / (1 + sum(odds))]
    return -sum(p * math.log2(p) for p in row if p > 0) / math.log2(len(row))


def naive(pool: Pool, n: int, labeled: Pool | None, counts: dict[int, float] | None = None) -> list[int]:
    """By the docstring, box by box."""
    classes = sorted({label for each in (pool, labeled) if each is not None for label in each.labels.tolist()})  # type: ignore[union-attr]
    boxes = [range(int(pool.offsets[frame]), int(pool.offsets[frame + 1])) for frame in range(len(pool))]
    labels, squares = pool.labels.tolist(), pool.scores.double().square().tolist()  # type: ignore[union-attr]
    doubts = [entropy_of(row, str(pool.activation)) for row in pool.probabilities.double().tolist()]  # type: ignore[union-attr]
    known = Counter[int]()
    if counts is not None:
        known.update(counts)  # type: ignore[arg-type]
    elif labeled is not None:
        for label, score in zip(labeled.labels.tolist(), labeled.scores.tolist(), strict=True):  # type: ignore[union-attr]
            known[label] += score**2  # type: ignore[assignment]
    everyone = sum(p * doubt for p, doubt in zip(squares, doubts, strict=True)) / sum(squares)
    usual = {
        c: (everyone + sum(p * d for p, d, label in zip(squares, doubts, labels, strict=True) if label == c))
        / (1 + sum(p for p, label in zip(squares, labels, strict=True) if label == c))
        for c in classes
    }
    pools = [pool] if labeled is None else [pool, labeled]
    frames = torch.cat([each.frame_embeddings for each in pools]).double()  # type: ignore[misc]
    frames = (frames - frames.mean(0)) / frames.std(0, correction=0)
    frames = frames / frames.norm(dim=1, keepdim=True)
    looks = torch.tensor([row for each in pools for row in naive_descriptors(each, classes=classes)]).double()
    places = torch.cat([looks, frames], dim=1)
    taken = list(range(len(pool), len(places)))
    chosen: list[int] = []
    middle = None
    for _ in range(n):
        near = [
            min((float((places[frame] - places[other]).square().sum()) for other in taken), default=math.inf)
            for frame in range(len(pool))
        ]
        if middle is None and taken:
            middle = sorted(near)[(len(near) - 1) // 2]
        worth = []
        for frame in range(len(pool)):
            gain = sum(
                squares[box] * (0.3 + 0.7 * doubts[box] / usual[labels[box]]) / (known[labels[box]] + 1)
                for box in boxes[frame]
            )
            share = 1.0 if middle is None else near[frame] / (near[frame] + middle)
            objects = sum(squares[box] for box in boxes[frame])
            worth.append(-1.0 if frame in chosen else gain * share / math.sqrt(0.5 + objects))
        best = max(range(len(pool)), key=worth.__getitem__)
        chosen.append(best)
        taken.append(best)
        for box in boxes[best]:
            known[labels[box]] += squares[box]
    return chosen


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("labeled", [0, 7])
@pytest.mark.parametrize("counts", [None, {0: 2.5, 2: 40.0, 77: 3.0}])
@pytest.mark.parametrize("seed", range(2))
def test_it_is_its_formula(seed: int, counts: dict[int, float] | None, labeled: int, kind: str) -> None:
    pool = make_pool([3, 1, 4, 0, 2, 5, 1, 2, 3, 1] * 3, seed, kind=kind)
    known = make_pool([2] * labeled, seed + 50, prefix="known", kind=kind) if labeled else None
    chosen = class_gain(pool, 12, seed=0, labeled=known, labeled_counts=counts).tolist()
    assert chosen == naive(pool, 12, known, counts)
    # the backend hands on what was counted, and gives frames in the order of their ids, which is that of the rows
    stage = DetectionSampling(num_of_samples=12, selection_strategy="class_gain", use_null_detections=True)
    backend = LocalBackend(labeled=known, labeled_counts=counts)
    filled = pool.take(pool.counts.nonzero().squeeze(1))
    told = class_gain(filled, 12, seed=0, labeled=known, labeled_counts=counts)
    assert backend.select(filled, stage).rows.tolist() == told.tolist()


def scene(frame_ids: str, labels: list[int], looks: list[int], **columns: object) -> Pool:
    return Pool(
        list(frame_ids),
        torch.arange(len(labels) + 1),
        labels=torch.tensor(labels),
        scores=torch.full((len(labels),), 0.5),
        box_embeddings=torch.eye(8)[looks],
        **columns,  # type: ignore[arg-type]
    )


def test_scarce_classes_come_first() -> None:
    pool = scene("abcdef", [0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 4, 5])
    labeled = scene("XYZW", [0, 0, 1, 0], [6, 6, 6, 6])
    chosen = class_gain(pool, 3, seed=0, labeled=labeled)
    assert pool.labels is not None
    assert pool.labels[chosen].tolist() == [2, 1, 1]


def test_a_class_that_the_detector_is_sure_of_does_not_starve() -> None:
    """Class 1 is in doubt everywhere, class 0 hardly: as many objects of both are known, and as many are chosen."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    sure = torch.tensor([[0.95, 0.02, 0.03], [0.3, 0.4, 0.3]])[labels]
    pool = Pool(
        [f"{row:02d}" for row in range(40)],
        torch.arange(41),
        labels=labels,
        scores=torch.full((40,), 0.6),
        probabilities=sure,
        activation="softmax",
        box_embeddings=torch.randn(40, 8, generator=generator),
    )
    chosen = class_gain(pool, 10, seed=0, labeled_counts={0: 5, 1: 5})
    assert 4 <= int(labels[chosen].sum()) <= 6


def test_a_class_that_no_labels_settle_is_known_by_its_counts() -> None:
    """The detector does not find class 1 even where it is annotated; people counted forty of them."""
    pool = scene("abcdef", [0, 1, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5])
    labeled = scene("XYZW", [0, 0, 0, 0], [6, 6, 6, 6])
    assert pool.labels is not None
    assert pool.labels[class_gain(pool, 3, seed=0, labeled=labeled)].tolist() == [1, 1, 1]
    told = class_gain(pool, 3, seed=0, labeled=labeled, labeled_counts={0: 4, 1: 40})
    assert pool.labels[told].tolist() == [0, 0, 0]


def test_an_outlier_is_worth_no_more_than_its_objects() -> None:
    """The farthest frame shows one object, others three of the same class at usual distances."""
    looks = torch.eye(8)
    near = [(looks[0] + 0.5 * looks[row]) for row in range(1, 6) for _ in range(3)]
    pool = Pool(
        list("abcdef"),
        torch.tensor([0, 3, 6, 9, 12, 15, 16]),
        labels=torch.zeros(16, dtype=torch.int64),
        scores=torch.full((16,), 0.5),
        box_embeddings=torch.stack([*near, -looks[0]]),
    )
    labeled = scene("X", [0], [0])
    assert 5 not in class_gain(pool, 2, seed=0, labeled=labeled).tolist()


def test_what_was_chosen_counts_as_known() -> None:
    pool = scene("abcd", [0, 0, 1, 1], [0, 1, 2, 3])
    chosen = class_gain(pool, 4, seed=0)
    assert pool.labels is not None
    assert pool.labels[chosen].tolist() == [0, 1, 0, 1]


def test_a_near_duplicate_waits_for_everything_else() -> None:
    # three frames of one scene with a scarce class, and one of each of three others with a common one
    pool = scene("abcdef", [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 2, 3])
    labeled = scene("XYZW", [1, 1, 1, 1], [7, 7, 7, 7])
    assert class_gain(pool, 4, seed=0, labeled=labeled).tolist() == [0, 3, 4, 5]
    seen = scene("P", [1], [1])
    assert 3 not in class_gain(pool, 3, seed=0, labeled=Pool.cat([labeled, seen])).tolist()


def test_the_place_counts_too() -> None:
    """Objects alike in two places: with the frames' embeddings the other place comes first."""
    places = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    pool = scene("abc", [0, 0, 0], [0, 1, 1])
    with_places = pool.replace(frame_embeddings=places)
    assert class_gain(pool, 2, seed=0).tolist() == [0, 1]
    assert class_gain(with_places, 2, seed=0).tolist() == [0, 2]


def test_frames_without_gain_come_last_the_farthest_first() -> None:
    pool = Pool(
        ["a", "b", "c", "d"],
        torch.tensor([0, 0, 1, 1, 1]),
        labels=torch.tensor([3]),
        scores=torch.tensor([0.4]),
        frame_embeddings=torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]]),
    )
    assert class_gain(pool, 4, seed=0).tolist()[:2] == [1, 3]


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    n=st.integers(1, 12),
    seed=st.integers(0, 99),
    labeled=st.integers(0, 3),
    name=st.sampled_from(["auto", "class_gain"]),
)
@settings(max_examples=60, deadline=None)
def test_any_pool_in_any_order(counts: list[int], n: int, seed: int, labeled: int, name: str) -> None:
    pool = make_pool(counts, seed)
    backend = LocalBackend(labeled=make_pool([2] * labeled, seed + 1, prefix="known") if labeled else None)
    stage = DetectionSampling(num_of_samples=n, selection_strategy=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        chosen = backend.select(pool, stage).frame_ids
        shuffled = pool.take(torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)))
        assert backend.select(shuffled, stage).frame_ids == chosen
    assert len(set(chosen)) == len(chosen) == min(n, len(pool))


def test_a_missing_column_is_named() -> None:
    pool = make_pool([2, 1], 0)
    stage = DetectionSampling(num_of_samples=1, selection_strategy="class_gain")
    with pytest.raises(InvalidInputError, match="`labels` of `pool`"):
        LocalBackend().select(pool.replace(labels=None), stage)
    known = make_pool([1], 1, prefix="known").replace(scores=None, probabilities=None, activation=None)
    with pytest.raises(InvalidInputError, match="`scores` or `probabilities` of `labeled`"):
        LocalBackend(labeled=known).select(pool, stage)
    with pytest.raises(InvalidInputError, match="box_embeddings"):
        LocalBackend().select(pool.replace(box_embeddings=None, frame_embeddings=None), stage)


def test_scores_alone_and_probabilities_alone_will_do() -> None:
    pool = make_pool([2, 1, 3, 0], 4)
    for columns in ({"probabilities": None, "activation": None}, {"scores": None}):
        assert len(set(class_gain(pool.replace(**columns), 3, seed=0).tolist())) == 3


@pytest.mark.parametrize("strategy", ["class_gain", "k_center", "typicality"])
def test_pools_of_which_one_has_no_boxes_lie_in_one_space(strategy: str) -> None:
    stage = DetectionSampling(num_of_samples=2, selection_strategy=strategy)
    boxes, bare = make_pool([2, 1, 0], 0), make_pool([0, 0, 0], 1, prefix="bare")
    bare = bare.replace(box_embeddings=torch.empty(0, 0))
    for pool, known in ((boxes, bare), (bare, boxes)):
        assert len(LocalBackend(labeled=known).select(pool, stage)) == 2
    with pytest.raises(InvalidInputError, match="`labeled` must have the embedding columns of `pool`"):
        LocalBackend(labeled=bare.replace(box_embeddings=None)).select(boxes, stage)
