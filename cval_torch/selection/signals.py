"""`max_zscore`: several signals about frames made one, a strategy as a callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, callable_name
from cval_torch.pool.pool import Pool
from cval_torch.selection.columns import columns_read
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.columns import COLUMNS
from cval_torch.strategies.registry import STRATEGIES, find_strategy

Signal = str | tuple[str, str] | DetectionSampling | Callable[[Pool], Any]

# a signal whose values differ by less than this share of the largest is constant but for rounding
_ROUNDING = 1e-12


def max_zscore(*signals: Signal) -> MaxZScore:
    """A strategy that takes for each frame the signal by which it stands out most.

    Each signal is standardised over the pool, `z = (x - mean) / sd`, and a frame's score is the greatest of its `z`: so
    AL-MDN joins its four uncertainties (Choi et al., *Active Learning for Deep Object Detection via Probabilistic
    Modeling*, arXiv 2103.16130). A frame that one signal alone finds remarkable is chosen; in a mean it would be lost.

    Args:
        signals: at least one of

            - the name of a scoring strategy (`entropy`, `margin`, `least`, `ratio`, `probability`);
            - a name and a `bbox_selection_policy`, such as `("entropy", "sum")`;
            - a scoring `DetectionSampling`, for `probs_weights`, `class_weights` (numbers, not `"balanced"`) or a
              `sort_strategy`; its `num_of_samples`, `null_policy` and `seed` do not matter;
            - a callable `Pool -> (F,)`, higher = more informative.

    Returns:
        A callable for `selection_strategy`: `Pool -> (F,)` float64, higher = more informative, in units of a standard
        deviation. A signal that is the same for all frames is 0. Signals that put low values first (`probability`,
        `ascending`) are turned round. By a named signal a frame without boxes has the score that the protocol gives
        it, which takes no part in the mean and the standard deviation. It depends on the whole pool, so several
        processes choose from a gathered one, and no service has it. It can be pickled if its callables can.

    Raises:
        InvalidInputError: no signal, or one of another kind.

    >>> pool = Pool(["a", "b", "c"], torch.tensor([0, 1, 2, 4]), scores=torch.tensor([0.9, 0.7, 0.9, 0.9]))
    >>> strategy = max_zscore("entropy", lambda pool: pool.counts)
    >>> [round(z, 2) for z in strategy(pool).tolist()]
    [-0.71, 1.41, 1.41]
    >>> max_zscore(("entropy", "sum"), "margin")
    max_zscore(('entropy', 'sum'), 'margin')
    """
    if not signals:
        raise InvalidInputError("`signals` must be at least one; got none")
    return MaxZScore(signals)


class MaxZScore:
    """What `max_zscore` returns."""

    def __init__(self, signals: tuple[Signal, ...]) -> None:
        self.signals = signals
        self._parts = [_part(signal) for signal in signals]
        read = {column for part in self._parts for column in columns_read(part)}
        self.needs = tuple(column for column in COLUMNS if column in read)
        self.__name__ = self.__qualname__ = repr(self)  # what messages and histories call a strategy

    def __call__(self, pool: Pool) -> Tensor:
        """(F,) float64 scores of F frames; `max_zscore` says what they are."""
        seen = ~pool.is_empty
        columns = []
        for part in self._parts:
            values = frame_scores(pool, part)
            signed = values if part.descending else -values
            by_boxes = not callable(part.selection_strategy) and bool(seen.any())
            columns.append(_standardised(signed, signed[seen] if by_boxes else signed))
        return torch.stack(columns).amax(0)

    def __repr__(self) -> str:
        return f"max_zscore({', '.join(_described(signal) for signal in self.signals)})"


def _part(signal: Signal) -> DetectionSampling:
    """The signal as a stage that scores."""
    if isinstance(signal, DetectionSampling):
        stage = signal
    elif isinstance(signal, str) or callable(signal):
        stage = DetectionSampling(num_of_samples=1, selection_strategy=signal)
    elif isinstance(signal, tuple) and len(signal) == 2 and signal[1] in ("min", "max", "mean", "sum"):
        stage = DetectionSampling(num_of_samples=1, selection_strategy=signal[0], bbox_selection_policy=signal[1])
    else:
        raise InvalidInputError(
            "a signal must be the name of a scoring strategy, (name, 'min', 'max', 'mean' or 'sum'), a "
            f"DetectionSampling, or a callable; got {signal!r}"
        )
    strategy = stage.selection_strategy
    if not find_strategy(strategy).scores_frames:
        scoring = ", ".join(name for name, record in STRATEGIES.items() if record.scores_frames)
        raise InvalidInputError(f"a signal must score frames: {scoring} or a callable; got {strategy!r}")
    return stage


def _standardised(values: Tensor, sample: Tensor) -> Tensor:
    """`values` in standard deviations of the `sample` from its mean; 0 where the sample is constant."""
    if len(sample) == 0:
        return torch.zeros_like(values)
    ordered = sample.sort().values  # sums that no order of frames changes
    largest = ordered.abs().max()
    if bool(ordered[-1] - ordered[0] <= _ROUNDING * largest):
        return torch.zeros_like(values)
    ordered = ordered / largest  # squares that neither overflow nor vanish
    return (values / largest - ordered.mean()) / ordered.std(correction=0)


def _described(signal: Signal) -> str:
    if isinstance(signal, DetectionSampling):
        fields = signal.model_dump(exclude_defaults=True, exclude={"num_of_samples"})
        shown = (f"{name}={callable_name(v) if callable(v) else repr(v)}" for name, v in fields.items())
        return f"DetectionSampling({', '.join(shown)})"
    return callable_name(signal) if callable(signal) else repr(signal)
