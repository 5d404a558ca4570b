"""A comparison of strategies as one picture: measures beside random's range, who agrees with whom, learning curves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from cval_torch.errors import MissingExtraError
from cval_torch.report.compared import Compared, Measured

_BETTER, _WORSE, _OTHER, _SAME = "#1b6ca8", "#d1701b", "#4a4a55", "#b9bcc6"
_BAND, _INK, _FAINT = "#e4e5ea", "#1a1a1f", "#6b6b75"
_LINES = ("#1b6ca8", "#d1701b", "#2e8b57", "#8e44ad", "#c0392b", "#0f9aa8", "#7f6a00", "#d6589f")
_COLUMNS = 4
_LONGEST_NAME = 32


class Column(Measured, Protocol):
    """One measure."""

    @property
    def unit(self) -> str:
        """`count`, where values are whole numbers, or another."""


class Drawn(Compared, Protocol):
    """What is drawn; `Comparison` is one."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """The measures, by name."""


def draw_comparison(compared: Drawn, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
    """Draw it; see `Comparison.plot`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # an extra, and slow to import
    except ImportError as error:
        raise MissingExtraError("report", needed_for="`Comparison.plot`") from error
    drawn = {name: column for name, column in compared.columns.items() if name != "frames"}
    rows = -(-len(drawn) // _COLUMNS)
    count = len(compared.names)
    above, below = rows * (1.0 + 0.3 * count), max(3.6, 1.6 + 0.34 * count)
    figure: Any = Figure(figsize=(14, above + below + 0.9), layout="constrained", facecolor="white")
    figure.suptitle(_plain(title or compared.title), fontsize=13, color=_INK, x=0.01, ha="left")
    upper, lower = figure.subfigures(2, 1, height_ratios=(above, below), hspace=0.04)
    figure.get_layout_engine().set(wspace=0.06)
    grid = upper.subplots(rows, _COLUMNS, squeeze=False, sharey=True)
    for number, axes in enumerate(grid.flat):
        if number < len(drawn):
            _draw_measure(axes, compared, list(drawn)[number])
        else:
            axes.set_axis_off()
            if number == len(drawn):
                _draw_legend(axes)
    full = len(drawn) == rows * _COLUMNS
    upper.supxlabel(_BANDS + _COUNTS if full else _COUNTS, fontsize=8, color=_FAINT, x=0.01, ha="left")
    if compared.curves:
        left, middle, right = lower.subplots(1, 3, width_ratios=(1.15, 1, 1))
        _draw_curves(middle, compared, "frames")
        _draw_curves(right, compared, "boxes")
        handles = middle.get_legend_handles_labels()
        lower.legend(*handles, loc="outside lower right", ncols=3, fontsize=8, frameon=False, labelcolor=_INK)
    else:
        left, empty = lower.subplots(1, 2, width_ratios=(1.6, 1))
        empty.set_axis_off()
    _draw_agreement(left, compared)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    return target


_BANDS = "Bars begin at random's mean; grey band: all random draws; a bar is coloured where it ends outside of it. "
_COUNTS = "Where more objects are chosen, which is more work, more rare ones and misses come by themselves."


def _draw_measure(axes: Any, compared: Drawn, measure: str) -> None:
    column = compared.columns[measure]
    mean, low, high = compared.random_range(measure)
    axes.axvspan(low, high, color=_BAND, linewidth=0, zorder=0)
    axes.axvline(mean, color=_INK, linewidth=1, zorder=3)
    values = [compared.value(name, measure) for name in compared.names]
    span = max(high, *values) - min(low, *values) or 1.0
    for place, (name, value) in enumerate(zip(compared.names, values, strict=True)):
        side = compared.outside(name, measure)
        colour = _SAME if side == 0 else {1: _BETTER, 0: _OTHER, -1: _WORSE}[side * column.better]
        axes.barh(place, value - mean, left=mean, height=0.62, color=colour, zorder=2)
        right = value >= mean
        axes.annotate(
            column.written(value),
            (value, place),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            color=_FAINT if side == 0 else _INK,
        )
    axes.set_xlim(min(low, *values) - 0.2 * span, max(high, *values) + 0.2 * span)
    hint = {1: "  (more is better)", -1: "  (less is better)", 0: ""}[column.better]
    axes.set_title(column.title + hint, fontsize=9, color=_INK, loc="left")
    axes.set_yticks(range(len(values)), [_shortened(name) for name in compared.names], fontsize=9)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.xaxis.set_major_locator(_few_ticks(whole=column.unit == "count"))
    axes.xaxis.set_major_formatter(lambda value, _: column.written(value))
    axes.tick_params(length=0, labelsize=8, colors=_FAINT)
    axes.tick_params(axis="y", labelsize=9, colors=_INK)
    for side_name in ("top", "right", "left", "bottom"):
        axes.spines[side_name].set_visible(False)


def _few_ticks(*, whole: bool) -> Any:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    return MaxNLocator(nbins=4, min_n_ticks=2, prune="both", integer=whole)


def _draw_legend(axes: Any) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415

    handles = [
        Patch(color=_BETTER, label="better than every random draw"),
        Patch(color=_WORSE, label="worse than every random draw"),
        Patch(color=_OTHER, label="outside them, neither good nor bad"),
        Patch(color=_SAME, label="within the random draws: no difference"),
        Patch(color=_BAND, label="all random draws; line: their mean"),
    ]
    axes.legend(handles=handles, loc="center left", frameon=False, fontsize=9, labelcolor=_INK)


def _draw_agreement(axes: Any, compared: Drawn) -> None:
    matrix = compared.agreement().numpy()
    names = [_shortened(name) for name in (*compared.names, "random")]
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in [((r, c), matrix[r, c]) for r in range(len(names)) for c in range(len(names))]:
        colour = "white" if value > 0.55 else _INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.tick_params(length=0, colors=_INK)
    axes.set_title("the same frames: common over all", fontsize=9, color=_INK, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_curves(axes: Any, compared: Drawn, cost: str) -> None:
    columns = list(zip(*compared.random_curves, strict=True))
    spent = [fmean(getattr(point, cost) for point in column) for column in columns]
    metrics = [[point.metric for point in column] for column in columns]
    draws = len(compared.random_curves)
    axes.fill_between(spent, [min(m) for m in metrics], [max(m) for m in metrics], color=_BAND, linewidth=0)
    axes.plot(spent, [fmean(m) for m in metrics], "--", color=_INK, label=f"random: mean, band of {draws} draws")
    for number, (name, curve) in enumerate(compared.curves.items()):
        x, y = [getattr(point, cost) for point in curve], [point.metric for point in curve]
        axes.plot(x, y, "o-", color=_LINES[number % len(_LINES)], markersize=4, label=_shortened(name))
    axes.set_title("metric over frames labelled" if cost == "frames" else "metric over objects labelled", fontsize=9)
    axes.title.set_ha("left")
    axes.title.set_x(0)
    axes.grid(color=_BAND, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, colors=_FAINT)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if cost == "frames":
        axes.set_xticks(spent)


def _shortened(name: str) -> str:
    name = _plain(name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def _plain(text: str) -> str:
    """Nothing that matplotlib takes for mathematics or that fonts cannot draw."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("$", r"\$")
