"""`UltralyticsSampler`: a `SamplerCallback` in the training of an `ultralytics.YOLO`, which is trained in rounds."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from cval_torch.errors import InvalidInputError, MissingExtraError, warn_user
from cval_torch.hooks.finding import unwrap
from cval_torch.pipeline import SelectedFrames
from cval_torch.training.sampler import SamplerCallback

if find_spec("ultralytics") is None:  # nothing of it is imported here; but without it there is nothing to attach to
    raise MissingExtraError("ultralytics", needed_for="UltralyticsSampler")


class UltralyticsSampler:
    """Chooses frames at the end of training epochs, after validation, with the averaged weights that the host saves.

    The host makes its train loader once, from lists of files. So, unless told otherwise, training ends after a
    choice, and the next round is another `yolo.train` on the grown list. `examples/hosts/ultralytics_callback.py` has
    the loop.

    On several GPUs the host starts processes of its own and hands them a pickled copy of this object, so the labels
    grow in that copy alone: give the sampler a `save_to` file, and `load` it after `train`. Keep the file out
    of the host's `save_dir`, whose name changes from run to run. An API key is never pickled: with a `RestBackend`
    train on one GPU, or choose between two trainings.

    A `WhenStalled` counts the validations of the training. With `val=False` the host validates after the last epoch
    alone. Its `final_eval`, after the training, counts neither way.

    Args:
        sampler: what does the work. Epochs are counted anew in every `train`.
        stop_training: end the training after a choice. False: go on, on the frames that there were.

    Attributes:
        chosen: the last choice of this training; None before there is one.
    """

    def __init__(self, sampler: SamplerCallback, *, stop_training: bool = True) -> None:
        self.sampler, self.stop_training = sampler, stop_training
        sampler.distributed = False  # only rank 0 is sure to have the averaged weights
        self.chosen: SelectedFrames | None = None
        self._trained: int | None = None
        self._validated = False

    def attach(self, yolo: Any) -> UltralyticsSampler:
        """Add the callbacks to a `YOLO`, once; returns self.

        Raises:
            InvalidInputError: it takes no callbacks, or has a sampler already.
        """
        if not hasattr(yolo, "add_callback"):
            raise InvalidInputError(f"`yolo` must be an ultralytics.YOLO; got {type(yolo).__name__}")
        for added in yolo.callbacks["on_fit_epoch_end"]:
            if isinstance(getattr(added, "__self__", None), UltralyticsSampler):
                raise InvalidInputError("`yolo` has a sampler attached already: two would choose the same frames")
        yolo.add_callback("on_train_start", self.on_train_start)
        yolo.add_callback("on_train_epoch_end", self.on_train_epoch_end)
        yolo.add_callback("on_val_end", self.on_val_end)
        yolo.add_callback("on_fit_epoch_end", self.on_fit_epoch_end)
        yolo.add_callback("on_train_end", self.on_train_end)
        return self

    def on_train_start(self, trainer: Any) -> None:
        """Forget what another training left; warn if the metric of a `WhenStalled` will hardly be measured."""
        self.chosen, self._trained, self._validated = None, None, False
        metric = self.sampler.watched_metric
        if metric is not None and not trainer.args.val:
            warn_user(
                f"the schedule watches {metric!r}, but with val=False the host validates after the last epoch alone: "
                "train with val=True"
            )

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Remember that this epoch was trained: the host ends one more, after its last validation, that was not."""
        self._trained, self._validated = int(trainer.epoch), False

    def on_val_end(self, validator: Any) -> None:
        """Remember that the training validated: else `trainer.metrics` are those of an earlier epoch, or zeros."""
        self._validated = self._validated or validator.training

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Choose, if it is time."""
        trained, self._trained = self._trained, None
        if trained is None or trained != int(trainer.epoch):
            return
        ema = getattr(trainer, "ema", None)
        detector = unwrap(trainer.model) if ema is None else ema.ema
        measured = (trainer.metrics or {}) if self._validated else {}
        metrics = {name: float(value) for name, value in measured.items()}
        chosen = self.sampler.on_epoch_end(detector, trained, metrics)
        if chosen is not None:
            self.chosen = chosen
            trainer.stop = trainer.stop or self.stop_training

    def on_train_end(self, trainer: Any) -> None:
        """Warn if the training never measured what a `WhenStalled` watches."""
        self.sampler.on_training_end()
