"""When to choose frames: every n epochs, after given epochs, or when a metric stalls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from cval_torch.errors import InvalidInputError


@runtime_checkable
class Schedule(Protocol):
    """Says after which epochs frames are chosen. It is asked at the end of each epoch, on rank 0 only.

    It is asked about everything that was measured since the end of the epoch before, and about nothing else: values
    that are older do not come again. If there were several evaluations, it is asked about each in turn, until it says
    yes; then frames are chosen, and the evaluations that are left are dropped. If there was no evaluation, it is asked
    once.
    """

    def due(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether to choose after `epoch`.

        Args:
            epoch: counted from 0.
            metrics: what one evaluation measured. With the last one of the epoch, or where there was none, also what
                the training itself measured. Empty: nothing was measured.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember that instead."""
        ...


class EveryEpochs:
    """After every `n` epochs: with n=3 after epochs 2, 5, 8 and so on, as epochs are counted from 0.

    >>> [epoch for epoch in range(9) if EveryEpochs(3).due(epoch, {})]
    [2, 5, 8]
    """

    def __init__(self, n: int = 1) -> None:
        if n < 1:
            raise InvalidInputError(f"`n` must be at least 1; got {n}")
        self.n = n

    def due(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether `epoch` ends a group of n."""
        return (epoch + 1) % self.n == 0

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the epoch says it all."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""


class AtEpochs:
    """After the epochs named, counted from 0.

    >>> [epoch for epoch in range(9) if AtEpochs(1, 4).due(epoch, {})]
    [1, 4]
    """

    def __init__(self, *epochs: int) -> None:
        if not epochs or min(epochs) < 0:
            raise InvalidInputError(f"`epochs` must be one or more numbers from 0; got {epochs}")
        self.epochs = frozenset(epochs)

    def due(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether `epoch` is one of them."""
        return epoch in self.epochs

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the epoch says it all."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""


class WhenStalled:
    """When `metric` has not improved for `patience` evaluations in a row.

    Evaluations are counted, not epochs: an epoch in which the metric was not measured counts neither way, and several
    evaluations in one epoch count each. A metric that the training itself measures, such as its mean loss, counts once
    an epoch. A NaN is no improvement.

    After a choice it starts anew, best value included: on more frames the metric may begin lower.

    Args:
        metric: its name in `metrics`. If there are evaluations, and it is not even among the first, that is an error.
        patience: evaluations without improvement, at least 1.
        higher_is_better: True for mAP, False for a loss.
        min_delta: what counts as an improvement is more than this, in the metric's unit.

    Attributes:
        measured: whether the metric was ever measured.

    >>> schedule = WhenStalled("map", patience=2)
    >>> [schedule.due(epoch, {"map": value}) for epoch, value in enumerate([0.1, 0.3, 0.3, 0.2, 0.1])]
    [False, False, False, True, False]
    >>> schedule = WhenStalled("map", patience=1)
    >>> [schedule.due(epoch, metrics) for epoch, metrics in enumerate([{"map": 0.3}, {}, {}, {"map": 0.2}])]
    [False, False, False, True]
    """

    def __init__(
        self, metric: str, *, patience: int = 3, higher_is_better: bool = True, min_delta: float = 0.0
    ) -> None:
        if patience < 1:
            raise InvalidInputError(f"`patience` must be at least 1; got {patience}")
        if not min_delta >= 0:
            raise InvalidInputError(f"`min_delta` must be at least 0; got {min_delta}")
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
        self.higher_is_better = higher_is_better
        self.measured = False
        self._best = -math.inf  # in units where higher is better
        self._stalled = 0

    def due(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Count an evaluation, and say whether it was one without improvement too many.

        Metrics without the one that is watched are no evaluation of it: they change nothing.
        """
        if self.metric not in metrics:
            return False
        self.measured = True
        value = float(metrics[self.metric]) * (1 if self.higher_is_better else -1)
        if value > self._best + self.min_delta:
            self._best, self._stalled = value, 0
            return False
        self._stalled += 1
        if self._stalled < self.patience:
            return False
        self._best, self._stalled = -math.inf, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """The best value since the last choice (left out before there is one), and the evaluations since it."""
        best = {} if self._best == -math.inf else {"best": plain(self._best)}
        return {**best, "stalled": self._stalled, "measured": self.measured}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            InvalidInputError: `state` is none of a `WhenStalled`.
        """
        best, stalled = float(state.get("best", -math.inf)), int(state.get("stalled", 0))
        measured = state.get("measured", stalled > 0 or best > -math.inf)
        if not isinstance(measured, bool):
            raise InvalidInputError(f"`measured` in the state of a WhenStalled must be a bool; got {measured!r}")
        self._best, self._stalled, self.measured = best, stalled, measured


def plain(value: float) -> float | str:
    """A number as JSON can have it, which knows neither NaN nor infinity; `float` reads it back."""
    return value if math.isfinite(value) else str(value)
