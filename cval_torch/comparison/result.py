"""`Comparison`: what each strategy would have chosen, beside random choice, as a table, a file or a picture."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from cval_torch.comparison.measures import MEASURES, Measure, jaccard
from cval_torch.comparison.picture import draw_comparison
from cval_torch.errors import InvalidInputError
from cval_torch.pool.files import replacing

_ABOVE, _BELOW = "↑", "↓"

HEADLINE = "scarce_objects"
"""The measure that says most of what a choice is worth."""


@dataclass(frozen=True)
class MeasuredChoice:
    """The frames of one choice.

    Attributes:
        frame_ids: in rank order.
        values: by the name of the measure.
    """

    frame_ids: tuple[str, ...]
    values: Mapping[str, float]


@dataclass(frozen=True)
class CurvePoint:
    """One training.

    Attributes:
        frames: labelled so far.
        boxes: objects in them.
        metric: what `evaluate` said, higher = better.
    """

    frames: int
    boxes: int
    metric: float


@dataclass(frozen=True)
class Saving:
    """What a strategy spares, where its curve first reaches the metric that random choice ends with; negative = costs.

    Attributes:
        frames: fewer than random choice labelled; straight lines are drawn between trainings.
        boxes: the same in objects.
        frames_share: of the frames that random choice added to the start.
        boxes_share: of the objects that it added.
    """

    frames: float
    boxes: float
    frames_share: float
    boxes_share: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Choices of several strategies from the same labelled frames, beside random ones.

    Attributes:
        candidates: frames that were chosen from.
        start: frames that were labelled before.
        num_of_samples: frames to choose.
        strategies: the first choice of each strategy, by name.
        random: D random choices.
        measures: names of the measures that there are, in order; see `compare`.
        rare_classes: labels of the rarest quarter of classes.
        curves: by strategy, where it was trained: the start, then a point a round; else empty.
        random_curves: the same of the random choices that were trained, the first of `random`.
        notes: what a reader must know.
    """

    candidates: int
    start: int
    num_of_samples: int
    strategies: Mapping[str, MeasuredChoice]
    random: tuple[MeasuredChoice, ...]
    measures: tuple[str, ...]
    rare_classes: tuple[int, ...] = ()
    curves: Mapping[str, tuple[CurvePoint, ...]] = field(default_factory=dict)
    random_curves: tuple[tuple[CurvePoint, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        names = ", ".join(self.strategies)
        return (
            f"Comparison({names}: {self.num_of_samples} of {self.candidates} frames, {len(self.random)} random draws)"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The strategies."""
        return tuple(self.strategies)

    @property
    def columns(self) -> dict[str, Measure]:
        """The measures, by name: their titles, and which way is better."""
        return {name: MEASURES[name] for name in self.measures}

    @property
    def title(self) -> str:
        """What was compared, in a line."""
        said = f"{self.num_of_samples} of {self.candidates} frames, {len(self.random)} random draws"
        return said + (f"; {self.start} frames were labelled before" if self.start else "")

    def value(self, strategy: str, measure: str) -> float:
        """What the choice of a strategy measures."""
        return self._strategy(strategy).values[self._known(measure)]

    def random_range(self, measure: str) -> tuple[float, float, float]:
        """The mean, the least and the largest value of a measure over the random choices."""
        values = [draw.values[self._known(measure)] for draw in self.random]
        return fmean(values), min(values), max(values)

    def outside(self, strategy: str, measure: str) -> int:
        """1 where the value is above those of all random choices, -1 where it is below all, else 0."""
        value = self.value(strategy, measure)
        _, low, high = self.random_range(measure)
        return int(value > high) - int(value < low)

    def agreement(self) -> Tensor:
        """(S+1, S+1) float64 in [0, 1]: common frames over all frames of two choices, 1 = the same frames.

        Rows and columns are the strategies, then random: its mean over the draws, and, beside itself, over the pairs
        of different draws, which is what two choices share by chance.
        """
        chosen = [set(choice.frame_ids) for choice in self.strategies.values()]
        draws = [set(draw.frame_ids) for draw in self.random]
        matrix = torch.ones(len(chosen) + 1, len(chosen) + 1, dtype=torch.float64)
        for (i, one), (j, other) in itertools.combinations(enumerate(chosen), 2):
            matrix[i, j] = matrix[j, i] = jaccard(one, other)
        for i, one in enumerate(chosen):
            matrix[i, -1] = matrix[-1, i] = fmean(jaccard(one, draw) for draw in draws)
        matrix[-1, -1] = fmean(jaccard(one, other) for one, other in itertools.combinations(draws, 2))
        return matrix

    def saving(self, strategy: str) -> Saving | None:
        """What `strategy` spares at the metric that random choice ends with, the mean of its draws.

        None without training, where the strategy never reaches it, or where random choice itself did not gain.
        """
        self._strategy(strategy)
        if not self.curves:
            return None
        end = [curve[-1] for curve in self.random_curves]
        start = self.curves[strategy][0]
        target = fmean(point.metric for point in end)
        reached = cost_to_reach(self.curves[strategy], target)
        if target <= start.metric or reached is None:
            return None
        frames, boxes = end[0].frames - reached[0], fmean(point.boxes for point in end) - reached[1]
        added = fmean(point.boxes for point in end) - start.boxes
        return Saving(frames, boxes, frames / (end[0].frames - start.frames), boxes / added if added else 0.0)

    def verdict(self, strategy: str) -> str:
        """A sentence on the last training, no bolder than the random draws allow. Empty without training."""
        self._strategy(strategy)
        if not self.curves:
            return ""
        last = self.curves[strategy][-1]
        ends = [curve[-1].metric for curve in self.random_curves]
        beside = f"{last.metric:.3f} after {last.frames} frames, random {min(ends):.3f} to {max(ends):.3f}"
        if last.metric < min(ends):
            return f"{strategy}: worse than each of {len(ends)} random draws ({beside})."
        if last.metric <= max(ends):
            return f"{strategy}: no better than random ({beside})."
        said = f"{strategy}: better than each of {len(ends)} random draws ({beside})"
        saving = self.saving(strategy)
        if saving is None:
            return f"{said}; random choice gained nothing, so there is no saving to speak of."
        return (
            f"{said}. It comes to random's last mean with {_more_or_fewer(saving.frames, 'frames')} "
            f"({saving.frames_share:.0%} of those added) and {_more_or_fewer(saving.boxes, 'boxes')} "
            f"({saving.boxes_share:.0%})."
        )

    def headline(self, strategy: str) -> str:
        """What a choice is worth beside random ones, in a sentence, by `scarce_objects`.

        Among the measures it went best with what training gained: over 191 choices on composed pools the rank
        correlation was 0.80 (`examples/benchmarks/results/measures_of_gain.md`). It promises nothing for one choice,
        and more objects are more work.
        """
        value = self.value(strategy, HEADLINE)
        mean, low, high = self.random_range(HEADLINE)
        where = {1: "above", -1: "below", 0: "within"}[self.outside(strategy, HEADLINE)]
        times = f"{value / mean:.2f} times" if mean else "more than" if value else "as"
        work = self.value(strategy, "objects"), self.random_range("objects")[0]
        beside = f"{value:.2f}; {where} random's {low:.2f} to {high:.2f}"
        return (
            f"{strategy}: {times} random's mean of scarce objects ({beside}), with {work[0]:.0f} objects to annotate "
            f"in place of {work[1]:.0f}."
        )

    def table(self) -> str:
        """Everything as Markdown that is aligned as plain text too."""
        parts = [self.title]
        if HEADLINE in self.measures:
            parts.append("\n".join(f"- {_plain(self.headline(name))}" for name in self.strategies))
        parts.append(_aligned(self._measure_rows()))
        parts.append(self._legend())
        parts.append("The same frames (common over all, 1 = the same choice):")
        names = [*self.strategies, "random"]
        matrix = self.agreement().tolist()
        parts.append(
            _aligned(
                [["", *names], *([name, *(f"{v:.2f}" for v in row)] for name, row in zip(names, matrix, strict=True))]
            )
        )
        if self.curves:
            parts.append("Trained on what was chosen:")
            parts.append(_aligned(self._curve_rows()))
            parts.append("\n".join(f"- {_plain(self.verdict(name))}" for name in self.strategies))
            count = len(self.random_curves) + 1
            parts.append(
                f"By luck alone a choice no better than random is above all of {count - 1} draws 1 time in {count}."
            )
        parts += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(parts) + "\n"

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one line a value: strategy, draw, round, measure, value, and whether it is outside of random's range.

        Round 1 is the first choice; `labelled_frames`, `labelled_boxes` and `metric` are those of the curves, round 0
        their start. Names that a spreadsheet would take for a formula get an apostrophe in front.

        Raises:
            OSError: the disk is full or read-only; an older file then stays as it was.
        """
        lines: list[list[object]] = []
        for name, choice in self.strategies.items():
            lines += [[_cell(name), "", 1, m, choice.values[m], self.outside(name, m)] for m in self.measures]
        for draw, choice in enumerate(self.random):
            lines += [["random", draw, 1, m, choice.values[m], ""] for m in self.measures]
        curves = [(_cell(name), "", curve) for name, curve in self.curves.items()]
        curves += [("random", str(draw), curve) for draw, curve in enumerate(self.random_curves)]
        for name, which, curve in curves:
            for number, point in enumerate(curve):
                found = {"labelled_frames": point.frames, "labelled_boxes": point.boxes, "metric": point.metric}
                lines += [[name, which, number, measure, value, ""] for measure, value in found.items()]
        with replacing(path, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["strategy", "draw", "round", "measure", "value", "outside_random"])
            writer.writerows(lines)
        return Path(path)

    def plot(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Draw every measure beside random's range, who agrees with whom, and the learning curves if there are any.

        Args:
            path: the picture's file; its suffix says the format, such as `.png`.
            title: printed on top; None: what was compared.

        Returns:
            `path`.

        Raises:
            MissingExtraError: matplotlib is not installed; it is in the extra `report`.
            OSError: the file cannot be written.
        """
        return draw_comparison(self, path, title=title)

    def _known(self, measure: str) -> str:
        if measure not in self.measures:
            raise InvalidInputError(f"`measure` must be one of {', '.join(self.measures)}; got {measure!r}")
        return measure

    def _strategy(self, name: str) -> MeasuredChoice:
        if name not in self.strategies:
            raise InvalidInputError(f"`strategy` must be one of {', '.join(self.strategies)}; got {name!r}")
        return self.strategies[name]

    def _measure_rows(self) -> list[list[str]]:
        kinds = list(self.columns.values())
        spans = [self.random_range(name) for name in self.measures]
        rows = [["strategy", *(kind.title for kind in kinds)]]
        for name in self.strategies:
            cells = [
                f"{kind.written(self.strategies[name].values[measure])} "
                + {1: _ABOVE, -1: _BELOW, 0: " "}[self.outside(name, measure)]
                for measure, kind in zip(self.measures, kinds, strict=True)
            ]
            rows.append([name, *cells])
        means = [f"{kind.written(span[0])}  " for kind, span in zip(kinds, spans, strict=True)]
        rows.append(["random, mean", *means])
        ranges = [
            f"{kind.written(low)} to {kind.written(high)}  " for kind, (_, low, high) in zip(kinds, spans, strict=True)
        ]
        return [*rows, ["random, range", *ranges]]

    def _legend(self) -> str:
        asked = [name for name in self.measures if name != "frames"]  # whose number is no question of luck
        cells = len(self.strategies) * len(asked)
        luck = cells * 2 / (len(self.random) + 1)
        marks = sum(self.outside(name, measure) != 0 for name in self.strategies for measure in asked)
        rare = ", ".join(map(str, self.rare_classes))
        return (
            f"{_ABOVE} above and {_BELOW} below all {len(self.random)} random draws: {marks} of {cells} values; if "
            f"every choice were random, up to {luck:.1f} would be. Objects are the work of annotating, "
            "and the more there are, the more rare ones and misses come by themselves."
            + (f" Rare objects: classes {rare}." if rare and "rare_objects" in self.measures else "")
        )

    def _curve_rows(self) -> list[list[str]]:
        frames = [point.frames for point in self.random_curves[0]]
        rows = [["strategy", *(f"{count} frames" for count in frames), "boxes", "frames saved", "boxes saved"]]
        last = [curve[-1].metric for curve in self.random_curves]
        for name, curve in self.curves.items():
            saving = self.saving(name) if curve[-1].metric > max(last) else None
            saved = ["-", "-"] if saving is None else [f"{saving.frames:+.0f}", f"{saving.boxes:+.0f}"]
            rows.append([name, *(f"{point.metric:.3f}" for point in curve), str(curve[-1].boxes), *saved])
        columns = list(zip(*self.random_curves, strict=True))
        values = [[point.metric for point in column] for column in columns]
        boxes = [point.boxes for point in columns[-1]]
        rows.append(["random, mean", *(f"{fmean(each):.3f}" for each in values), f"{fmean(boxes):.1f}", "", ""])
        spans = [f"{min(each):.3f} to {max(each):.3f}" for each in values]
        return [*rows, ["random, range", *spans, f"{min(boxes)} to {max(boxes)}", "", ""]]


def cost_to_reach(curve: Sequence[CurvePoint], target: float) -> tuple[float, float] | None:
    """Frames and boxes where the curve first reaches `target`, straight lines between its points; None if it does not.

    >>> cost_to_reach([CurvePoint(10, 30, 0.2), CurvePoint(20, 70, 0.4)], 0.3)
    (15.0, 50.0)
    """
    if curve[0].metric >= target:
        return float(curve[0].frames), float(curve[0].boxes)
    for before, after in itertools.pairwise(curve):
        if after.metric >= target:
            way = (target - before.metric) / (after.metric - before.metric)
            return (
                before.frames + way * (after.frames - before.frames),
                before.boxes + way * (after.boxes - before.boxes),
            )
    return None


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    cells = [[_plain(cell) for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    lines = [
        "| "
        + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        + " |"
        for row in cells
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _plain(text: str) -> str:
    """Without what would break a table."""
    return "".join(letter if letter.isprintable() and letter != "|" else "?" for letter in text)


def _cell(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def _more_or_fewer(saved: float, what: str) -> str:
    return f"{saved:.0f} fewer {what}" if saved >= 0 else f"{-saved:.0f} more {what}"
