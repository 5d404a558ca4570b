"""Charts as geometry: where bars, ticks and lines lie in a drawing. A template turns them into SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WIDTH, HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 12, 40
_BINS = 30


@dataclass(frozen=True)
class Bar:
    """A rectangle: its place, its size, which kind of frames it counts, and what it says."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    said: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve: a path of SVG, its number among the curves (-1: random choice), its dots, and its name."""

    path: str
    number: int
    dots: tuple[tuple[float, float, str], ...]
    name: str


@dataclass(frozen=True)
class Chart:
    """A drawing of `WIDTH` by `height`.

    Attributes:
        title: above it.
        summary: what it shows, in a sentence, for who cannot see it.
        x_label: below the axis.
        y_label: above the other one.
        x_ticks: marks on the axis.
        y_ticks: marks on the other one.
        bars: of a histogram.
        lines: of a chart of curves.
        band: a path of SVG, the range of random choices; empty: none.
        cut: where a dashed line stands; None: nowhere.
        height: of the drawing.
    """

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    band: str = ""
    cut: float | None = None
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    base: int = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class ClassRow:
    """One class in a chart of classes: its name and, of each kind of frames, the share of objects and their number."""

    name: str
    shares: tuple[tuple[str, float, float], ...]

    def width(self, share: float, most: float) -> float:
        """Of a bar in a drawing 100 wide, where `most` is the greatest share."""
        return round(100 * share / most, 2) if most > 0 else 0.0


def nice_ticks(low: float, high: float, *, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, in at most `most` steps.

    >>> nice_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> nice_ticks(0, 7, whole=True)
    [0.0, 2.0, 4.0, 6.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9) or factor == 10)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, last + 1)]


def score_histogram(scores: Tensor, chosen: Tensor, *, cut: float | None, name: str) -> Chart:
    """How many frames have which score, and which part of them was chosen.

    Args:
        scores: (F,) of all frames; NaN is left out.
        chosen: (F,) bool.
        cut: the score of the last chosen frame; None: there is no such line.
        name: of the scores.
    """
    known = ~scores.isnan()
    values, is_chosen = scores[known].double(), chosen[known]
    low, high = (float(end) for end in torch.aminmax(values))
    if low == high:
        low, high = low - 0.5, high + 0.5
    places = ((values - low) / (high - low) * _BINS).long().clamp(0, _BINS - 1)
    everything = torch.bincount(places, minlength=_BINS).tolist()
    taken = torch.bincount(places[is_chosen], minlength=_BINS).tolist()
    axes = _Axes(low, high, 0.0, float(max(everything)))
    bars = []
    for place, (count, part) in enumerate(zip(everything, taken, strict=True)):
        begin, end = (low + (high - low) * edge / _BINS for edge in (place, place + 1))
        said = f"{begin:.3f} to {end:.3f}: {count:,} frames, {part:,} chosen"
        if count > part:
            bars.append(axes.bar((begin, end), (part, count), "pool", said))
        if part:
            bars.append(axes.bar((begin, end), (0, part), "chosen", said))
    return Chart(
        "Scores",
        f"{len(values):,} frames by their {name}, {int(is_chosen.sum()):,} of them chosen.",
        name,
        "frames",
        axes.x_ticks(),
        axes.y_ticks(whole=True),
        tuple(bars),
        cut=None if cut is None or math.isnan(cut) else round(axes.x(cut), 1),
    )


def boxes_histogram(costs: Mapping[str, Tensor]) -> Chart:
    """Which share of each kind of frames has how many boxes.

    Args:
        costs: by kind, (n,) the boxes to be expected in each frame, n at least 1.
    """
    longest = max(float(values.max()) for values in costs.values())
    step = max(1, math.ceil((longest + 1) / 16))
    bins = max(1, math.floor(longest / step + 0.5) + 1)
    shares = {
        kind: (torch.bincount((values / step).round().long(), minlength=bins).double() / len(values)).tolist()
        for kind, values in costs.items()
    }
    axes = _Axes(-0.5 * step, (bins - 0.5) * step, 0.0, max(max(each) for each in shares.values()))
    width = step * 0.86 / len(shares)
    bars = []
    for number, (kind, each) in enumerate(shares.items()):
        for place, share in enumerate(each):
            if share > 0:
                begin = place * step - 0.43 * step + number * width
                about = f"{place * step}" if step == 1 else f"{place * step - step // 2} to {place * step + step // 2}"
                said = f"about {about} boxes: {share:.1%} of the {WORDS[kind]} frames"
                bars.append(axes.bar((begin, begin + width), (0, share), kind, said))
    means = ", ".join(f"{WORDS[kind]} {float(values.mean()):.2f}" for kind, values in costs.items())
    ticks = [Tick(round(axes.x(value), 1), f"{value:g}") for value in nice_ticks(0, (bins - 1) * step, whole=True)]
    return Chart(
        "Boxes a frame",
        f"On average: {means}.",
        "boxes to be expected in a frame",
        "share of frames",
        tuple(ticks),
        tuple(Tick(tick.at, f"{float(tick.text):.0%}") for tick in axes.y_ticks()),
        tuple(bars),
    )


WORDS = {"pool": "pool", "annotated": "annotated", "chosen": "chosen"}
"""By kind of frames, what they are called."""


def curve_chart(
    title: str,
    x_label: str,
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    random: Sequence[Sequence[tuple[float, float]]],
) -> Chart:
    """Learning curves beside the range of random choices.

    Args:
        title: above it.
        x_label: what is spent.
        curves: of each strategy its name and its points, x rising.
        random: the curves of random choices, of as many points each.
    """
    every = [point for _, curve in curves for point in curve] + [point for curve in random for point in curve]
    low, high = min(y for _, y in every), max(y for _, y in every)
    room = (high - low) * 0.06 or 0.5
    axes = _Axes(min(x for x, _ in every), max(x for x, _ in every), low - room, high + room)
    columns = list(zip(*random, strict=True))
    spent = [sum(x for x, _ in column) / len(column) for column in columns]
    lows, highs = ([end(y for _, y in column) for column in columns] for end in (min, max))
    means = [sum(y for _, y in column) / len(column) for column in columns]
    outline = [*zip(spent, highs, strict=True), *reversed(list(zip(spent, lows, strict=True)))]
    lines = [_line(axes, -1, "random, mean", list(zip(spent, means, strict=True)))]
    lines += [_line(axes, number, name, list(curve)) for number, (name, curve) in enumerate(curves)]
    return Chart(
        title,
        f"The metric over {x_label}, of {len(curves)} strategies and {len(random)} random choices.",
        x_label,
        "metric",
        axes.x_ticks(),
        axes.y_ticks(),
        lines=tuple(lines),
        band=axes.path(outline) + "Z",
    )


def _line(axes: _Axes, number: int, name: str, points: list[tuple[float, float]]) -> Line:
    dots = tuple((round(axes.x(x), 1), round(axes.y(y), 1), f"{name}: {y:.3f} at {x:g}") for x, y in points)
    return Line(axes.path(points), number, dots, name)


class _Axes:
    """From numbers to places in the drawing."""

    def __init__(self, left: float, right: float, low: float, high: float) -> None:
        self.left, self.right = (left, right) if right > left else (left - 0.5, left + 0.5)
        self.low, self.high = low, high if high > low else low + 1.0

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - _TOP - _BOTTOM)

    def bar(self, across: tuple[float, float], up: tuple[float, float], kind: str, said: str) -> Bar:
        (begin, end), (low, high) = across, up
        x, top, base = self.x(begin), self.y(high), self.y(low)
        width = max(self.x(end) - x - 0.8, 0.8)
        return Bar(round(x + 0.4, 2), round(top, 2), round(width, 2), round(max(base - top, 0.8), 2), kind, said)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)

    def x_ticks(self) -> tuple[Tick, ...]:
        return tuple(Tick(round(self.x(value), 1), f"{value:g}") for value in nice_ticks(self.left, self.right))

    def y_ticks(self, *, whole: bool = False) -> tuple[Tick, ...]:
        values = nice_ticks(self.low, self.high, most=4, whole=whole)
        return tuple(Tick(round(self.y(value), 1), f"{value:g}") for value in values)
