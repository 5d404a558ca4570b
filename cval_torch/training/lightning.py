"""`LightningSampler`: a `SamplerCallback` within a Lightning `Trainer`, of `lightning` or of `pytorch_lightning`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

from torch import nn

from cval_torch.errors import InvalidInputError, MissingExtraError, warn_user
from cval_torch.hooks.holding import find_detector
from cval_torch.pipeline import SelectedFrames
from cval_torch.training.sampler import SamplerCallback

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")  # one library under two names; the callbacks are interchangeable

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:

    def _callback_class() -> type:
        """Of the package that is imported already, so that the other one need not be; else of one that is there."""
        for name in sorted(_PACKAGES, key=lambda package: package not in sys.modules):
            try:
                return importlib.import_module(name).Callback
            except ImportError:
                continue
        raise MissingExtraError("lightning", needed_for="LightningSampler")

    Callback = _callback_class()


class LightningSampler(Callback):
    """Chooses frames at the end of training epochs, after validation, and before the checkpoint is written.

    The checkpoint has the labels, their history, what is pending, and the schedule. They are taken over when a fit
    is resumed from it, and only then: testing an old checkpoint does not take labels back.

    So that a fit trains on frames that were labelled in the middle of it, its `train_dataloader` hook must make a
    loader of `labels.labeled`, and the `Trainer` must have `reload_dataloaders_every_n_epochs=1`.

    A `WhenStalled` counts each validation, with any `check_val_every_n_epoch` and `val_check_interval`. A metric that
    is logged in training counts once an epoch, unless validation logs the same name. What is logged in an
    `on_train_epoch_end` after this callback's own, such as the module's, counts at the end of the next epoch.

    A sanity check does nothing. `fast_dev_run` rehearses the inference on a few frames: nothing is chosen, and nobody
    is asked to annotate.

    Args:
        sampler: what does the work.
        detector: name of the module's attribute that is the detector, such as `"model"`. None: the module itself,
            or the one detector inside it.
        stop_training: end the fit after a choice, for rounds outside of it.
        name: tells the states of several samplers in one checkpoint apart.

    Attributes:
        chosen: the last choice of this fit; None before there is one.
    """

    def __init__(
        self,
        sampler: SamplerCallback,
        *,
        detector: str | None = None,
        stop_training: bool = False,
        name: str = "sampler",
    ) -> None:
        super().__init__()
        self.sampler, self.detector, self.stop_training, self.name = sampler, detector, stop_training, name
        self.chosen: SelectedFrames | None = None
        self._loaded: dict[str, Any] | None = None
        self._dataset_before: tuple[Any, int | None] | None = None
        self._fitting = False
        self._metrics = _EpochMetrics()

    @property
    def state_key(self) -> str:
        """Under which the state is in a checkpoint."""
        return f"cval_torch.LightningSampler[{self.name}]"

    def state_dict(self) -> dict[str, Any]:
        """See `SamplerCallback.state_dict`."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the fit starts: only then is it known that this is one."""
        self._loaded = state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget a state that no fit has taken over, and what an earlier fit measured."""
        self._loaded = self._dataset_before = self.chosen = None
        self._fitting = stage == "fit"
        self._metrics = _EpochMetrics()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the state of the checkpoint, before the train dataloader is made; check that it can grow.

        Raises:
            InvalidInputError: labels would be added in the middle of the fit, and the loader never made anew.
        """
        self._detector_in(pl_module)
        every = _reloads_every(trainer)
        grows = self.sampler.annotate is not None and not self.stop_training and trainer.max_epochs != 1
        if grows and not every:
            raise InvalidInputError(
                "frames labelled in the middle of the fit would never be trained on: make the Trainer with "
                "reload_dataloaders_every_n_epochs=1, or pass stop_training=True to train in rounds; got "
                "reload_dataloaders_every_n_epochs=0"
            )
        if self._loaded is not None:
            self.sampler.load_state_dict(self._loaded)
            self._loaded = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric of the schedule; warn if the loader should have been made anew, and was not.

        Raises:
            InvalidInputError: there was a validation, and nothing has logged the metric that a `WhenStalled` watches.
        """
        late = self._metrics.begin(trainer.callback_metrics)
        self.sampler.check_metric(trainer.current_epoch - 1, late)
        before, self._dataset_before = self._dataset_before, None
        if before is not None and _reloads_every(trainer) == 1 and before == _dataset_of(trainer):
            warn_user(
                "frames were labelled, but the fit goes on with the same train dataset as before: make the loader in "
                "the `train_dataloader` hook, from `labels.labeled`, rather than pass one to `fit`"
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was measured before."""
        self._metrics.begin_validation(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what this validation measured, if it is one of the fit."""
        if self._fitting and not trainer.sanity_checking and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.sampler.on_evaluation(self._metrics.end_validation(trainer.callback_metrics))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose, if it is time; in a `fast_dev_run`, rehearse."""
        detector = self._detector_in(pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.sampler.rehearse(detector)
            return
        labeled = len(self.sampler.labels.labeled_ids)
        training_metrics = self._metrics.end(trainer.callback_metrics)
        chosen = self.sampler.on_epoch_end(
            detector, trainer.current_epoch, training_metrics=training_metrics, complete=False
        )
        if chosen is None:
            return
        self.chosen = chosen
        if self.stop_training:
            trainer.should_stop = True
        elif len(self.sampler.labels.labeled_ids) > labeled:
            self._dataset_before = _dataset_of(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the fit never measured what a `WhenStalled` watches."""
        self.sampler.on_training_end()

    def _detector_in(self, pl_module: LightningModule) -> nn.Module:
        return find_detector(pl_module, name=self.detector, adapter=self.sampler.options.adapter).model


class _EpochMetrics:
    """Tells what was measured when, from `Trainer.callback_metrics`, which keeps the last value of each name.

    A value that was measured anew is another tensor than before, even if it is equal. But while an epoch or a
    validation ends, each look at the metrics makes new tensors of the same values. So a name is taken for measured
    late only if it was not measured in time; and the sampler leaves out names that validations measured.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}  # at the start of the epoch
        self._before_validation: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}  # at its end, when the schedule was asked
        self._measured: dict[str, float] = {}  # in it
        self._late: dict[str, float] = {}

    def begin(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """An epoch begins. Returns what was measured in the one before, after its `end`."""
        now = dict(metrics)
        late = _changed(self._asked, now)
        self._late = {name: value for name, value in late.items() if name not in self._measured}
        self._before = now
        return self._late

    def begin_validation(self, metrics: Mapping[str, Any]) -> None:
        """A validation begins."""
        self._before_validation = dict(metrics)

    def end_validation(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """It ends. Returns what it measured."""
        return _changed(self._before_validation, metrics)

    def end(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """The epoch ends. Returns what was measured in it, validations included, and late in the one before."""
        self._asked = dict(metrics)
        self._measured = _changed(self._before, self._asked)
        return {**self._late, **self._measured}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in now.items() if before.get(name) is not value}


def _reloads_every(trainer: Trainer) -> int:
    """The Trainer's option of that name: 0 is never."""
    return int(trainer.reload_dataloaders_every_n_epochs)  # type: ignore[attr-defined]


def _dataset_of(trainer: Trainer) -> tuple[Any, int | None]:
    """The dataset of the train loader, and its length; Lightning's own kinds of loaders have none."""
    dataset = getattr(trainer.train_dataloader, "dataset", None)
    return dataset, len(dataset) if isinstance(dataset, Sized) else None
