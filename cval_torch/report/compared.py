"""What a comparison with random choice shows on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cval_torch.report.charts import Chart, curve_chart
from cval_torch.report.wording import visible


class Point(Protocol):
    """One training: frames and boxes that were labelled, and what it came to."""

    @property
    def frames(self) -> int:
        """Labelled so far."""

    @property
    def boxes(self) -> int:
        """Objects in them."""

    @property
    def metric(self) -> float:
        """Higher = better."""


class Measured(Protocol):
    """One measure."""

    @property
    def title(self) -> str:
        """What it is called."""

    @property
    def better(self) -> int:
        """1 where more is better, -1 where less is, 0 where it is neither."""

    def written(self, value: float) -> str:
        """A value as it reads."""


class Compared(Protocol):
    """What is shown; the result of `compare` is one."""

    @property
    def names(self) -> Sequence[str]:
        """The strategies."""

    @property
    def columns(self) -> Mapping[str, Measured]:
        """The measures, by name."""

    @property
    def title(self) -> str:
        """What was compared, in a line."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know."""

    @property
    def curves(self) -> Mapping[str, Sequence[Point]]:
        """By strategy, where it was trained."""

    @property
    def random_curves(self) -> Sequence[Sequence[Point]]:
        """Of random choices."""

    def value(self, strategy: str, measure: str) -> float:
        """What the strategy's choice measures."""

    def random_range(self, measure: str) -> tuple[float, float, float]:
        """Mean, least and largest value of the random choices."""

    def outside(self, strategy: str, measure: str) -> int:
        """1 above all random choices, -1 below all, else 0."""

    def verdict(self, strategy: str) -> str:
        """A sentence on the last training; empty without training."""

    def agreement(self) -> Tensor:
        """(S+1, S+1) in [0, 1], random last."""


@dataclass(frozen=True)
class Cell:
    """A value of the table: what it reads, `↑` or `↓` outside of random's range, and whether that is good."""

    text: str
    mark: str = ""
    tone: str = ""


@dataclass(frozen=True)
class ComparedView:
    """A comparison, ready to be shown: its tables, sentences and charts."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    verdicts: tuple[str, ...]
    notes: tuple[str, ...]
    agreement_head: tuple[str, ...]
    agreement: tuple[tuple[str, tuple[str, ...]], ...]
    charts: tuple[Chart, ...]
    lines: tuple[str, ...]


def compared_view(compared: Compared) -> ComparedView:
    """Make tables, sentences and charts of a comparison."""
    names, columns = list(compared.names), compared.columns
    rows = []
    for name in names:
        cells = []
        for measure, column in columns.items():
            side = compared.outside(name, measure)
            tone = {1: "good", -1: "bad", 0: ""}[side * column.better]
            cells.append(Cell(column.written(compared.value(name, measure)), {1: "↑", -1: "↓", 0: ""}[side], tone))
        rows.append((visible(name), tuple(cells)))
    spans = {measure: compared.random_range(measure) for measure in columns}
    rows.append(("random, mean", tuple(Cell(columns[each].written(span[0])) for each, span in spans.items())))
    ranges = (
        f"{columns[each].written(low)} to {columns[each].written(high)}" for each, (_, low, high) in spans.items()
    )
    rows.append(("random, range", tuple(Cell(text) for text in ranges)))
    heads = (*(visible(name) for name in names), "random")
    matrix = compared.agreement().tolist()
    return ComparedView(
        visible(compared.title),
        tuple(column.title for column in columns.values()),
        tuple(rows),
        tuple(visible(said) for name in names if (said := compared.verdict(name))),
        tuple(visible(note) for note in compared.notes),
        heads,
        tuple((head, tuple(f"{value:.2f}" for value in row)) for head, row in zip(heads, matrix, strict=True)),
        _charts(compared),
        tuple(visible(name) for name in compared.curves),
    )


def _charts(compared: Compared) -> tuple[Chart, ...]:
    if not compared.curves:
        return ()

    def spent(curve: Sequence[Point], what: str) -> list[tuple[float, float]]:
        return [(float(point.frames if what == "frames" else point.boxes), point.metric) for point in curve]

    return tuple(
        curve_chart(
            f"Metric over {what} labelled",
            f"{what} labelled",
            [(visible(name), spent(curve, what)) for name, curve in compared.curves.items()],
            [spent(curve, what) for curve in compared.random_curves],
        )
        for what in ("frames", "boxes")
    )
