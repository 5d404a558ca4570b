"""When a round is due."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from shades import Tiny, make

from cval_torch.errors import InvalidInputError
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training import AtEpochs, EveryEpochs, Schedule, WhenStalled


def test_every_n_epochs_at_epochs_and_no_more_than_max_rounds() -> None:
    def epochs(**options: Any) -> list[int]:
        callback = make(40, **options)
        return [epoch for epoch in range(8) if callback.on_epoch_end(Tiny(), epoch) is not None]

    assert epochs() == list(range(8))
    assert epochs(schedule=EveryEpochs(3)) == [2, 5]
    assert epochs(schedule=AtEpochs(0, 6)) == [0, 6]
    assert epochs(max_rounds=2) == [0, 1]
    with pytest.warns(UserWarning, match="all 7 frames"):
        assert epochs(stages=DetectionSampling(selection_strategy="least", num_of_samples=30)) == [0, 1]


@given(
    values=st.lists(st.floats(0, 1, width=16) | st.just(float("nan")), max_size=30),
    patience=st.integers(1, 4),
    higher=st.booleans(),
    delta=st.sampled_from([0.0, 0.1]),
    cut=st.integers(0, 30),
)
def test_a_stall_is_patience_epochs_without_a_better_value(
    values: list[float], patience: int, higher: bool, delta: float, cut: int
) -> None:
    """Beside a model that keeps the whole history since the last choice; the state travels at `cut`."""

    def better(value: float, best: float) -> bool:
        return value > best + delta if higher else value < best - delta

    expected, since = [], []
    for value in values:
        since.append(value)
        best, stalled = None, 0
        for one in since:
            if not math.isnan(one) and (best is None or better(one, best)):
                best, stalled = one, 0
            else:
                stalled += 1
        expected.append(stalled >= patience)
        if expected[-1]:
            since = []
    schedule = WhenStalled("map", patience=patience, higher_is_better=higher, min_delta=delta)
    found = []
    for epoch, value in enumerate(values):
        if epoch == cut:
            state = schedule.state_dict()
            schedule = WhenStalled("map", patience=patience, higher_is_better=higher, min_delta=delta)
            schedule.load_state_dict(json.loads(json.dumps(state)))
        found.append(schedule.due(epoch, {"map": value}))
    assert found == expected


def test_a_stall_in_a_training_loop() -> None:
    callback = make(schedule=WhenStalled("loss", patience=2, higher_is_better=False))
    losses = [3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0]
    due = [callback.on_epoch_end(Tiny(), epoch, {"loss": loss}) is not None for epoch, loss in enumerate(losses)]
    assert due == [False, False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("metrics", "due"),
    [
        # evaluations are counted, not epochs
        ([{"map": 0.5}, {"map": 0.4}, {"map": 0.4}], [2]),
        ([{"map": 0.5}, {}, {}, {"map": 0.4}, {}, {"map": 0.4}, {}], [5]),
        ([{}, {}, {}, {}], []),
        # other metrics change nothing
        ([{"loss": 1.0}, {"loss": 1.0}, {"map": 0.5}, {"loss": 1.0}, {"loss": 1.0}, {"loss": 1.0}], []),
        ([{"map": 0.5, "loss": 2.0}, {"loss": 1.0}, {"map": 0.4}, {"map": 0.3, "loss": 1.0}], [3]),
        # not measured is not NaN
        ([{"map": 0.5}, {"map": math.nan}, {}, {"map": math.nan}], [3]),
        ([{"map": math.nan}, {}, {"map": math.nan}], [2]),
        # a better one in between, and a fresh start
        ([{"map": 0.5}, {"map": 0.4}, {}, {"map": 0.6}, {"map": 0.6}, {"map": 0.6}, {}], [5]),
        ([{"map": 0.5}, {"map": 0.4}, {"map": 0.4}, {}, {"map": 0.1}, {"map": 0.1}, {}, {"map": 0.1}], [2, 7]),
    ],
)
def test_what_was_not_measured_counts_neither_way(metrics: list[dict[str, float]], due: list[int]) -> None:
    schedule = WhenStalled("map", patience=2)
    assert [epoch for epoch, each in enumerate(metrics) if schedule.due(epoch, each)] == due
    assert schedule.measured is any("map" in each for each in metrics)


def test_a_state_that_is_none_of_a_stall() -> None:
    schedule = WhenStalled("map")
    schedule.due(0, {"map": 0.5})
    before = schedule.state_dict()
    with pytest.raises(InvalidInputError, match="`measured` in the state of a WhenStalled must be a bool; got 3"):
        schedule.load_state_dict({"best": 0.1, "stalled": 2, "measured": 3})
    assert schedule.state_dict() == before


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EveryEpochs(0),
        AtEpochs,
        lambda: AtEpochs(3, -1),
        lambda: WhenStalled("map", patience=0),
        lambda: WhenStalled("map", min_delta=float("nan")),
        lambda: make(stages=[]),
        lambda: make(max_rounds=0),
    ],
)
def test_options_out_of_range(wrong: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInputError, match="must be"):
        wrong()


def test_schedules_are_schedules() -> None:
    for schedule in (EveryEpochs(), AtEpochs(1), WhenStalled("map")):
        assert isinstance(schedule, Schedule)
