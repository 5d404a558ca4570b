"""The label quality of boxes and frames, against loops over the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_boxes import Target, noisy_world

from cval_torch.comparison import label_issue_scores
from cval_torch.comparison.label_issue_scores import (
    box_scores,
    columns_of,
    frame_scores,
    overlaps,
    pairs_within,
    rejected,
    soft_minimum,
)
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool


def naive_iou(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (areas - common) if areas > common else 0.0


def naive_similarity(one: list[float], other: list[float], alpha: float) -> float:
    x, y = ((one[i] + one[i + 2] - other[i] - other[i + 2]) / 2 for i in (0, 1))
    return alpha * naive_iou(one, other) + (1 - alpha) * math.exp(-math.hypot(x, y) / 10)


def naive_qualities(
    pool: Pool, targets: list[Target], *, high: float, low: float, alpha: float, probabilities: bool
) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    """By frame: overlooked of each prediction, badly located and swapped of each annotated box."""
    similarities = []
    frames = []
    for row, target in enumerate(targets):
        part = pool.part(row, row + 1)
        seen = list(zip(part.boxes.tolist(), part.labels.tolist(), part.scores.tolist(), strict=True))
        drawn = list(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True))
        vectors = part.probabilities.tolist() if probabilities else [None] * len(seen)
        frames.append((drawn, seen, vectors))
        similarities += [naive_similarity(a, p, alpha) for a, _ in drawn for p, _, _ in seen]
    floor = min([1 - alpha, *(value for value in similarities if value > 0)])
    overlooked, located, swapped = [], [], []
    for drawn, seen, vectors in frames:
        values = []
        for box, label, score in seen:
            if score < high or any(naive_iou(a, box) > 0 for a, _ in drawn):
                values.append(math.nan)
                continue
            own = [naive_similarity(a, box, alpha) for a, given_label in drawn if given_label == label]
            values.append(max(own) if own else floor * (1 - score))
        overlooked.append(values)
        values, others = [], []
        for box, label in drawn:
            own = [
                naive_similarity(box, p, alpha)
                for p, said, score in seen
                if said == label and score >= low and naive_iou(box, p) > 0
            ]
            values.append(max(own, default=1.0))
            against = []
            for (p, said, score), vector in zip(seen, vectors, strict=True):
                if said != label and score >= high:
                    factor = 1.0 if vector is None else max(0.0, 1 - vector[label] / vector[said])
                    against.append(naive_similarity(box, p, alpha) * factor)
            others.append(max(floor, 1 - max(against)) if against else 1.0)
        located.append(values)
        swapped.append(others)
    return overlooked, located, swapped


def naive_frame_score(parts: list[list[float]], temperature: float) -> float:
    product = 1.0
    for part in parts:
        values = [value for value in part if not math.isnan(value)]
        weights = [math.exp((1 - value) / temperature) for value in values]
        total = math.fsum(v * w for v, w in zip(values, weights, strict=True))
        product *= total / math.fsum(weights) if values else 1.0
    return product ** (1 / 3)


def annotated_pool(pool: Pool, targets: list[Target]) -> Pool:
    return Pool(
        pool.frame_ids,
        offsets_of(torch.tensor([len(target["labels"]) for target in targets])),
        boxes=torch.cat([target["boxes"] for target in targets]),
        labels=torch.cat([target["labels"] for target in targets]),
    )


@given(
    seed=st.integers(0, 10_000),
    high=st.sampled_from([0.0, 0.6, 0.8, 0.95]),
    low=st.sampled_from([0.0, 0.5]),
    alpha=st.sampled_from([0.9, 0.5, 0.0]),
    probabilities=st.booleans(),
    pairs=st.sampled_from([1, 5, 2**20]),
)
@settings(deadline=None, max_examples=60)
def test_qualities_are_those_of_the_loop(
    seed: int, high: float, low: float, alpha: float, probabilities: bool, pairs: int
) -> None:
    pool, targets = noisy_world(seed)
    if probabilities:
        rng = torch.Generator().manual_seed(seed)
        values = torch.rand(pool.num_boxes, 3, generator=rng, dtype=torch.float64) + 0.01
        pool = pool.replace(probabilities=values / values.sum(1, keepdim=True), activation="softmax")
    annotated = annotated_pool(pool, targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_issue_scores, "_PAIRS", pairs)
        found = box_scores(annotated, pool, sure=pool.scores >= high, likely=pool.scores >= low, alpha=alpha)
    expected = naive_qualities(pool, targets, high=high, low=low, alpha=alpha, probabilities=probabilities)
    for values, lists in zip((found.overlooked, found.badly_located, found.swapped), expected, strict=True):
        assert values.tolist() == pytest.approx([value for part in lists for value in part], abs=1e-12, nan_ok=True)
    of_frames = frame_scores(found, annotated, pool, temperature=0.2)
    loop = [naive_frame_score([part[row] for part in expected], 0.2) for row in range(len(pool))]
    assert of_frames.tolist() == pytest.approx(loop, abs=1e-9)


def two_objects(said: list[int], scores: list[float], *, given_labels: list[int]) -> tuple[Pool, Pool]:
    """Two boxes that overlap by a third, predicted and annotated at the same places."""
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [10.0, 0.0, 30.0, 20.0]])
    offsets = torch.tensor([0, 2])
    predicted = Pool(["a"], offsets, boxes=boxes, labels=torch.tensor(said), scores=torch.tensor(scores))
    return Pool(["a"], offsets, boxes=boxes, labels=torch.tensor(given_labels)), predicted


def test_a_prediction_speaks_of_the_annotated_box_of_its_class_that_is_nearest() -> None:
    everything = torch.tensor([True, True])
    annotated, predicted = two_objects([1, 2], [0.9, 0.9], given_labels=[1, 2])
    found = box_scores(annotated, predicted, sure=everything, likely=everything)
    assert found.swapped.tolist() == pytest.approx([1 - 0.3 - 0.1 * math.exp(-1)] * 2)  # as the paper has it
    assert found.renamed_by.tolist() == [-1, -1]
    assert found.renaming.tolist() == [1, 1]
    annotated, predicted = two_objects([1, 1], [0.9, 0.9], given_labels=[1, 1])
    found = box_scores(annotated, predicted, sure=everything, likely=torch.tensor([True, False]))
    assert found.badly_located.tolist() == pytest.approx([1, 0.3 + 0.1 * math.exp(-1)])
    assert found.moved_by.tolist() == [0, -1]  # the first prediction is that of the first box


def test_what_overlaps_a_crowd_is_not_overlooked() -> None:
    _, predicted = two_objects([1, 1], [0.9, 0.9], given_labels=[1, 1])
    nothing = Pool(["a"], torch.tensor([0, 0]), boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    crowds = Pool(["a"], torch.tensor([0, 1]), boxes=torch.tensor([[25.0, 5.0, 90.0, 90.0]]))
    everything = torch.tensor([True, True])
    found = box_scores(nothing, predicted, sure=everything, likely=everything, crowds=crowds)
    assert found.overlooked.isnan().tolist() == [False, True]


@pytest.mark.parametrize(("given_column", "said", "expected"), [(0, 1, 0.75), (1, 1, 0), (1, 0, 0), (-1, 1, 1)])
def test_how_much_a_vector_rejects_the_annotated_class(given_column: int, said: int, expected: float) -> None:
    pool = Pool(
        ["a"],
        torch.tensor([0, 1]),
        probabilities=torch.tensor([[0.2, 0.8]], dtype=torch.float64),
        activation="sigmoid",
    )
    factor = rejected(pool, torch.tensor([0]), torch.tensor([given_column]), torch.tensor([said]))
    assert factor.tolist() == pytest.approx([expected])
    blank = pool.replace(probabilities=None, activation=None)
    assert rejected(blank, torch.tensor([0]), torch.tensor([given_column]), torch.tensor([said])).tolist() == [1]


def test_columns_of_labels() -> None:
    pool = Pool(["a"], torch.tensor([0, 0]), probabilities=torch.zeros(0, 3), activation="softmax")
    labels = torch.tensor([0, 2, 3, -1, 90, 2])
    assert columns_of(labels, pool, None).tolist() == [0, 2, -1, -1, -1, 2]
    assert columns_of(labels, pool, {90: 0, 2: 1, 3: 7}).tolist() == [-1, 1, -1, -1, 0, 1]
    assert columns_of(labels[:0], pool, {90: 0}).tolist() == []


@given(
    counts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8),
    pairs=st.sampled_from([1, 3, 100]),
)
@settings(deadline=None)
def test_pairs_are_those_of_two_loops(counts: list[tuple[int, int]], pairs: int) -> None:
    one, other = (offsets_of(torch.tensor(column)) for column in zip(*counts, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_issue_scores, "_PAIRS", pairs)
        found = [pair for a, b in pairs_within(one, other) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    expected = [
        (a, b)
        for row in range(len(counts))
        for a in range(int(one[row]), int(one[row + 1]))
        for b in range(int(other[row]), int(other[row + 1]))
    ]
    assert found == expected


def test_overlaps_of_boxes_without_area() -> None:
    flat = torch.tensor([[1.0, 1.0, 1.0, 5.0], [0.0, 0.0, 2.0, 2.0]])
    assert overlaps(flat, flat).tolist() == [0, 1]
    assert overlaps(flat, flat.flip(0)).tolist() == [0, 0]


def test_a_soft_minimum_lies_between_the_least_and_the_mean() -> None:
    values, rows = torch.tensor([0.2, 0.9, torch.nan, 0.6]), torch.tensor([0, 0, 0, 2])
    cold = soft_minimum(values, rows, frames=3, temperature=1e-4)
    assert cold.tolist() == pytest.approx([0.2, 1, 0.6])
    warm = soft_minimum(values, rows, frames=3, temperature=1e6)
    assert warm.tolist() == pytest.approx([0.55, 1, 0.6], abs=1e-5)
    weights = [math.exp(-0.2 / 0.1), math.exp(-0.9 / 0.1)]
    expected = (0.2 * weights[0] + 0.9 * weights[1]) / sum(weights)
    assert soft_minimum(values, rows, frames=3, temperature=0.1)[0].item() == pytest.approx(expected)
