"""`TransformersSampler`: a `SamplerCallback` within a Hugging Face `Trainer`, which is then trained in rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cval_torch.errors import MissingExtraError
from cval_torch.hooks.finding import find_detector
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

    Args:
        sampler: what does the work. Epochs are counted anew in every `Trainer.train`.
        detector: name of the model's attribute that is the detector. None: the model itself, or the one of its
            attributes that an adapter knows.
        stop_training: end the training after a choice. False: go on, on the frames that there were.

    Attributes:
        chosen: the last choice of this training; None before there is one.
    """

    def __init__(self, sampler: SamplerCallback, *, detector: str | None = None, stop_training: bool = True) -> None:
        self.sampler, self.detector, self.stop_training = sampler, detector, stop_training
        self.chosen: SelectedFrames | None = None
        self._epoch_to_evaluate: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what another training left."""
        self.chosen, self._epoch_to_evaluate = None, None

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose, if it is time; or wait for the metrics, which the host computes only after this."""
        epoch = math.ceil(state.epoch or 0) - 1  # the host counts what is done: 1.0 after the first, 0.5 in its middle
        if control.should_evaluate:
            self._epoch_to_evaluate = epoch
        else:
            self._choose(epoch, _last_metrics(state), control, kwargs["model"])

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Choose, if this is the evaluation at the end of an epoch, and not one in its middle, or of the user's own."""
        epoch, self._epoch_to_evaluate = self._epoch_to_evaluate, None
        if epoch is not None:
            self._choose(epoch, _numbers(metrics or {}), control, kwargs["model"])

    def _choose(self, epoch: int, metrics: Mapping[str, float], control: TrainerControl, model: Any) -> None:
        detector = find_detector(model, name=self.detector, adapter=self.sampler.options.adapter)
        chosen = self.sampler.on_epoch_end(detector, epoch, metrics)
        if chosen is not None:
            self.chosen = chosen
            control.should_training_stop = control.should_training_stop or self.stop_training


def _last_metrics(state: TrainerState) -> dict[str, float]:
    """What was logged last under each name."""
    metrics: dict[str, float] = {}
    for entry in state.log_history:
        metrics.update(_numbers(entry))
    return metrics


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in entry.items() if isinstance(value, (int, float))}
