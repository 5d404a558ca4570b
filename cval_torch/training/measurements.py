"""What a training measures between two questions to its schedule, and whether the schedule's metric is among it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cval_torch.errors import InvalidInputError
from cval_torch.training.schedules import Schedule, WhenStalled, plain


class Measurements:
    """The evaluations since the schedule was last asked, in their order; and the names measured in this training."""

    def __init__(self) -> None:
        self._evaluations: list[dict[str, float]] = []
        self._unchecked = False  # whether there was an evaluation since the last look for the schedule's metric
        self._names: set[str] = set()
        self._evaluated: set[str] = set()  # what evaluations measured, in any training
        self._newest: dict[str, float] = {}  # of each that evaluations measured since it was last asked for
        self._epochs = 0  # of this training, after which the schedule was asked

    def add(self, metrics: Mapping[str, float]) -> None:
        """Take note of one evaluation. One that measured nothing is none."""
        if metrics:
            self._evaluations.append(_floats(metrics))
            self._newest.update(self._evaluations[-1])
            self._names.update(metrics)
            self._evaluated.update(metrics)
            self._unchecked = True

    def take(self, training_metrics: Mapping[str, float]) -> list[dict[str, float]]:
        """What to ask the schedule with, and forget it: a mapping for each evaluation, or a single one if none was.

        The last of them has what the training itself measured, too. It is empty if nothing was measured. Where an
        evaluation and the training measure under one name, the training's values are left out: they are another metric.
        """
        self._names.update(training_metrics)
        self._epochs += 1
        asked, self._evaluations = self._evaluations or [{}], []
        own = {name: value for name, value in training_metrics.items() if name not in self._evaluated}
        return [*asked[:-1], {**_floats(own), **asked[-1]}]

    def take_newest(self) -> dict[str, float]:
        """The newest value of each metric that evaluations measured since this was asked last."""
        newest, self._newest = self._newest, {}
        return newest

    def check(self, schedule: Schedule, epoch: int, also: Mapping[str, float]) -> None:
        """Raise if there are evaluations, and they do not measure what the schedule watches.

        Args:
            schedule: has been asked about everything so far.
            epoch: the last one, for the message.
            also: what the schedule has yet to be asked about.

        Raises:
            InvalidInputError: the metric was never measured, although there was an evaluation since the last check.
        """
        unchecked, self._unchecked = self._unchecked, False
        self._names.update(also)
        metric = watched_metric(schedule)
        if unchecked and metric is not None and metric not in self._names and not has_measured(schedule):
            raise InvalidInputError(
                f"`metric` of WhenStalled must be the name of one that is measured; got {metric!r}, but what was "
                f"measured by the end of epoch {epoch} is {sorted(self._names)}. Watch one of these, or measure "
                f"{metric!r} from the first evaluation on. In a loop of your own, pass `metrics` only after an "
                "evaluation, and what training alone measures as `training_metrics`"
            )

    def end(self, schedule: Schedule) -> str | None:
        """Begin another training. Returns what to tell of the one that ended, if its schedule waited in vain."""
        metric, names, epochs = watched_metric(schedule), self._names, self._epochs
        self._names, self._epochs, self._unchecked = set(), 0, False
        if metric is None or metric in names or not epochs:
            return None
        return (
            f"the schedule could not become due: it watches {metric!r}, which this training did not measure (epochs: "
            f"{epochs}; measured: {', '.join(sorted(names)) or 'nothing'}). Have {metric!r} evaluated during the "
            "training, watch another metric, or choose after a number of epochs, by EveryEpochs"
        )

    def state(self) -> list[dict[str, float | str]]:
        """The evaluations that the schedule has yet to be asked about, as plain values."""
        return [{name: plain(value) for name, value in metrics.items()} for metrics in self._evaluations]

    @staticmethod
    def read_state(state: Any) -> list[dict[str, float]]:
        """What `state` returned, checked. Raises TypeError or ValueError."""
        if not isinstance(state, list) or not all(isinstance(metrics, Mapping) and metrics for metrics in state):
            raise TypeError(f"`measured` must be a list of mappings; got {state!r}")
        return [_floats(metrics) for metrics in state]

    def load(self, evaluations: list[dict[str, float]]) -> None:
        """Go on from what `read_state` returned."""
        self._evaluations, self._unchecked = evaluations, bool(evaluations)
        self._names.update(*evaluations)
        self._evaluated.update(*evaluations)
        self._newest = {name: value for metrics in evaluations for name, value in metrics.items()}


def watched_metric(schedule: Schedule) -> str | None:
    """Name of the metric without which the schedule is never due; None if there is none that is known of."""
    return schedule.metric if isinstance(schedule, WhenStalled) else None


def has_measured(schedule: Schedule) -> bool:
    """Whether the schedule has ever seen its metric."""
    return isinstance(schedule, WhenStalled) and schedule.measured


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
