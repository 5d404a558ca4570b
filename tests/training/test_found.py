"""What annotators found in selected and in random frames."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.training.found import found_in
from cval_torch.training.rounds import Round


def round_of(selected: int, random: int) -> Round:
    ids = tuple(f"s{number}" for number in range(selected)) + tuple(f"r{number}" for number in range(random))
    return Round(ids, random_ids=ids[selected:])


def test_means_and_weights_of_classes() -> None:
    round_ = round_of(2, 2)
    labels: dict[str, Any] = {"s0": [0, 0, 1], "s1": torch.tensor([1]), "r0": [0], "r1": []}
    plain = found_in(round_, labels)
    assert (plain.selected, plain.random, plain.ratio) == (2.0, 0.5, 4.0)
    weighed = found_in(round_, labels, counts={0: 9})
    assert weighed.selected == pytest.approx((1 / 10 + 1 / 11 + 1 + 1) / 2)
    assert weighed.random == pytest.approx(1 / 20)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance = torch.Generator().manual_seed(5)
    held, lengths = 0, []
    for _ in range(200):
        round_ = round_of(60, 20)
        rates = [3.0] * 60 + [1.0] * 20
        objects = torch.poisson(torch.tensor(rates), generator=chance).int().tolist()
        found = found_in(round_, {each: [0] * n for each, n in zip(round_.frame_ids, objects, strict=True)})
        held += found.low <= 3 <= found.high
        lengths.append(found.high - found.low)
        assert found.low <= found.ratio <= found.high
    assert 0.7 <= held / 200 <= 0.88
    assert sum(lengths) / 200 < 2.5


def test_annotations_by_id_are_understood_and_unannotated_frames_left_out() -> None:
    round_ = round_of(2, 2)
    annotations = Annotations(
        ["1.jpg", "2.jpg", "3.jpg", "4.jpg"],
        torch.tensor([0, 2, 2, 3, 3]),
        boxes=torch.tensor([[0.0, 0, 1, 1]] * 3),
        labels=torch.tensor([1, 1, 1]),
        class_names={1: "bolt"},
        frame_ids=["s0", "s1", "r0", None],
        is_annotated=torch.tensor([True, False, True, True]),
    )
    found = found_in(round_, annotations)
    assert (found.num_selected, found.num_random, found.selected, found.random) == (1, 1, 2.0, 1.0)


def test_nothing_in_random_frames_is_infinitely_more_and_nothing_at_all_is_unknown() -> None:
    round_ = round_of(1, 1)
    assert found_in(round_, {"s0": [1], "r0": []}).ratio == math.inf
    assert math.isnan(found_in(round_, {"s0": [], "r0": []}).ratio)


@pytest.mark.parametrize(
    ("round_", "labels", "message"),
    [
        (round_of(3, 0), {"s0": [1]}, "of the 3 frames of the round no random one is annotated; 0 are random"),
        (round_of(2, 1), {"r0": [1]}, "no selected one is annotated; 1 are random"),
        (round_of(2, 1), {}, "no selected one is annotated"),
    ],
)
def test_both_parts_must_be_there(round_: Round, labels: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        found_in(round_, labels)


def test_a_level_is_a_share() -> None:
    with pytest.raises(InvalidInputError, match="`level` must be above 0 and below 1; got 80"):
        found_in(round_of(1, 1), {"s0": [], "r0": []}, level=80)
