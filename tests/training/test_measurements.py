"""What the schedule is asked about at the end of an epoch, and whether its metric is among what is measured."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from shades import Tiny, make
from squares import Listener

from cval_torch.errors import InvalidInputError
from cval_torch.training import AtEpochs, EveryEpochs, WhenStalled
from cval_torch.training.measurements import Measurements, has_measured, watched_metric

VALUE = st.floats(0, 1, width=16)
EPOCH = st.tuples(st.lists(VALUE, max_size=4), st.none() | VALUE, st.none() | VALUE)
"""Evaluations in an epoch, the one at its end, and the training's own value, under another name."""


@given(epochs=st.lists(EPOCH, max_size=12), patience=st.integers(1, 4), cut=st.integers(0, 40))
def test_each_evaluation_is_counted_once_and_epochs_without_one_not_at_all(
    epochs: list[tuple[list[float], float | None, float | None]], patience: int, cut: int
) -> None:
    """Beside a model with the whole history since the last choice; the state travels after `cut` events."""
    expected: list[int] = []
    since: list[float] = []
    for epoch, (middle, last, _) in enumerate(epochs):
        for value in [*middle, *([] if last is None else [last])]:
            since.append(value)
            # no value is above the best of those before it
            if len(since) > patience and max(since[-patience:]) <= max(since[:-patience]):
                expected.append(epoch)
                since = []
                break
    schedule, heard = WhenStalled("map", patience=patience), []
    sampler, events = make(schedule=schedule, max_rounds=1), 0
    sampler.choose = lambda model, *, epoch: heard.append(epoch)  # type: ignore[method-assign, assignment, return-value]

    def travel() -> None:
        nonlocal events
        events += 1
        if events == cut:
            state = json.loads(json.dumps(sampler.state_dict()))
            sampler.schedule = WhenStalled("map", patience=patience)
            sampler._measurements = Measurements()
            sampler.load_state_dict(state)

    for epoch, (middle, last, own) in enumerate(epochs):
        for value in middle:
            sampler.on_evaluation({"map": value})
            travel()
        training_metrics = None if own is None else {"loss": own}
        sampler.on_epoch_end(Tiny(), epoch, None if last is None else {"map": last}, training_metrics=training_metrics)
        travel()
    assert heard == expected


Call = tuple[str, dict[str, float]]


@pytest.mark.parametrize(
    ("calls", "asked"),
    [
        ([], [{}]),
        ([("end", {})], [{}]),
        ([("end", {"map": 1})], [{"map": 1}]),
        ([("training", {"loss": 3})], [{"loss": 3}]),
        ([("end", {"map": 1}), ("training", {"loss": 3})], [{"map": 1, "loss": 3}]),
        ([("evaluation", {"map": 1})], [{"map": 1}]),
        ([("evaluation", {})], [{}]),
        ([("evaluation", {"map": 1}), ("evaluation", {"map": 2})], [{"map": 1}, {"map": 2}]),
        (
            [("evaluation", {"map": 1}), ("end", {"map": 2}), ("training", {"loss": 3})],
            [{"map": 1}, {"map": 2, "loss": 3}],
        ),
        ([("evaluation", {"map": 1}), ("training", {"loss": 3})], [{"map": 1, "loss": 3}]),
        ([("evaluation", {"loss": 1}), ("training", {"loss": 3})], [{"loss": 1}]),
    ],
)
def test_what_the_schedule_is_asked_about(calls: list[Call], asked: list[dict[str, float]]) -> None:
    listener = Asked()
    sampler = make(schedule=listener)
    for kind, metrics in calls:
        if kind == "evaluation":
            sampler.on_evaluation(metrics)
    given_ = {kind: metrics for kind, metrics in calls if kind != "evaluation"}
    sampler.on_epoch_end(Tiny(), 0, given_.get("end"), training_metrics=given_.get("training"))
    assert listener.metrics == asked
    sampler.on_epoch_end(Tiny(), 1)
    assert listener.metrics[len(asked) :] == [{}]


class Asked(Listener):
    """Keeps whole mappings."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, float]] = []

    def due(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        self.metrics.append(dict(metrics))
        return False


def test_a_value_of_the_training_is_not_taken_for_one_of_an_evaluation() -> None:
    """A loop that evaluates every second epoch, and has one name for two losses."""
    listener = Listener("loss")
    sampler = make(schedule=listener)
    for epoch in range(4):
        sampler.on_epoch_end(Tiny(), epoch, {"loss": 0.5} if epoch % 2 else None, training_metrics={"loss": 9.0})
    assert listener.asked == [(0, 9.0), (1, 0.5), (2, None), (3, 0.5)]


def test_evaluations_of_a_saved_state_are_known() -> None:
    sampler = make(schedule=WhenStalled("map"))
    sampler.on_evaluation({"loss": 0.5})
    state = json.loads(json.dumps(sampler.state_dict()))

    listener = Listener("loss")
    again = make(schedule=listener)
    again.load_state_dict({**state, "schedule": {}})
    for epoch in range(3):
        again.on_epoch_end(Tiny(), epoch, training_metrics={"loss": 9.0})
        again.on_training_end()
    assert listener.asked == [(0, 0.5), (1, None), (2, None)]

    misspelt = make(schedule=WhenStalled("map"))
    misspelt.load_state_dict(state)
    with pytest.raises(
        InvalidInputError, match=r"got 'map', but what was measured by the end of epoch 0 is \['loss'\]"
    ):
        misspelt.on_epoch_end(Tiny(), 0)

    right = make(schedule=WhenStalled("loss"))
    right.load_state_dict({**state, "schedule": {"stalled": 0}})
    right.on_epoch_end(Tiny(), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right.on_training_end()


def test_schedules_of_epochs_are_due_whatever_was_measured() -> None:
    for schedule, due in ((EveryEpochs(2), [1, 3]), (AtEpochs(0, 3), [0, 3])):
        sampler = make(30, schedule=schedule)
        found = []
        for epoch, evaluations in enumerate([0, 1, 3, 2]):
            for _ in range(evaluations):
                sampler.on_evaluation({"map": 0.5})
            if sampler.on_epoch_end(Tiny(), epoch) is not None:
                found.append(epoch)
        assert found == due
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sampler.on_training_end()


# A metric that is never measured


def test_a_misspelt_metric_is_an_error_as_soon_as_it_can_be_one() -> None:
    sampler = make(schedule=WhenStalled("mAP"))
    sampler.on_epoch_end(Tiny(), 0)
    sampler.on_epoch_end(Tiny(), 1, training_metrics={"loss": 1.0})
    message = (
        r"`metric` of WhenStalled must be the name of one that is measured; got 'mAP', but what was measured by "
        r"the end of epoch 2 is \['loss', 'map'\]. Watch one of these, or measure 'mAP' from the first evaluation on.*"
        r"`training_metrics`"
    )
    with pytest.raises(InvalidInputError, match=message):
        sampler.on_epoch_end(Tiny(), 2, {"map": 0.5})
    sampler.on_epoch_end(Tiny(), 3)  # without an evaluation there is nothing new to say
    sampler.on_evaluation({"map": 0.4})
    with pytest.raises(InvalidInputError, match="got 'mAP'"):
        sampler.on_epoch_end(Tiny(), 4)


def test_a_metric_that_was_measured_once_may_be_left_out() -> None:
    """By evaluations, in this training or in one that it goes on from; also just after a choice."""
    sampler = make(schedule=WhenStalled("map", patience=1))
    due = [
        sampler.on_epoch_end(Tiny(), epoch, metrics) is not None
        for epoch, metrics in enumerate([{"map": 0.5}, {"loss": 1.0}, {"map": 0.4}, {"loss": 1.0}])
    ]
    assert due == [False, False, True, False]
    again = make(schedule=WhenStalled("map", patience=1))
    again.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert again.on_epoch_end(Tiny(), 4, {"loss": 1.0}) is None
    old = make(schedule=WhenStalled("map"))
    state = sampler.state_dict()
    old.load_state_dict({**state, "schedule": {"best": 0.5, "stalled": 0}})  # as it was before it had `measured`
    assert old.on_epoch_end(Tiny(), 4, {"loss": 1.0}) is None


def test_metrics_that_come_late_are_no_error() -> None:
    sampler = make(schedule=WhenStalled("late"))
    sampler.on_epoch_end(Tiny(), 0, {"map": 0.5}, complete=False)
    sampler.check_metric(0, {"late": 0.7})
    sampler.on_epoch_end(Tiny(), 1, {"map": 0.5}, complete=False)
    sampler.on_training_end()


def test_a_training_without_its_metric_is_told_once() -> None:
    sampler = make(schedule=WhenStalled("map"))

    def told() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sampler.on_training_end()
        return [str(one.message) for one in caught]

    assert told() == []  # there was no training
    for epoch in range(3):
        sampler.on_epoch_end(Tiny(), epoch, training_metrics={"loss": 1.0})
    (message,) = told()
    assert "it watches 'map', which this training did not measure (epochs: 3; measured: loss)" in message
    assert told() == []
    with pytest.raises(InvalidInputError, match="got 'map'"):
        sampler.on_epoch_end(Tiny(), 0, {"mAP": 0.5})
    sampler.on_epoch_end(Tiny(), 1, {"mAP": 0.5}, complete=False)
    (message,) = told()
    assert "(epochs: 2; measured: mAP)" in message
    sampler.check_metric(-1)  # what the training before measured is not complained of in the next one
    sampler.on_epoch_end(Tiny(), 0, {"map": 0.5})
    assert told() == []
    sampler.on_epoch_end(Tiny(), 0)  # another training, of one schedule
    (message,) = told()
    assert "(epochs: 1; measured: nothing)" in message


# State


def test_evaluations_that_the_schedule_has_not_seen_are_saved() -> None:
    sampler = make(schedule=WhenStalled("map"))
    assert "measured" not in sampler.state_dict()
    sampler.on_evaluation({"map": 1, "loss": float("nan")})
    state = sampler.state_dict()
    assert state["measured"] == [{"map": 1.0, "loss": "nan"}]
    for again in (pickle.loads(pickle.dumps(sampler)), make(schedule=WhenStalled("map"))):
        again.load_state_dict(state)
        again.on_epoch_end(Tiny(), 0)
        assert again.schedule.state_dict() == {"best": 1.0, "stalled": 0, "measured": True}
        assert "measured" not in again.state_dict()


def test_numbers_that_json_does_not_know_can_be_saved(tmp_path: Path) -> None:
    """A diverged training is no reason to lose the labels."""
    sampler = make(schedule=WhenStalled("map"), annotate=None)
    sampler.on_epoch_end(Tiny(), 0, {"map": math.inf})
    sampler.on_evaluation({"map": math.nan, "loss": -math.inf})
    sampler.on_evaluation({"map": 0.5})
    sampler.save(tmp_path / "state.json")
    again = make(schedule=WhenStalled("map"), annotate=None)
    again.load(tmp_path / "state.json")
    assert again.state_dict() == sampler.state_dict()
    for one in (sampler, again):
        one.on_epoch_end(Tiny(), 1)
        assert one.schedule.state_dict() == {"best": "inf", "stalled": 2, "measured": True}


@pytest.mark.parametrize("wrong", [None, 3, {}, {"map": 1}, ["map"], [[]], [{}], [{"map": None}], [{"map": "x"}]])
def test_a_damaged_state_is_refused(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Measurements.read_state(wrong)


def test_what_is_watched() -> None:
    schedule = WhenStalled("map")
    assert watched_metric(schedule) == make(schedule=schedule).watched_metric == "map"
    assert watched_metric(EveryEpochs()) is make().watched_metric is None
    assert not has_measured(schedule)
    assert not has_measured(EveryEpochs())
    schedule.due(0, {"map": float("nan")})
    assert has_measured(schedule)
