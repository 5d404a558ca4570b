"""Whether a pass that was begun is the one that is asked for, on identities written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from cval_torch.extraction.comparing import ANSWERS, CHANGED, changed_answers, pass_changes, with_answers
from cval_torch.extraction.identity import CODE, SETTINGS, TRANSFORMS, UNREAD, WEIGHTS
from cval_torch.extraction.probing import Probe

ANSWER = [{"height": 64, "width": 192, "boxes": 9}]


class Asked:
    """Stands for the question to a model, and counts how often it is put."""

    def __init__(self, changed: dict[str, list[str]] | None = None, boxes: int = 9, *, answers: bool = True) -> None:
        self.times = 0
        self.probe = Probe(changed or {}, [{**ANSWER[0], "boxes": boxes}]) if answers else None

    def __call__(self) -> Probe | None:
        self.times += 1
        return self.probe


def compared(then: dict[str, Any], now: dict[str, Any], ask: Asked | None = None, *, same_machine: bool = True) -> Any:
    return pass_changes(then, now, ask or Asked(), same_machine=same_machine)


def begun(settings: dict[str, str], changed: dict[str, list[str]] | None = None, **more: Any) -> dict[str, Any]:
    return with_answers({SETTINGS: settings, **more}, Asked(changed))


def test_a_new_pass_keeps_the_answers() -> None:
    assert with_answers({"a": 1}, Asked({SETTINGS: ["x"]})) == {"a": 1, CHANGED: {SETTINGS: ["x"]}, ANSWERS: ANSWER}
    assert with_answers({"a": 1}, Asked(answers=False)) == {"a": 1}


def test_the_same_pass_does_not_ask_the_model() -> None:
    then, ask = begun({"x": "1"}, other="a"), Asked()
    assert compared(then, {SETTINGS: {"x": "1"}, "other": "a"}, ask) == []
    assert ask.times == 0


def test_differences_are_named_and_so_is_what_came_and_went() -> None:
    then, now = begun({"a": "1", "b": "2", "c": "3"}), {SETTINGS: {"a": "1", "b": "9", "d": "4"}}
    assert compared(then, now) == [
        "the model's b was 2 and is 9 now",
        "the model's c was 3 and is gone now",
        "the model's d was not there and is 4 now",
    ]
    assert compared({"a": 1, **then}, {"a": 2, **now})[0] == "a was 1 and is 2 now"
    assert compared({"a": 1, **then}, {"b": 2, SETTINGS: then[SETTINGS]}) == [], "only what both have compares"


def test_a_few_are_told_and_the_others_counted_and_of_an_exchanged_part_only_itself() -> None:
    names = [f"{letter}" for letter in "abcdef"]
    told = compared({WEIGHTS: dict.fromkeys(names, "1")}, {WEIGHTS: dict.fromkeys(names, "2")}, Asked(answers=False))
    assert told == [
        "the model's weights: a was 1 and is 2 now",
        "the model's weights: b was 1 and is 2 now",
        "the model's weights: c was 1 and is 2 now",
        "3 more of the model's weights differ",
    ]
    exchanged = compared(begun({"act": "ReLU", "act.inplace": "True"}), {SETTINGS: {"act": "GELU", "act.mode": "0"}})
    assert exchanged == ["the model's act was ReLU and is GELU now"]


def test_what_a_forward_pass_changes_is_no_difference_whoever_found_it() -> None:
    used = {"x": "1", "cache['a']": "2", "cache['a'].b": "3"}
    then, ask = begun({"x": "1"}, {SETTINGS: ["cache"]}), Asked()
    assert compared(then, {SETTINGS: used}, ask) == []
    assert ask.times == 0, "it was found when the pass was begun"
    then, ask = begun(used), Asked({SETTINGS: ["cache"]})
    assert compared(then, {SETTINGS: {"x": "1"}}, ask) == []
    assert ask.times > 0
    assert compared(begun(used), {SETTINGS: {"x": "1"}}, Asked({WEIGHTS: ["cache"]})) != []
    assert compared(begun(used), {SETTINGS: {"x": "2"}}, Asked({SETTINGS: ["cache"]})) == [
        "the model's x was 1 and is 2 now"
    ]


def test_of_a_model_that_cannot_be_asked_what_is_filled_later_is_no_difference() -> None:
    then = {SETTINGS: {"x": "1", "note": "None"}}
    now = {SETTINGS: {"x": "1", "note": "(1, 2)", "cache": "3"}}
    assert compared(then, now, Asked(answers=False)) == []
    assert compared(then, {SETTINGS: {"x": "2"}}, Asked(answers=False)) == ["the model's x was 1 and is 2 now"]
    changed = {TRANSFORMS: {"transform": "a"}}, {TRANSFORMS: {}}
    assert compared(*changed, Asked(answers=False)) == ["the dataset's transform was a and is gone now"]


def test_another_version_of_a_package_may_have_other_attributes() -> None:
    then, now = begun({"a": "1", "old": "2"}), {SETTINGS: {"a": "1", "new": "3"}}
    assert compared(then, now, same_machine=False) == []
    assert compared(then, {SETTINGS: {"a": "2"}}, same_machine=False) == ["the model's a was 1 and is 2 now"]


def test_where_something_cannot_be_read_the_answer_counts() -> None:
    for then, now in (([], ["part"]), (["part"], [])):
        for boxes, told in ((9, 0), (1, 1)):
            ask = Asked(boxes=boxes)
            found = compared(begun({"x": "1"}, **{UNREAD: then}), {SETTINGS: {"x": "1"}, UNREAD: now}, ask)
            assert len(found) == told
            assert ask.times > 0
    other = begun({"x": "1"}, **{UNREAD: ["part"]})
    assert compared(other, {SETTINGS: {"x": "1"}, UNREAD: ["part"]}, Asked(boxes=1), same_machine=False) == []


def test_answers_differ_only_where_both_are_known() -> None:
    then = begun({})
    assert changed_answers(then, Asked(boxes=9)) == []
    (told,) = changed_answers(then, Asked(boxes=1))
    assert told == "the model's answer to a test image of 64 x 192 pixels was 9 boxes and is 1 boxes now"
    assert changed_answers(then, Asked(answers=False)) == []
    ask = Asked()
    assert changed_answers({SETTINGS: {}}, ask) == []
    assert ask.times == 0


@pytest.mark.parametrize("alone", [True, False])
def test_code_that_came_with_another_part_is_not_told_beside_it(alone: bool) -> None:
    then = begun({} if alone else {"act": "A"}, **{CODE: {"A.forward": "1"}})
    now = {SETTINGS: {} if alone else {"act": "B"}, CODE: {"B.forward": "2"}}
    told = compared(then, now)
    if alone:
        assert told == [f"{CODE} A.forward was 1 and is gone now", f"{CODE} B.forward was not there and is 2 now"]
    else:
        assert told == ["the model's act was A and is B now"]
    changed = compared(begun({"a": "1"}, **{CODE: {"f": "1"}}), {SETTINGS: {"a": "2"}, CODE: {"f": "2"}})
    assert changed == ["the model's a was 1 and is 2 now", f"{CODE} f was 1 and is 2 now"]
