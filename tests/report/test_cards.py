"""What the card of a frame says."""

from __future__ import annotations

import pytest
import torch
from reported import Grey, choice, described, stage

from cval_torch.report.annotated import part_pool
from cval_torch.report.cards import Cards
from cval_torch.report.facts import facts_of
from cval_torch.report.wording import ClassNames, ordinal
from cval_torch.selection.costs import estimated_boxes

POOL = described(50)
LABELED = described(8, seed=4, prefix="labeled")


def cards_for(selected, pool=None, labeled=None, *, max_frames=200, min_score=0.0):
    annotated, candidates = part_pool(pool, labeled, selected.frame_ids)
    facts = facts_of(selected, annotated, candidates, shown=min(max_frames, len(selected)), seed=0)
    steps: list[None] = []
    made = Cards(
        selected,
        facts,
        ClassNames(None),
        min_score=min_score,
        max_frames=max_frames,
        step=lambda: steps.append(None),
    )
    cards = [*made.chosen(), *made.below(), *made.others()]
    assert len(cards) == len(steps) == made.total
    assert [card.number for card in cards] == list(range(made.total))
    assert [card.frame_id for card in cards] == made.frame_ids
    return made, cards


def test_chosen_frames_have_rank_score_cost_and_place() -> None:
    selected = choice(POOL, stage("entropy", 5))
    made, cards = cards_for(selected, POOL, LABELED)
    for rank, card in enumerate(cards[:5]):
        assert (card.kind, card.rank, card.frame_id, card.stage) == (
            "chosen",
            rank + 1,
            selected.frame_ids[rank],
            "entropy",
        )
        assert card.score == pytest.approx(float(selected.scores[rank]))
        assert card.cost == pytest.approx(float(selected.estimated_boxes[rank]))
        (place,) = (each.text for each in card.reasons if each.title == "Place")
        better = int((made._facts.scores > selected.scores[rank] + 1e-9).sum())
        which = "" if better == 0 else f"{ordinal(better + 1)} "
        assert place == f"The {which}highest score of 50 frames."
        assert card.picture.address.startswith("data:image/jpeg")


def test_low_scores_first_have_their_place_from_below() -> None:
    with_boxes = POOL.take((~POOL.is_empty).nonzero().squeeze(1))
    _, cards = cards_for(choice(with_boxes, stage("probability", 3)), with_boxes)
    assert [each.text for each in cards[0].reasons if each.title == "Place"] == [
        f"The lowest score of {len(with_boxes)} frames."
    ]


def test_others_have_their_own_pictures_scores_and_costs() -> None:
    _, cards = cards_for(choice(POOL, stage("entropy", 5)), POOL)
    rows = [POOL.frame_ids.index(card.frame_id) for card in cards[5:]]
    assert {card.kind for card in cards[5:17]} == {"below"}
    assert {card.kind for card in cards[17:]} == {"other"}
    costs = estimated_boxes(POOL)[rows].tolist()
    assert [card.cost for card in cards[5:]] == pytest.approx(costs)
    shades = {row % 7: card.picture.address for row, card in zip(rows, cards[5:], strict=True)}
    for row, card in zip(rows, cards[5:], strict=True):
        assert card.picture.address == shades[row % 7]
    assert len(set(shades.values())) == len(shades) > 3
    assert all(card.rank is None and card.stage == "not chosen" for card in cards[5:])
    assert all(each.title == "Score" for card in cards[5:] for each in card.reasons)


def test_the_nearest_is_named_and_said_to_be_annotated_or_chosen() -> None:
    selected = choice(POOL, stage("entropy", 5))
    made, cards = cards_for(selected, POOL, LABELED)
    for card, near in zip(cards[:5], made._facts.nearest, strict=True):
        (text,) = (each.text for each in card.reasons if each.title == "Nearest annotated or chosen before")
        name = LABELED.frame_ids[near.row] if near.is_annotated else POOL.frame_ids[near.row]
        kind = "annotated" if near.is_annotated else "chosen"
        assert text == f"\u2068{name}\u2069 ({kind}), at distance {near.distance:.3f}."
    _, alone = cards_for(selected, POOL)
    assert alone[0].reasons[-1].text == "None: this is the first choice."


def test_near_duplicates_are_counted_and_the_nearest_shown() -> None:
    selected = choice(POOL, stage("k_center", 3, min_distance=1.5))
    made, cards = cards_for(selected, POOL)
    groups = made._facts.groups
    assert sum(map(len, groups)) > 20
    for rank, card in enumerate(cards[:3]):
        assert made.num_duplicates(rank) == len(groups[rank])
        assert [twin.frame_id for twin in card.duplicates] == [POOL.frame_ids[near.row] for near in groups[rank][:3]]
        assert all(twin.small.startswith("data:image/jpeg") for twin in card.duplicates)


def test_frames_set_apart_are_a_stage_of_their_own() -> None:
    _, cards = cards_for(choice(POOL, stage("entropy", 20, null_policy="sample")))
    apart = [card for card in cards if card.stage == "entropy, set apart"]
    assert [card.boxes.total for card in apart] == [0] * len(apart)
    assert len(apart) >= 1
    assert all(card.score is None and card.score_text == "\N{EN DASH}" for card in apart)


def test_no_more_cards_than_asked_for() -> None:
    made, cards = cards_for(choice(POOL, stage("entropy", 20)), max_frames=3)
    assert len(cards) == made.shown == 3


def test_broken_images_are_a_fault_on_their_card() -> None:
    selected = choice(POOL, stage("entropy", 5))
    broken = choice(POOL, stage("entropy", 5), dataset=Grey(50, broken=[selected.indices[2]]))
    _, cards = cards_for(broken)
    assert [bool(card.picture.fault) for card in cards] == [False, False, True, False, False]
    assert "is truncated" in cards[2].picture.fault


def test_boxes_in_words() -> None:
    _, cards = cards_for(choice(POOL, stage("entropy", 20)), min_score=0.6)
    for card in cards:
        total, shown = card.boxes.total, len(card.boxes.drawn)
        if total == 0:
            assert card.boxes_said == "No boxes"
        elif total == shown:
            assert card.boxes_said == ("1 box" if total == 1 else f"{total} boxes")
        else:
            assert card.boxes_said == f"{shown} of {total} boxes"


def test_labels_of_frames_not_chosen_are_known() -> None:
    made, cards = cards_for(choice(POOL, stage("entropy", 5)), POOL)
    assert {label for card in cards[5:] for label in card.boxes.labels} <= made.other_labels
    assert made.other_labels <= set(torch.unique(POOL.labels).tolist())
