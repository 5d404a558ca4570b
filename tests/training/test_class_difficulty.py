"""`ClassDifficulty`: against naive loops over PPAL's recurrence, and what its state survives."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import convert_bounding_box_format

from cval_torch.errors import InvalidInputError
from cval_torch.training.class_difficulty import ClassDifficulty

Image = list[tuple[list[float], int, float]]


def random_images(generator: random.Random, images: int, *, most: int = 5) -> tuple[list[Image], list[Image]]:
    """Predictions and targets that lie about the same few places."""

    def box() -> list[float]:
        x, y = generator.choice([0, 20, 40]) + generator.uniform(0, 6), generator.uniform(0, 4)
        return [x, y, x + generator.uniform(6, 14), y + generator.uniform(6, 14)]

    def image() -> Image:
        return [(box(), generator.randrange(3), generator.random()) for _ in range(generator.randrange(most + 1))]

    return [image() for _ in range(images)], [image() for _ in range(images)]


def as_dicts(images: list[Image], *, scores: bool) -> list[dict[str, torch.Tensor]]:
    found = []
    for image in images:
        found.append(
            {
                "boxes": torch.tensor([box for box, _, _ in image], dtype=torch.float64).reshape(-1, 4),
                "labels": torch.tensor([label for _, label, _ in image], dtype=torch.int64),
            }
        )
        if scores:
            found[-1]["scores"] = torch.tensor([score for _, _, score in image], dtype=torch.float64)
    return found


def naive_iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def naive_difficulties(predicted: Image, truth: Image) -> list[tuple[int, float]]:
    """(label, difficulty) of each object; the best pairs are taken first."""
    pairs = []
    for (row, (box, label, _)), (column, (their_box, their_label, score)) in itertools.product(
        enumerate(truth), enumerate(predicted)
    ):
        overlap = naive_iou(box, their_box)
        if label == their_label and overlap >= 0.5:
            pairs.append((score**0.6 * overlap**0.4, row, column))
    quality: dict[int, float] = {}
    taken: set[int] = set()
    for value, row, column in sorted(pairs, reverse=True):
        if row not in quality and column not in taken:
            quality[row] = value
            taken.add(column)
    return [(label, 1 - quality.get(row, 0)) for row, (_, label, _) in enumerate(truth)]


@given(seed=st.integers(0, 10**6), batches=st.integers(1, 6), momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]))
@settings(max_examples=60, deadline=None)
def test_it_is_ppals_recurrence_less_its_start(seed: int, batches: int, momentum: float) -> None:
    generator = random.Random(seed)
    difficulty = ClassDifficulty(classes=[0, 1, 2, 7], momentum=momentum)
    average, own = dict.fromkeys([0, 1, 2, 7], 1.0), dict.fromkeys([0, 1, 2, 7], momentum)
    history: dict[int, list[tuple[float, float]]] = {label: [] for label in average}
    for _ in range(batches):
        predicted, truth = random_images(generator, 3)
        difficulty.update(as_dicts(predicted, scores=True), as_dicts(truth, scores=False))
        found = [each for p, t in zip(predicted, truth, strict=True) for each in naive_difficulties(p, t)]
        for label in average:
            mine = [value for other, value in found if other == label]
            if mine:
                mean = sum(mine) / len(mine)
                average[label] = own[label] * average[label] + (1 - own[label]) * mean
                history[label].append((own[label], mean))
                own[label] = momentum
            else:
                own[label] *= momentum
    for label, value in difficulty.difficulties.items():
        if not history[label]:
            assert value == 1
            continue
        # a weighted mean of the batches, each weight what later batches left of it
        weights = [
            (1 - own_) * math.prod(later for later, _ in history[label][number + 1 :])
            for number, (own_, _) in enumerate(history[label])
        ]
        expected = sum(w * mean for w, (_, mean) in zip(weights, history[label], strict=True)) / sum(weights)
        assert value == pytest.approx(expected, abs=1e-9)
        start = math.prod(own_ for own_, _ in history[label])
        assert value * (1 - start) + start == pytest.approx(average[label], abs=1e-9), "PPAL's own average"


def test_one_batch_counts_in_full() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    prediction = {"boxes": box, "labels": torch.tensor([4]), "scores": torch.tensor([0.5])}
    difficulty = ClassDifficulty()
    difficulty.update([prediction], [{"boxes": box, "labels": torch.tensor([4])}])
    assert difficulty.difficulties == pytest.approx({4: 1 - 0.5**0.6})


def test_a_class_that_is_not_shown_waits_and_then_moves_further() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])

    def show(difficulty: ClassDifficulty, score: float | None) -> None:
        label = torch.tensor([1 if score is not None else 2])
        prediction = {"boxes": box, "labels": label, "scores": torch.tensor([score or 0.5])}
        difficulty.update([prediction], [{"boxes": box, "labels": label}])

    rare, steady = ClassDifficulty(xi=1.0, momentum=0.9), ClassDifficulty(xi=1.0, momentum=0.9)
    for difficulty in (rare, steady):
        show(difficulty, 1.0)
    assert rare.difficulties[1] == 0
    for _ in range(5):
        show(rare, None)
    assert rare.difficulties[1] == 0
    for difficulty in (rare, steady):
        show(difficulty, 0.25)
    assert 0 < steady.difficulties[1] < rare.difficulties[1] < 0.75


def test_weights_are_ppals() -> None:
    difficulty = ClassDifficulty(classes=[9])
    box = torch.tensor([[0.0, 0, 10, 10]])
    prediction = {"boxes": box, "labels": torch.tensor([4]), "scores": torch.tensor([0.5])}
    difficulty.update([prediction], [{"boxes": box, "labels": torch.tensor([4])}])
    quality = 0.5**0.6
    expected = 1 + 0.3 * 0.2 * math.log(1 + (math.exp(1 / 0.3) - 1) * (1 - quality))
    assert difficulty.weights() == pytest.approx({4: expected, 9: 1.2})
    assert difficulty.weights(alpha=0.01, beta=3)[9] == pytest.approx(4)
    perfect = {"boxes": box, "labels": torch.tensor([4]), "scores": torch.tensor([1.0])}
    sure = ClassDifficulty()
    sure.update([perfect], [{"boxes": box, "labels": torch.tensor([4])}])
    assert sure.weights() == {4: 1}


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_neither_the_order_of_boxes_nor_of_images_matters(seed: int) -> None:
    generator = random.Random(seed)
    predicted, truth = random_images(generator, 4)
    order = generator.sample(range(4), 4)
    first, second = ClassDifficulty(), ClassDifficulty()
    first.update(as_dicts(predicted, scores=True), as_dicts(truth, scores=False))
    predicted = [generator.sample(predicted[row], len(predicted[row])) for row in order]
    truth = [generator.sample(truth[row], len(truth[row])) for row in order]
    second.update(as_dicts(predicted, scores=True), as_dicts(truth, scores=False))
    assert first.difficulties == second.difficulties


@pytest.mark.parametrize("through", ["torch", "json"])
def test_it_goes_on_from_its_state(through: str) -> None:
    generator = random.Random(5)
    whole, first = ClassDifficulty([9], momentum=0.7), ClassDifficulty([9], momentum=0.7)
    batches = [random_images(generator, 2) for _ in range(6)]
    for number, (predicted, truth) in enumerate(batches):
        if number == 3:
            state: Any = first.state_dict()
            if through == "torch":
                file = io.BytesIO()
                torch.save(state, file)
                state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            else:
                state = json.loads(json.dumps(state))
            first = ClassDifficulty(classes=[1, 2, 33])
            first.load_state_dict(state)
        for each in (whole, first):
            each.update(as_dicts(predicted, scores=True), as_dicts(truth, scores=False))
    assert first.difficulties == whole.difficulties
    assert first.state_dict() == whole.state_dict()
    assert repr(first) == "ClassDifficulty(4 classes, momentum=0.7, xi=0.6)"


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"format": "cval_torch.difficulty/1"},
        {**ClassDifficulty([1]).state_dict(), "classes": {"1": [0.5, 0.5]}},
        {**ClassDifficulty([1]).state_dict(), "classes": {"1": [0.5, math.nan, 0.5]}},
        {**ClassDifficulty([1]).state_dict(), "classes": {"car": [0.5, 0.5, 0.5]}},
        {**ClassDifficulty([1]).state_dict(), "momentum": 7},
    ],
)
def test_a_state_that_is_none_changes_nothing(state: Any) -> None:
    difficulty = ClassDifficulty([3])
    before = difficulty.state_dict()
    with pytest.raises(InvalidInputError):
        difficulty.load_state_dict(state)
    assert difficulty.state_dict() == before


GOOD = {"boxes": torch.tensor([[0.0, 0, 2, 1], [3, 3, 5, 9]]), "labels": torch.tensor([1, 2]), "scores": torch.rand(2)}


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([GOOD], [], "one an image; got 1 and 0"),
        ([{**GOOD, "scores": None}], [GOOD], r"predictions\[0\] must have the tensor `scores`; got NoneType"),
        ([GOOD, GOOD], [GOOD, {"boxes": GOOD["boxes"]}], r"targets\[1\] must be a dict with `labels`"),
        ([GOOD], [{"labels": GOOD["labels"]}], r"targets\[0\] must have `boxes`; it has labels alone"),
        (
            [GOOD],
            [{**GOOD, "labels": torch.tensor([1])}],
            r"`boxes` of targets\[0\] must be .* with n=1 labels; got \(2,",
        ),
        ([{**GOOD, "boxes": torch.rand(4, 2)}], [GOOD], r"`boxes` of predictions\[0\] must be \(2, 4\); got \(4, 2\)"),
        ([{**GOOD, "scores": torch.tensor([0.5, 1.5])}], [GOOD], r"scores in \[0, 1\]; got \[0.5, 1.5\]"),
        ([GOOD], [{**GOOD, "boxes": torch.full((2, 4), math.nan)}], r"`boxes` of targets\[0\] must be finite"),
        ([GOOD], ["x"], r"`labels` of targets\[0\] must be \(n,\) integers; got str 'x'"),
        (["x"], [GOOD], r"predictions\[0\] must have the tensor `boxes`; got NoneType"),
    ],
)
def test_bad_batches_are_refused_and_leave_it_as_it_was(predictions: Any, targets: Any, message: str) -> None:
    difficulty = ClassDifficulty([3])
    before = difficulty.state_dict()
    with pytest.raises(InvalidInputError, match=message):
        difficulty.update(predictions, targets)
    assert difficulty.state_dict() == before


@pytest.mark.parametrize("options", [{"momentum": 1}, {"momentum": -0.1}, {"xi": 1.1}, {"min_iou": 0}])
def test_numbers_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=f"`{next(iter(options))}` must be"):
        ClassDifficulty(**options)


@pytest.mark.parametrize("options", [{"alpha": 0}, {"alpha": math.nan}, {"beta": -1}, {"beta": math.inf}])
def test_weights_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=f"`{next(iter(options))}` must be"):
        ClassDifficulty().weights(**options)


def test_gradients_and_half_precision_and_empty_images() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]], requires_grad=True)
    prediction = {"boxes": boxes * 1.0, "labels": torch.tensor([1]), "scores": torch.tensor([0.5]).half()}
    empty = {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.int64), "scores": torch.empty(0)}
    difficulty = ClassDifficulty(xi=1)
    difficulty.update([prediction, empty, prediction], [prediction, prediction, empty])
    assert difficulty.difficulties == pytest.approx({1: 0.75}), "one found with 0.5, one missed"


@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_of_every_upright_format_on_both_sides(form: str) -> None:
    generator = random.Random(5)
    predicted, truth = random_images(generator, 20)
    plain, other = ClassDifficulty(xi=0.2), ClassDifficulty(xi=0.2)
    batches = as_dicts(predicted, scores=True), as_dicts(truth, scores=False)
    plain.update(*batches)
    for image in itertools.chain(*batches):
        boxes = tv_tensors.BoundingBoxes(image["boxes"], format="XYXY", canvas_size=(99, 99))
        image["boxes"] = convert_bounding_box_format(boxes, new_format=form)
    other.update(*batches)
    assert max(plain.difficulties.values()) < 0.97, "most classes are found"
    assert other.difficulties == pytest.approx(plain.difficulties)


def test_targets_with_an_image_id_alone_and_crowds() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    found = {"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    crowded = {"boxes": torch.cat([box, box * 3]), "labels": torch.tensor([1, 1]), "iscrowd": [0, 1]}
    difficulty = ClassDifficulty(xi=1)
    difficulty.update([found, found], [{"image_id": 7}, crowded])
    assert difficulty.difficulties == pytest.approx({1: 0.5})
