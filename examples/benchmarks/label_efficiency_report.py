"""Tables and pictures of `label_efficiency.py`: learning curves, paired differences, and what selection saves.

Pools are the unit of everything said about chance: starts and draws within a pool are averaged first, since they share
its frames, and intervals are Student's t over pools. Where there is one real pool, its starts are the unit: they say
how much a choice depends on where it began, and nothing about other pools.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import Any, Literal

import matplotlib as mpl
import numpy as np

mpl.use("Agg")  # a file, no window
from matplotlib import pyplot as plt
from scipy.stats import t as student_t

Cost = Literal["frames", "boxes"]


@dataclass(frozen=True)
class Round:
    """One training: on what, and how well it went.

    Attributes:
        setting, pool, start: the kind of pool, its seed, the seed of the initial set.
        arm, draw: the strategy, and which repetition of it (`random` alone has several).
        round: 0 is the initial set, which all arms share.
        frames, boxes, empty_frames, sequences, classes: of the labelled set.
        map50: on unseen frames, in [0, 1].
        seconds: of training, measuring and choosing.
        marked: labelled frames that are what the setting is about, such as those of a board that was left out.
    """

    setting: str
    pool: int
    start: int
    arm: str
    draw: int
    round: int
    frames: int
    boxes: int
    empty_frames: int
    sequences: int
    classes: int
    map50: float
    seconds: float
    marked: int = 0


@dataclass(frozen=True)
class Curve:
    """An arm on one pool, starts and draws averaged: K rounds.

    Attributes:
        frames, boxes: (K,) labelled so far.
        map50: (K,).
    """

    frames: np.ndarray
    boxes: np.ndarray
    map50: np.ndarray


def curves_of(rounds: Iterable[Round], setting: str) -> dict[str, dict[int, Curve]]:
    """By arm, then by pool."""
    grouped: dict[tuple[str, int, int], list[Round]] = defaultdict(list)
    for each in rounds:
        if each.setting == setting:
            grouped[each.arm, each.pool, each.round].append(each)
    found: dict[str, dict[int, Curve]] = defaultdict(dict)
    for arm, pool in dict.fromkeys((arm, pool) for arm, pool, _ in grouped):
        numbers = sorted(number for a, p, number in grouped if (a, p) == (arm, pool))
        columns = [
            np.array([fmean(getattr(each, name) for each in grouped[arm, pool, number]) for number in numbers])
            for name in ("frames", "boxes", "map50")
        ]
        found[arm][pool] = Curve(*columns)
    return dict(found)


def interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Mean, and half the width of its Student's t interval; infinite for a single value."""
    if len(values) < 2:
        return fmean(values), math.inf
    quantile = float(student_t.ppf((1 + level) / 2, len(values) - 1))
    return fmean(values), quantile * stdev(values) / math.sqrt(len(values))


def cost_to_reach(curve: Curve, target: float, *, cost: Cost) -> float:
    """Where the curve first reaches `target`, straight lines between its points; infinite if it does not."""
    spent = getattr(curve, cost)
    if curve.map50[0] >= target:
        return float(spent[0])
    for k in range(1, len(spent)):
        before, after = curve.map50[k - 1], curve.map50[k]
        if after >= target:
            return float(spent[k - 1] + (target - before) / (after - before) * (spent[k] - spent[k - 1]))
    return math.inf


def savings(curves: dict[int, Curve], baseline: dict[int, Curve], *, cost: Cost) -> list[float]:
    """For each pool: the share of random's final cost at which the arm reaches random's final mAP.

    Infinite if it never does; NaN if random choice cost nothing.

    0.5 means half the cost. Random's end is its mean over draws and starts on the same pool.
    """
    return [
        cost_to_reach(curves[pool], float(baseline[pool].map50[-1]), cost=cost)
        / (float(getattr(baseline[pool], cost)[-1]) or math.nan)
        for pool in sorted(curves)
    ]


def spread_of_random(rounds: Iterable[Round], setting: str) -> float:
    """Standard deviation of the last mAP of draws of `random` from one start of one pool, pooled; NaN of single draws.

    A difference on a single pool that is not well beyond this says nothing.
    """
    last: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for each in sorted(rounds, key=lambda each: each.round):
        if (each.setting, each.arm) == (setting, "random"):
            last[each.pool, each.start][each.draw] = each.map50
    draws = [list(by_draw.values()) for by_draw in last.values()]
    freedom = sum(len(values) - 1 for values in draws)
    squares = sum((len(values) - 1) * variance(values) for values in draws if len(values) > 1)
    return math.sqrt(squares / freedom) if freedom else math.nan


def gap_closed(curves: dict[int, Curve], baseline: dict[int, Curve], best: dict[int, Curve], k: int) -> float:
    """The share of the way from random to the oracle after round k, of the means over pools.

    NaN where the oracle is less than 0.01 ahead: a share of nothing means nothing.
    """
    means = [fmean(float(of[pool].map50[k]) for pool in sorted(curves)) for of in (curves, baseline, best)]
    mean, low, high = means
    return (mean - low) / (high - low) if high - low >= 0.01 else math.nan


def at_equal_boxes(curves: dict[int, Curve], baseline: dict[int, Curve]) -> list[float]:
    """For each pool: the difference to random at as many boxes, those of the curve that ends with fewer."""
    found = []
    for pool in sorted(curves):
        end = min(curves[pool].boxes[-1], baseline[pool].boxes[-1])
        mine, theirs = (np.interp(end, of[pool].boxes, of[pool].map50) for of in (curves, baseline))
        found.append(float(mine - theirs))
    return found


def table_of(rounds: Sequence[Round], setting: str, *, unit: str = "pools") -> str:
    """The setting's table, in Markdown: mAP by round, difference to random in pairs, savings, gap closed.

    `unit` names what the curves are compared within: `pools` or `starts`.
    """
    curves = curves_of(rounds, setting)
    baseline = curves["random"]
    frames = next(iter(baseline.values())).frames.astype(int).tolist()
    # where the initial set is doubled, or the last round
    doubled = next((k for k, n in enumerate(frames) if n >= 2 * frames[0]), len(frames) - 1)
    head = ["arm", f"mAP@50, {frames[0]} frames", *map(str, frames[1:]), "minus random, last (95 %)", "better on"]
    head += ["frames for random's last", "boxes for random's last", f"gap closed at {frames[doubled]}"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm, by_pool in curves.items():
        pools = sorted(by_pool)
        means = [fmean(float(by_pool[pool].map50[k]) for pool in pools) for k in range(len(frames))]
        differences = [float(by_pool[pool].map50[-1] - baseline[pool].map50[-1]) for pool in pools]
        mean, half = interval(differences)
        best = curves.get("oracle (cheats)")
        closed = math.nan if best is None else gap_closed(by_pool, baseline, best, doubled)
        cells = [arm, *(f"{value:.3f}" for value in means)]
        if arm == "random":
            cells += ["", "", "1", "1", ""]
        else:
            cells.append(f"{mean:+.3f}" + ("" if math.isinf(half) else f" [{mean - half:+.3f}, {mean + half:+.3f}]"))
            cells.append(f"{sum(value > 0 for value in differences)} of {len(pools)} {unit}")
            cells += [_share(savings(by_pool, baseline, cost=cost), unit) for cost in ("frames", "boxes")]
            cells.append("" if math.isnan(closed) else f"{closed:.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Difference to random after the last round, {unit} one by one:", ""]
    for arm, by_pool in curves.items():
        if arm != "random":
            values = (by_pool[pool].map50[-1] - baseline[pool].map50[-1] for pool in sorted(by_pool))
            lines.append(f"- {arm}: " + ", ".join(f"{value:+.3f}" for value in values))
    lines += ["", f"Difference to random at as many boxes (95 %, better on how many {unit}):", ""]
    for arm, by_pool in curves.items():
        if arm != "random":
            differences = at_equal_boxes(by_pool, baseline)
            mean, half = interval(differences)
            within = "" if math.isinf(half) else f" [{mean - half:+.3f}, {mean + half:+.3f}]"
            better = sum(value > 0 for value in differences)
            lines.append(f"- {arm}: {mean:+.3f}{within}, {better} of {len(differences)}")
    marked: dict[str, list[int]] = defaultdict(list)
    for each in rounds:
        if (each.setting, each.frames) == (setting, frames[-1]):
            marked[each.arm].append(each.marked)
    if any(map(any, marked.values())):
        shown = ", ".join(f"{arm} {fmean(values):.0f}" for arm, values in marked.items())
        lines += ["", f"Labelled frames that the setting is about, after the last round: {shown}."]
    spread = spread_of_random(rounds, setting)
    if not math.isnan(spread):
        lines += ["", f"Draws of random from one start differ by {spread:.3f} (standard deviation)."]
    return "\n".join(lines)


def _share(shares: list[float], unit: str) -> str:
    """The median over pools, and on how many of them random's mAP was reached at all."""
    reached = sum(math.isfinite(share) for share in shares)
    middle = float(np.median(shares))
    text = "not reached" if math.isinf(middle) or math.isnan(middle) else f"{middle:.2f}"
    return text if reached == len(shares) else f"{text} ({reached} of {len(shares)} {unit})"


def draw_curves(rounds: Sequence[Round], setting: str, path: Path, *, unit: str = "pools") -> None:
    """mAP@50 against frames, with bands, and against boxes.

    The bands are the 95 % intervals of the paired difference to random, around the mean; of more than eight arms they
    would hide the curves, and are left out.
    """
    curves = curves_of(rounds, setting)
    baseline = curves["random"]
    figure, axes = plt.subplots(1, 2, figsize=(15, 5), sharey=True, layout="constrained")
    styles = {"random": ("black", "-"), "every n-th": ("grey", ":"), "oracle (cheats)": ("black", "--")}
    lines = itertools.product(("-", "-."), plt.get_cmap("tab10").colors)  # type: ignore[attr-defined]
    for arm, (line, colour) in zip((arm for arm in curves if arm not in styles), lines, strict=False):
        styles[arm] = (colour, line)
    banded = len(curves) <= 8
    for arm, by_pool in curves.items():
        pools = sorted(by_pool)
        middle = np.mean([by_pool[pool].map50 for pool in pools], axis=0)
        differences = np.array([by_pool[pool].map50 - baseline[pool].map50 for pool in pools])
        halves = np.array([interval(column.tolist())[1] for column in differences.T])
        colour, style = styles[arm]
        for axis, cost in zip(axes, ("frames", "boxes"), strict=True):
            spent = np.mean([getattr(by_pool[pool], cost) for pool in pools], axis=0)
            axis.plot(spent, middle, style, color=colour, label=arm, marker="o", markersize=4)
            # differences are at equal frames
            if banded and cost == "frames" and arm != "random" and np.isfinite(halves).all():
                axis.fill_between(spent, middle - halves, middle + halves, color=colour, alpha=0.12, linewidth=0)
    for axis, cost in zip(axes, ("frames", "boxes"), strict=True):
        axis.set_xlabel(f"{cost} labelled")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"mAP@50 on unseen frames, mean of {unit}")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    said = f"{len(baseline)} {unit}" + ("; bands: 95 % interval of the paired difference to random" if banded else "")
    figure.suptitle(f"{setting.replace('_', ' ')}: {said if len(baseline) > 1 else 'one alone, which proves nothing'}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_lines(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Dicts with the same keys, at least one, as a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def write_report(rounds: Sequence[Round], folder: Path, *, unit: str = "pools") -> str:
    """Write `rounds.csv`, `summary.md` and a picture for each setting; returns the summary."""
    write_lines([asdict(each) for each in rounds], folder / "rounds.csv")
    parts = []
    for setting in dict.fromkeys(each.setting for each in rounds):
        draw_curves(rounds, setting, folder / f"curves-{setting}.png", unit=unit)
        parts.append(f"### {setting.replace('_', ' ')}\n\n{table_of(rounds, setting, unit=unit)}\n")
    summary = "\n".join(parts)
    (folder / "summary.md").write_text(summary)
    return summary
