"""What more labels are expected to gain: against a regression done over again, and on curves that were recorded."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import t as student_t

from cval_torch.errors import InvalidInputError
from cval_torch.training.labels import LabelPool
from cval_torch.training.learning_curve import LearningCurve, expected_gain

RESULTS = Path(__file__).parents[2] / "examples" / "benchmarks" / "results"


def curve_of(*points: tuple[int, float]) -> LearningCurve:
    curve = LearningCurve()
    for frames, value in points:
        curve.add(frames, {"map": value})
    return curve


def naive_quantile(frames: list[int], values: list[float], added: int, share: float) -> float:
    """By the posterior's own matrices, one exponent after the other, and the distribution function of Student's t."""
    y = np.array(values)
    noise = max(0.3 * (y.max() - y.min()), 0.015 * np.abs(y).max())
    freedom = 2 + len(y) - 2
    laws = []
    for c in np.linspace(0, 2, 21):
        scaled = np.array([*frames, frames[-1] + added]) / frames[0]
        x = np.log(scaled) if c == 0 else (1 - scaled**-c) / c
        design = np.stack([np.ones(len(y)), x[:-1]], 1)
        precision = design.T @ design
        line = np.linalg.solve(precision, design.T @ y)
        scatter = float(((y - design @ line) ** 2).sum()) + 2 * noise**2
        ahead = np.array([0, x[-1] - x[-2]])
        scale = math.sqrt(scatter / freedom * (2 + ahead @ np.linalg.inv(precision) @ ahead))
        evidence = math.sqrt((x[:-1] ** 2).sum() / np.linalg.det(precision)) * scatter ** (-freedom / 2)
        laws.append((evidence, float(line @ ahead), scale))
    total = sum(evidence for evidence, _, _ in laws)

    def below(gain: float) -> float:
        return sum(e * student_t.cdf((gain - centre) / s, freedom) for e, centre, s in laws) / total - share

    return float(brentq(below, -50, 50))


@given(
    steps=st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=2, max_size=7),
    added=st.integers(1, 2000),
)
@settings(max_examples=60, deadline=None)
def test_it_is_a_mixture_of_regressions(steps: list[tuple[int, float]], added: int) -> None:
    frames = np.cumsum([step for step, _ in steps]).tolist()
    values = [value for _, value in steps]
    if max(map(abs, values)) < 1e-3:
        return
    low, middle, high = expected_gain(frames, values, added, (0.1, 0.5, 0.9))
    assert low < middle < high
    width = high - low
    for share, got in ((0.1, low), (0.5, middle), (0.9, high)):
        assert got == pytest.approx(naive_quantile(frames, values, added, share), abs=0.03 * width)


def test_curves_that_flatten_gain_less_and_steep_ones_more() -> None:
    flat, steep = curve_of((100, 0.3), (200, 0.4), (400, 0.41)), curve_of((100, 0.3), (200, 0.4), (400, 0.55))
    one, other = flat.forecast("map", 400), steep.forecast("map", 400)
    assert one is not None
    assert other is not None
    assert 0 < one.gain < 0.02
    assert other.gain > 0.05
    assert one.low < 0, "perhaps there is nothing to gain any more"
    assert (one.value, one.labeled, one.added, one.measured, one.level) == (0.41, 400, 400, 3, 0.8)
    more = flat.forecast("map", 4000)
    assert more is not None
    assert more.gain > one.gain
    wide = flat.forecast("map", 400, level=0.95)
    assert wide is not None
    assert wide.high - wide.low > one.high - one.low
    assert wide.gain == pytest.approx(one.gain)
    losses = curve_of((100, 3.0), (200, 2.0), (400, 1.5)).forecast("map", 400)
    assert losses is not None
    assert losses.gain < 0, "a loss falls"


def test_a_scale_of_percents_makes_no_difference() -> None:
    points = [(80, 0.31), (120, 0.38), (160, 0.40), (240, 0.46)]
    one = curve_of(*points).forecast("map", 80)
    hundred = curve_of(*((frames, 100 * value) for frames, value in points)).forecast("map", 80)
    assert one is not None
    assert hundred is not None
    assert (hundred.gain, hundred.low, hundred.high) == pytest.approx((100 * one.gain, 100 * one.low, 100 * one.high))


@pytest.mark.parametrize(("name", "least", "most"), [("label_efficiency", 0.85, 0.95), ("real_pool", 0.72, 0.85)])
def test_the_interval_holds_what_came_on_recorded_curves(name: str, least: float, most: float) -> None:
    """Of 80 %: more on composed pools, less on real scans. Had each gain been forecast by the last, it were far off."""
    curves: dict[tuple[str, ...], list[tuple[int, float]]] = defaultdict(list)
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            where = tuple(row[each] for each in ("setting", "pool", "start", "arm", "draw"))
            curves[where].append((int(row["frames"]), float(row["map50"])))
    held, errors, naive_errors = [], [], []
    for points in curves.values():
        points.sort()
        for known in range(2, len(points)):
            added = points[known][0] - points[known - 1][0]
            found = curve_of(*points[:known]).forecast("map", added)
            assert found is not None
            came = points[known][1] - points[known - 1][1]
            held.append(found.low <= came <= found.high)
            errors.append(abs(found.gain - came))
            naive_errors.append(abs(points[known - 1][1] - points[known - 2][1] - came))
    assert len(held) >= 100
    assert least <= np.mean(held) <= most
    assert np.mean(errors) < 0.95 * np.mean(naive_errors)


def test_what_is_not_known_or_not_asked_well() -> None:
    curve = curve_of((100, 0.3))
    assert curve.forecast("map", 50) is None, "a single number of frames says nothing"
    curve.add(100, {"map": 0.35, "loss": math.nan})
    curve.add(0, {"map": 0.9})
    assert (curve.points("map"), curve.metrics) == ([(100, 0.35)], ("map",)), "the later one counts"
    with pytest.raises(InvalidInputError, match="`metric` must be one that was measured: map; got 'mAP'"):
        curve.forecast("mAP", 50)
    with pytest.raises(InvalidInputError, match="`added` must be at least 1; got 0"):
        curve.forecast("map", 0)
    with pytest.raises(InvalidInputError, match="`level` must be above 0 and below 1; got 80"):
        curve.forecast("map", 5, level=80)


def test_it_goes_with_the_labels(tmp_path: Path) -> None:
    ids = list("abcdefgh")
    labels = LabelPool(ids, labeled=["a", "b"], frame_ids=ids)  # type: ignore[arg-type]
    labels.measured({"map": 0.2, "recall": 0.5})
    labels.label(["c", "d"])
    labels.measured({"map": 0.3})
    labels.save(tmp_path / "labels.json")
    assert json.loads((tmp_path / "labels.json").read_text())["learning_curve"][0]["metrics"]["recall"] == 0.5
    again = LabelPool(ids, frame_ids=ids)  # type: ignore[arg-type]
    again.load(tmp_path / "labels.json")
    assert again.learning_curve.points("map") == [(2, 0.2), (4, 0.3)]
    assert again.learning_curve.forecast("map", 2) == labels.learning_curve.forecast("map", 2)
