"""Where bars and lines lie."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.report.charts import HEIGHT, WIDTH, boxes_histogram, curve_chart, nice_ticks, score_histogram


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_within(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert 2 <= len(ticks) <= 9
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in ticks)


def test_one_value_is_one_tick() -> None:
    assert nice_ticks(3, 3) == [3]


def counts_of(chart) -> tuple[int, int]:
    """All frames and chosen ones, as the titles of the bars tell them, each bin once."""
    told = {bar.said for bar in chart.bars}
    numbers = [each.replace(",", "").split(": ")[1].split() for each in told]
    return sum(int(each[0]) for each in numbers), sum(int(each[2]) for each in numbers)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=50), st.integers(0, 50))
def test_every_frame_is_in_one_bin(values: list[float], taken: int) -> None:
    scores = torch.tensor([*values, torch.nan], dtype=torch.float64)
    chosen = torch.arange(len(scores)) < min(taken, len(values))
    chart = score_histogram(scores, chosen, cut=None, name="entropy")
    assert counts_of(chart) == (len(values), int(chosen.sum()))
    for bar in chart.bars:
        assert chart.left <= bar.x
        assert bar.x + bar.width <= WIDTH
        assert bar.y + bar.height <= HEIGHT


def test_the_cut_parts_the_chosen_from_the_others() -> None:
    scores = torch.linspace(0, 1, 61, dtype=torch.float64)
    chart = score_histogram(scores, scores >= 0.75, cut=0.75, name="entropy")
    assert chart.cut is not None
    assert all(bar.x + bar.width > chart.cut - 12 for bar in chart.bars if bar.kind == "chosen")
    assert all(bar.x < chart.cut for bar in chart.bars if bar.kind == "pool")


def test_equal_scores_are_one_bar() -> None:
    chart = score_histogram(torch.full((5,), 0.3), torch.tensor([True, False, False, False, False]), cut=0.3, name="x")
    assert [(bar.kind, bar.said) for bar in chart.bars] == [
        ("pool", chart.bars[0].said),
        ("chosen", chart.bars[0].said),
    ]
    assert "5 frames, 1 chosen" in chart.bars[0].said


def test_heights_are_counts() -> None:
    chart = score_histogram(torch.tensor([0.0, 0, 0, 1]), torch.zeros(4, dtype=torch.bool), cut=None, name="x")
    high, low = sorted((bar.height for bar in chart.bars), reverse=True)
    assert high == pytest.approx(3 * low, rel=0.01)


def test_boxes_are_shares_of_each_kind() -> None:
    chart = boxes_histogram({"pool": torch.tensor([0.2, 0.9, 1.2, 2.9]), "chosen": torch.tensor([3.4])})
    told = [bar.said for bar in chart.bars]
    assert told == [
        "about 0 boxes: 25.0% of the pool frames",
        "about 1 boxes: 50.0% of the pool frames",
        "about 3 boxes: 25.0% of the pool frames",
        "about 3 boxes: 100.0% of the chosen frames",
    ]
    assert chart.summary == "On average: pool 1.30, chosen 3.40."
    assert len(boxes_histogram({"chosen": torch.tensor([900.0, 4])}).bars) == 2
    assert boxes_histogram({"chosen": torch.zeros(3)}).bars[0].said.startswith("about 0 boxes: 100.0%")


def test_curves_rise_with_the_metric() -> None:
    chart = curve_chart(
        "t", "frames", [("a", [(10, 0.2), (20, 0.6)])], [[(10, 0.2), (20, 0.3)], [(10, 0.2), (20, 0.5)]]
    )
    random, line = chart.lines
    assert [dot[2] for dot in line.dots] == ["a: 0.200 at 10", "a: 0.600 at 20"]
    assert line.dots[1][1] < random.dots[1][1] < line.dots[0][1]
    assert line.dots[0][0] == random.dots[0][0] < line.dots[1][0]
    assert (line.number, random.number) == (0, -1)
    assert chart.band.count(" ") == 4
