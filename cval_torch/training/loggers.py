"""What a round of choosing is logged as, and to what: the user's own TensorBoard, wandb, mlflow or Lightning logger."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Protocol

from torch import Tensor

from cval_torch.errors import InvalidInputError, warn_user
from cval_torch.extraction.random_state import random_state_kept
from cval_torch.pipeline import SelectedFrames
from cval_torch.report.gallery import contact_sheet
from cval_torch.selection.class_weights import class_counts
from cval_torch.training.labels import LabelPool
from cval_torch.training.learning_curve import GainForecast
from cval_torch.training.logger_adapters import (
    Cell,
    CsvRounds,
    LazyRounds,
    MlflowRounds,
    TensorBoardRounds,
    WandbRounds,
)

MAX_DRAWN = 24
"""Frames in the picture of a round."""

_KNOWN = (
    "a SummaryWriter of TensorBoard, the run that `wandb.init` returned, the run that `mlflow.start_run` returned, "
    "(MlflowClient, run id), a TensorBoardLogger, CSVLogger, WandbLogger or MLFlowLogger of Lightning, or an object "
    "with the methods of `cval_torch.training.RoundLogger`"
)
_OWN = ("scalars", "histogram", "image", "table", "file")
_WRITER = ("add_scalar", "add_histogram", "add_image", "add_text")
_WANDB = ("log", "define_metric", "log_artifact", "finish")
_MLFLOW = ("log_metric", "log_dict", "log_image", "log_artifact")
_LIGHTNING = ("TensorBoardLogger", "CSVLogger", "WandbLogger", "MLFlowLogger")


class RoundLogger(Protocol):
    """Takes what is known of a round. Implement it to log to anything else.

    `step` is the number of the round, from 1. Names begin with `rounds/`.
    """

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Log numbers by name."""

    def histogram(self, name: str, values: Tensor, *, step: int) -> None:
        """Log the distribution of (n,) finite values, n > 0."""

    def image(self, name: str, path: Path, *, step: int) -> None:
        """Log a PNG file, which is deleted after the call."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, step: int) -> None:
        """Log rows of str, int or float."""

    def file(self, name: str, path: Path, *, step: int) -> None:
        """Keep a file, which is deleted after the call."""


def as_round_logger(logger: Any) -> RoundLogger:
    """What logs rounds to an object that the user has. No package is imported and no run is started for it.

    Objects are told by their documented methods. A logger of Lightning is asked for its `experiment` when the first
    round is logged, which starts the run that the user configured, if it has not begun.

    Args:
        logger: a `SummaryWriter` (of torch or tensorboardX); a wandb run; an mlflow run, or a pair of an
            `MlflowClient` and a run id; Lightning's `TensorBoardLogger`, `CSVLogger`, `WandbLogger` or
            `MLFlowLogger`; or a `RoundLogger`, which is returned as it is.

    Raises:
        InvalidInputError: it is none of these.
    """
    if isinstance(logger, ModuleType):
        raise InvalidInputError(f"a logger must be {_KNOWN}; got the module `{logger.__name__}`")
    if _has(logger, _OWN):
        found: RoundLogger = logger
        return found
    for base in type(logger).__mro__:
        if base.__name__ in _LIGHTNING and _has(logger, ("log_metrics", "experiment")):
            return CsvRounds(logger) if base.__name__ == "CSVLogger" else LazyRounds(_opener(logger, base.__name__))
    if _has(logger, _WRITER):
        return TensorBoardRounds(logger)
    if _has(logger, _WANDB):
        return WandbRounds(logger)
    if _has(logger, ("info", "data")) and isinstance(getattr(logger.info, "run_id", None), str):
        return MlflowRounds.of_run(logger)
    if isinstance(logger, tuple) and len(logger) == 2 and _has(logger[0], _MLFLOW) and isinstance(logger[1], str):
        return MlflowRounds(*logger)
    raise InvalidInputError(f"a logger must be {_KNOWN}; got {logger!r:.200} of type {type(logger).__name__}")


def _opener(logger: Any, kind: str) -> Callable[[], RoundLogger]:
    """Opens the experiment of a Lightning logger, when it is needed."""
    if kind == "TensorBoardLogger":
        return lambda: TensorBoardRounds(logger.experiment)
    if kind == "WandbLogger":
        return lambda: WandbRounds(logger.experiment)
    return lambda: MlflowRounds(logger.experiment, logger.run_id)


def _has(thing: Any, names: Sequence[str]) -> bool:
    """Whether it has all of these attributes. No property is run for it."""
    missing = object()
    return all(inspect.getattr_static(thing, name, missing) is not missing for name in names)


class RoundLog:
    """Logs each choice to every logger.

    Args:
        loggers: see `as_round_logger`.

    Raises:
        InvalidInputError: it is no list or tuple, or a logger is of no known kind.
    """

    def __init__(self, loggers: Sequence[Any]) -> None:
        if not isinstance(loggers, (list, tuple)):
            raise InvalidInputError(
                f"`loggers` must be a list of them; got {type(loggers).__name__}: pass `loggers=[...]`"
            )
        self._loggers = [(type(logger).__name__, as_round_logger(logger)) for logger in loggers]

    def log(
        self,
        chosen: SelectedFrames,
        labels: LabelPool,
        *,
        number: int,
        epoch: int | None,
        forecast: GainForecast | None = None,
    ) -> None:
        """Log one choice, before its frames are labelled. Whatever fails gives a warning, one a logger.

        Args:
            chosen: the frames.
            labels: as they were when the frames were chosen.
            number: of the round, from 1.
            epoch: after which it was, if it was in a training loop.
            forecast: what the frames are expected to gain, if that is known.
        """
        if not self._loggers:
            return
        with random_state_kept():
            try:
                with TemporaryDirectory() as folder:
                    values = _scalars(chosen, labels, epoch) | _expected(forecast)
                    entries = list(_entries(chosen, values, Path(folder), number))
                    for name, logger in self._loggers:
                        _log_all(entries, logger, name, number)
            except OSError as error:  # there is no room for temporary files
                warn_user(f"round {number} was not logged: {type(error).__name__}: {error}")


Entry = Callable[[RoundLogger], None]


def _log_all(entries: Sequence[Entry], logger: RoundLogger, name: str, number: int) -> None:
    try:
        for entry in entries:
            entry(logger)
    except Exception as error:  # whatever it is, it must not end a training
        warn_user(
            f"{name} did not log all of round {number}: {type(error).__name__}: {error}. The choice and the training "
            "are not affected"
        )


def _entries(chosen: SelectedFrames, values: Mapping[str, float], folder: Path, number: int) -> Iterator[Entry]:
    """What there is to log, one call a thing."""
    yield lambda logger: logger.scalars(values, step=number)
    scores = chosen.scores[chosen.scores.isfinite()]
    if len(scores):
        yield lambda logger: logger.histogram("rounds/scores", scores, step=number)
    columns = ("rank", "frame_id", "score", "estimated_boxes")
    columns_of_rows = (chosen.frame_ids, chosen.scores.tolist(), chosen.estimated_boxes.tolist())
    rows = [(rank, *row) for rank, row in enumerate(zip(*columns_of_rows, strict=True), start=1)]
    yield lambda logger: logger.table("rounds/frames", columns, rows, step=number)
    written = folder / f"round-{number:04d}.csv"
    with written.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    yield lambda logger: logger.file("rounds", written, step=number)
    picture = _picture(chosen, folder / f"round-{number:04d}.png", number)
    if picture is not None:
        drawn = picture
        yield lambda logger: logger.image("rounds/chosen", drawn, step=number)


def _expected(forecast: GainForecast | None) -> dict[str, float]:
    """The gain that is forecast, and its interval."""
    if forecast is None:
        return {}
    gain = f"rounds/forecast/{forecast.metric}"
    return {gain: forecast.gain, f"{gain}/low": forecast.low, f"{gain}/high": forecast.high}


def _scalars(chosen: SelectedFrames, labels: LabelPool, epoch: int | None) -> dict[str, float]:
    labeled = len(labels.labeled_ids)
    values: dict[str, float] = {
        "rounds/chosen_frames": len(chosen),
        "rounds/labeled_frames": labeled,
        "rounds/frames_left": len(labels) - labeled - len(chosen),
        "rounds/estimated_boxes": chosen.num_of_boxes,
        "rounds/estimated_minutes": chosen.num_of_minutes,
    }
    if epoch is not None:
        values["rounds/epoch"] = epoch
    if chosen.predictions.labels is not None:
        counts = class_counts(chosen.predictions)
        values |= {f"rounds/classes/{label}": count for label, count in sorted(counts.items())}
    return {name: float(value) for name, value in values.items()}


def _picture(chosen: SelectedFrames, path: Path, number: int) -> Path | None:
    """The contact sheet of the first frames; None, with a warning, where they cannot be drawn."""
    if chosen.predictions.boxes is None or not len(chosen):
        return None
    try:
        return contact_sheet(chosen, path, title=f"Round {number}", max_frames=MAX_DRAWN)
    except Exception as error:  # of the user's dataset, too
        warn_user(f"the frames of round {number} could not be drawn for the loggers: {type(error).__name__}: {error}")
        return None
