"""`TransformersSampler`: a `SamplerCallback` within a Hugging Face `Trainer`, which is then trained in rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cval_torch.errors import InvalidInputError, MissingExtraError
from cval_torch.hooks.holding import find_detector
from cval_torch.pipeline import SelectedFrames
from cval_torch.training.sampler import SamplerCallback

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingExtraError("transformers", needed_for="TransformersSampler") from error


class TransformersSampler(TrainerCallback):
    """Chooses frames at the end of training epochs, after the evaluation of that epoch if there is one.

    The Trainer makes its train loader once. So, unless told otherwise, training ends after a choice, and the next
    round is a Trainer of its own, on the grown `labels.labeled`; `examples/hosts/transformers_trainer.py` has the loop.
    The checkpoints of the Trainer do not have the labels: give the sampler a `save_to` file.

    A `WhenStalled` counts each evaluation in the training, by epochs or by steps, and what the training logs once an
    epoch, at its last value. The evaluation of `eval_on_start` is not counted: the training has done nothing yet.

    Args:
        sampler: what does the work. Epochs are counted anew in every `Trainer.train`.
        detector: name of the model's attribute that is the detector. None: the model itself, or the one
            detector inside it.
        stop_training: end the training after a choice. False: go on, on the frames that there were.

    Attributes:
        chosen: the last choice of this training; None before there is one.
    """

    def __init__(self, sampler: SamplerCallback, *, detector: str | None = None, stop_training: bool = True) -> None:
        self.sampler, self.detector, self.stop_training = sampler, detector, stop_training
        self.chosen: SelectedFrames | None = None
        self._first_step: int | None = None  # of the training that is under way
        self._epoch_to_ask: int | None = None  # an epoch that ended, of which metrics are to come
        self._training_metrics: dict[str, float] = {}
        self._measured: set[str] = set()  # names of all metrics since the schedule was last asked

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what another training left.

        Raises:
            InvalidInputError: the schedule watches a metric of evaluations, and there will be none.
        """
        watched = self.sampler.watched_metric
        if args.eval_strategy == "no" and watched is not None and watched.startswith("eval_"):
            raise InvalidInputError(
                f"the schedule watches {watched!r}, but the Trainer never evaluates: give its TrainingArguments "
                'eval_strategy="epoch" or "steps"; got eval_strategy="no"'
            )
        self.chosen, self._epoch_to_ask, self._training_metrics, self._measured = None, None, {}, set()
        self._first_step = state.global_step

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait no longer for metrics of the epoch before."""
        self._choose(control, kwargs["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose, if it is time; or wait for the metrics, which the host logs and evaluates only after this."""
        # the host counts what is done: 1.0 after the first, 0.5 in its middle
        self._epoch_to_ask = math.ceil(state.epoch or 0) - 1
        to_be_logged = control.should_log and not self._has_what_is_watched()
        if not control.should_evaluate and not to_be_logged:
            self._choose(control, kwargs["model"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep what the training measured."""
        if _is_summary(logs or {}):
            return
        metrics = _numbers(logs or {})
        self._training_metrics.update(metrics)
        self._measured.update(metrics)
        if not control.should_evaluate:
            self._choose(control, kwargs["model"])

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep what an evaluation of the training measured; choose, if it is the one at the end of an epoch."""
        if self._first_step is None or state.global_step == self._first_step:
            return  # one of the user's own, or that of `eval_on_start`
        numbers = _numbers(metrics or {})
        self.sampler.on_evaluation(numbers)
        self._measured.update(numbers)
        if self._has_what_is_watched():  # of several datasets, each is evaluated by itself: wait for that one
            self._choose(control, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Warn if the training never measured what a `WhenStalled` watches."""
        self._choose(control, kwargs["model"], complete=False)  # too late for an error
        self._first_step = None
        self.sampler.on_training_end()

    def _has_what_is_watched(self) -> bool:
        """Whether the schedule need not wait for more metrics."""
        watched = self.sampler.watched_metric
        return watched is None or watched in self._measured

    def _choose(self, control: TrainerControl, model: Any, *, complete: bool = True) -> None:
        """Ask the schedule about the epoch that ended, if it was not asked yet."""
        epoch, self._epoch_to_ask = self._epoch_to_ask, None
        if epoch is None:
            return
        metrics, self._training_metrics, self._measured = self._training_metrics, {}, set()
        detector = find_detector(model, name=self.detector, adapter=self.sampler.options.adapter).model
        chosen = self.sampler.on_epoch_end(detector, epoch, training_metrics=metrics, complete=complete)
        if chosen is not None:
            self.chosen = chosen
            control.should_training_stop = control.should_training_stop or self.stop_training


def _is_summary(logs: Mapping[str, Any]) -> bool:
    """Whether the host logs an evaluation, which it hands over by itself, or a whole training."""
    return any(name.endswith("_runtime") for name in logs)


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in entry.items() if isinstance(value, (int, float))}
