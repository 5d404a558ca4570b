"""Rounds in TensorBoard, wandb, mlflow and Lightning's CSV files: one adapter a kind of logger.

None of these packages is imported here: what is needed of them comes with the user's own object.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

Cell = str | int | float

ROUND = "rounds/round"
"""The number of the round, where a logger's own step is something else."""


class TensorBoardRounds:
    """Scalars, a histogram, a picture, and the table as text; TensorBoard takes no files.

    Args:
        writer: a `SummaryWriter`.
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """One scalar each."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, global_step=step)

    def histogram(self, name: str, values: Tensor, *, step: int) -> None:
        """A histogram."""
        self.writer.add_histogram(name, values, global_step=step)

    def image(self, name: str, path: Path, *, step: int) -> None:
        """An image."""
        with Image.open(path) as picture:
            self.writer.add_image(name, np.array(picture.convert("RGB")), global_step=step, dataformats="HWC")

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, step: int) -> None:
        """A Markdown table as text."""
        lines = [columns, ["---"] * len(columns), *([_escaped(cell) for cell in row] for row in rows)]
        self.writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in lines), global_step=step)

    def file(self, name: str, path: Path, *, step: int) -> None:
        """Nothing: the table has it."""


class WandbRounds:
    """Everything as wandb has it, over the axis `rounds/round`; the run's own step is left alone.

    A round joins the row of history that the training is about to write, so it neither takes a step of the run nor
    makes one stale. It closes that row itself only where the training has written nothing since the round before.

    Args:
        run: what `wandb.init` returned.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self._package: Any = sys.modules[type(run).__module__.partition(".")[0]]
        self._round: int | None = None
        self._row = -1

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Metrics."""
        self._log(values, step)

    def histogram(self, name: str, values: Tensor, *, step: int) -> None:
        """A `wandb.Histogram`."""
        self._log({name: self._package.Histogram(values.tolist())}, step)

    def image(self, name: str, path: Path, *, step: int) -> None:
        """A `wandb.Image`."""
        with Image.open(path) as picture:
            self._log({name: self._package.Image(picture.convert("RGB"))}, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, step: int) -> None:
        """A `wandb.Table`."""
        self._log({name: self._package.Table(columns=list(columns), data=[list(row) for row in rows])}, step)

    def file(self, name: str, path: Path, *, step: int) -> None:
        """A version of the artifact `<run id>-rounds`."""
        self.run.log_artifact(str(path), name=f"{self.run.id}-{name}", type="rounds")

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        if self._round is None:
            self.run.define_metric(ROUND, hidden=True)
            self.run.define_metric("rounds/*", step_metric=ROUND)
        elif step != self._round and self.run.step == self._row:
            self.run.log({}, commit=True)
        self._round, self._row = step, self.run.step
        self.run.log({ROUND: step, **values}, commit=False)


class MlflowRounds:
    """Metrics, an image, and the table and the file as artifacts; of a histogram the least, mean and largest value.

    Args:
        client: an `MlflowClient`.
        run_id: of the run to log to.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    @classmethod
    def of_run(cls, run: Any) -> MlflowRounds:
        """Of what `mlflow.start_run` returned, at the tracking server that mlflow is set to."""
        package: Any = sys.modules[type(run).__module__.partition(".")[0]]
        return cls(package.MlflowClient(), run.info.run_id)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Metrics."""
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, value, step=step)

    def histogram(self, name: str, values: Tensor, *, step: int) -> None:
        """Three metrics."""
        self.scalars(_three_values(name, values), step=step)

    def image(self, name: str, path: Path, *, step: int) -> None:
        """An image with a step, which mlflow shows as a series."""
        with Image.open(path) as picture:
            self.client.log_image(self.run_id, picture.convert("RGB"), key=name, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, step: int) -> None:
        """A JSON file of `columns` and `data`."""
        content = {"columns": list(columns), "data": [[_plain(cell) for cell in row] for row in rows]}
        self.client.log_dict(self.run_id, content, f"{name}-{step:04d}.json")

    def file(self, name: str, path: Path, *, step: int) -> None:
        """An artifact."""
        self.client.log_artifact(self.run_id, str(path), artifact_path=name)


class CsvRounds:
    """Rows of Lightning's `metrics.csv`, and pictures and files in the folder `rounds` beside it.

    The column `step` of these rows is the number of the round. Of a histogram there are the least, mean and largest
    value.

    Args:
        logger: a `CSVLogger` of Lightning.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Columns."""
        self.logger.log_metrics(dict(values), step=step)
        self.logger.save()

    def histogram(self, name: str, values: Tensor, *, step: int) -> None:
        """Three columns."""
        self.scalars(_three_values(name, values), step=step)

    def image(self, name: str, path: Path, *, step: int) -> None:
        """A file."""
        self._keep(path)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, step: int) -> None:
        """Nothing: the file has it."""

    def file(self, name: str, path: Path, *, step: int) -> None:
        """A file."""
        self._keep(path)

    def _keep(self, path: Path) -> None:
        folder = Path(self.logger.log_dir) / "rounds"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)


class LazyRounds:
    """A logger that is opened when it is first needed.

    Args:
        open_it: returns the logger.
    """

    def __init__(self, open_it: Callable[[], Any]) -> None:
        self._open_it = open_it
        self._opened: Any = None

    @property
    def opened(self) -> Any:
        """The logger."""
        if self._opened is None:
            self._opened = self._open_it()
        return self._opened

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """As the logger does."""
        self.opened.scalars(values, step=step)

    def histogram(self, name: str, values: Tensor, *, step: int) -> None:
        """As the logger does."""
        self.opened.histogram(name, values, step=step)

    def image(self, name: str, path: Path, *, step: int) -> None:
        """As the logger does."""
        self.opened.image(name, path, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, step: int) -> None:
        """As the logger does."""
        self.opened.table(name, columns, rows, step=step)

    def file(self, name: str, path: Path, *, step: int) -> None:
        """As the logger does."""
        self.opened.file(name, path, step=step)


def _three_values(name: str, values: Tensor) -> dict[str, float]:
    return {
        f"{name}/min": float(values.min()),
        f"{name}/mean": float(values.mean()),
        f"{name}/max": float(values.max()),
    }


def _escaped(cell: Cell) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell).replace("|", r"\|")


def _plain(cell: Cell) -> Cell | None:
    """The cell as JSON has it: NaN is null."""
    return None if isinstance(cell, float) and cell != cell else cell  # noqa: PLR0124
