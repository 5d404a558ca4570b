"""The label-efficiency benchmark: its references, its arithmetic, and that it resumes to the same figures."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import digits_on_photos as digits
import label_efficiency
from cval_torch import Pool
from label_efficiency_arms import Choice, all_arms, every_nth, oracle
from label_efficiency_report import (
    Curve,
    Round,
    at_equal_boxes,
    cost_to_reach,
    curves_of,
    gap_closed,
    interval,
    savings,
    spread_of_random,
    table_of,
)


def curve(frames, boxes, map50) -> Curve:
    return Curve(np.array(frames, float), np.array(boxes, float), np.array(map50, float))


def round_of(arm: str, number: int, map50: float, *, pool: int = 0, start: int = 0, draw: int = 0) -> Round:
    labelled = {"frames": 10 + 10 * number, "boxes": 20 + 20 * number, "empty_frames": 0, "sequences": 1, "classes": 1}
    return Round("realistic", pool, start, arm, draw, number, **labelled, map50=map50, seconds=1.0)


def test_cost_is_read_off_straight_lines() -> None:
    risen = curve([80, 160, 240], [100, 300, 500], [0.2, 0.4, 0.5])
    assert cost_to_reach(risen, 0.1, cost="frames") == 80
    assert cost_to_reach(risen, 0.3, cost="frames") == pytest.approx(120)
    assert cost_to_reach(risen, 0.3, cost="boxes") == pytest.approx(200)
    assert cost_to_reach(risen, 0.5, cost="frames") == pytest.approx(240)
    assert cost_to_reach(risen, 0.51, cost="frames") == math.inf
    dipped = curve([80, 160, 240], [1, 2, 3], [0.2, 0.1, 0.5])
    assert cost_to_reach(dipped, 0.3, cost="frames") == pytest.approx(200)


def test_savings_are_shares_of_randoms_cost_on_the_same_pool() -> None:
    random = {3: curve([80, 160], [100, 200], [0.2, 0.4]), 5: curve([80, 160], [50, 80], [0.1, 0.3])}
    chosen = {3: curve([80, 160], [100, 300], [0.2, 0.6]), 5: curve([80, 160], [50, 90], [0.1, 0.2])}
    assert savings(chosen, random, cost="frames") == [pytest.approx(120 / 160), math.inf]
    assert savings(chosen, random, cost="boxes") == [pytest.approx(200 / 200), math.inf]


def test_equal_boxes_are_those_of_the_curve_that_ends_with_fewer() -> None:
    random = {3: curve([80, 160], [100, 200], [0.2, 0.4]), 5: curve([80, 160], [50, 90], [0.1, 0.3])}
    chosen = {3: curve([80, 160], [100, 300], [0.2, 0.6]), 5: curve([80, 160], [50, 70], [0.1, 0.4])}
    assert at_equal_boxes(chosen, random) == [pytest.approx(0.4 - 0.4), pytest.approx(0.4 - 0.2)]


def test_interval_is_students() -> None:
    values = [0.1, 0.3, 0.2, 0.5, 0.15]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    mean, half = interval(values)
    assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
    assert interval([0.1]) == (0.1, math.inf)


def test_starts_and_draws_are_averaged_within_a_pool() -> None:
    rounds = [
        *(round_of("random", 0, value, draw=draw) for draw, value in enumerate((0.1, 0.2, 0.6))),
        round_of("random", 0, 0.5, start=1),
        round_of("random", 0, 0.9, pool=1),
        round_of("clustering", 0, 0.7),
    ]
    curves = curves_of(rounds, "realistic")
    assert curves["random"][0].map50 == pytest.approx([1.4 / 4])
    assert curves["random"][1].map50 == pytest.approx([0.9])
    assert curves["clustering"][0].map50 == pytest.approx([0.7])
    assert curves_of(rounds, "clean") == {}


def test_gap_closed() -> None:
    low, high = {0: curve([1], [1], [0.2])}, {0: curve([1], [1], [0.4])}
    assert gap_closed({0: curve([1], [1], [0.35])}, low, high, 0) == pytest.approx(0.75)
    assert math.isnan(gap_closed(high, low, {0: curve([1], [1], [0.205])}, 0))


def test_the_spread_of_random_is_within_starts_and_pools() -> None:
    last = {(0, 0): (0.30, 0.34), (0, 1): (0.50, 0.52), (1, 0): (0.9,)}
    rounds = [
        round_of("random", number, value + 7 * (1 - number), pool=pool, start=start, draw=draw)
        for (pool, start), values in last.items()
        for draw, value in enumerate(values)
        for number in (0, 1)
    ]
    pooled = math.sqrt((np.var((0.30, 0.34), ddof=1) + np.var((0.50, 0.52), ddof=1)) / 2)
    assert spread_of_random(rounds, "realistic") == pytest.approx(pooled)
    assert f"differ by {pooled:.3f}" in table_of(rounds, "realistic")
    assert math.isnan(spread_of_random(rounds, "clean"))


def test_table_pairs_by_pool() -> None:
    rounds = []
    for pool, (plain, better) in enumerate([(0.30, 0.36), (0.50, 0.54)]):
        rounds += [round_of("random", 0, 0.1, pool=pool), round_of("random", 1, plain, pool=pool)]
        rounds += [round_of("clustering", 0, 0.1, pool=pool), round_of("clustering", 1, better, pool=pool)]
    table = table_of(rounds, "realistic")
    half = stats.t.ppf(0.975, 1) * np.std([0.06, 0.04], ddof=1) / math.sqrt(2)
    assert f"+0.050 [{0.05 - half:+.3f}, {0.05 + half:+.3f}] | 2 of 2 pools" in table
    assert "- clustering: +0.060, +0.040" in table


def test_the_gap_is_that_where_the_initial_set_is_doubled() -> None:
    values = {
        "random": (0.1, 0.2, 0.3, 0.4),
        "clustering": (0.1, 0.5, 0.35, 0.4),
        "oracle (cheats)": (0.1, 0.2, 0.5, 0.6),
    }
    rounds = [
        replace(round_of(arm, number, value), frames=frames)
        for arm, row in values.items()
        for number, (frames, value) in enumerate(zip((80, 120, 160, 240), row, strict=True))
    ]
    table = table_of(rounds, "realistic")
    assert "gap closed at 160" in table
    assert next(line for line in table.splitlines() if line.startswith("| clustering")).endswith("| 25% |")


@pytest.fixture(scope="module")
def truth():
    return digits.pool_frames(digits.PoolSettings(frames=120), seed=2)


def choice_of(truth, labelled: list[int], n: int, seed: int = 0) -> Choice:
    def pool(rows: list[int]) -> Pool:
        ids = [truth.frame_ids[row] for row in rows]
        return Pool(ids, torch.zeros(len(rows) + 1, dtype=torch.int64), indices=torch.tensor(rows))

    rest = sorted(set(range(len(truth))) - set(labelled))
    return Choice(pool(rest), pool(labelled), truth, n, seed)


@pytest.mark.parametrize("seed", [0, 1, 96, 1234])
def test_every_nth_frame(truth, seed: int) -> None:
    rows = every_nth(choice_of(truth, list(range(20)), 10, seed))
    assert set(np.diff(rows).tolist()) == {10}
    assert 0 <= rows[0] < 10
    assert rows[-1] < 100


def test_the_oracle_takes_new_sequences_and_the_rarest_classes(truth) -> None:
    labelled = list(range(12))
    choice = choice_of(truth, labelled, 5)
    chosen = [int(choice.pool.indices[row]) for row in oracle(choice)]
    assert len(set(truth.sequences[chosen].tolist())) == 5
    assert not set(truth.sequences[chosen].tolist()) & set(truth.sequences[labelled].tolist())
    # the first choice by hand: most classes, each counted the less the more often it is labelled already
    known = [label for row in labelled for label in truth.labels[row].tolist()]
    seen = set(truth.sequences[labelled].tolist())
    gains = {
        row: sum(1 / (1 + known.count(label)) for label in truth.labels[row].tolist())
        for row in range(12, 120)
        if int(truth.sequences[row]) not in seen
    }
    assert gains[chosen[0]] == pytest.approx(max(gains.values()))


def test_the_oracle_goes_on_when_every_sequence_is_seen(truth) -> None:
    choice = choice_of(truth, list(range(12)), 40)
    chosen = oracle(choice)
    assert len(set(chosen)) == 40


ARMS = ["random", "every n-th", "oracle (cheats)", "entropy sum, weighted_kmeans"]


def run(folder: Path) -> list[Round]:
    threads = torch.get_num_threads()
    try:
        more = ["--random-draws", "2", "--processes", "1", "--out", str(folder)]
        return label_efficiency.main(["--tiny", "--arms", *ARMS, *more])
    finally:
        torch.set_num_threads(threads)


def test_a_run_that_was_stopped_ends_with_the_same_figures(tmp_path: Path) -> None:
    whole = [replace(each, seconds=0) for each in run(tmp_path)]
    assert [(each.arm, each.draw, each.round) for each in whole] == [
        *(("random", draw, number) for draw in (0, 1) for number in (0, 1)),
        *((arm, 0, number) for arm in ARMS[1:] for number in (0, 1)),
    ]
    assert {each.frames for each in whole if each.round == 0} == {10}
    assert {each.frames for each in whole if each.round == 1} == {15}
    assert len({each.map50 for each in whole if each.round == 0}) == 1  # all arms share the first detector
    out = tmp_path / "tiny"
    stored = sorted((out / "rounds").iterdir())
    first = json.loads(stored[0].read_text())
    kept = {"rounds": first["rounds"][:1], "next": first["next"]}
    stored[0].write_text(json.dumps(first | kept))  # stopped after its first round
    stored[1].unlink()  # not begun
    assert [replace(each, seconds=0) for each in run(tmp_path)] == whole
    with (out / "rounds.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(whole)
    assert (out / "curves-realistic.png").stat().st_size > 10_000
    summary = (out / "summary.md").read_text()
    assert all(f"| {arm} |" in summary for arm in ARMS)


def test_rounds_of_another_plan_are_not_mixed_in(tmp_path: Path) -> None:
    file = tmp_path / "tiny" / "rounds" / "realistic-pool100-start0-random-0.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"plan": {"frames": 7}, "rounds": [], "next": []}))
    with pytest.raises(SystemExit, match="another plan"):
        run(tmp_path)


def test_steps_grow_as_the_root_of_the_labelled_set() -> None:
    plan = label_efficiency.Plan(start=80, steps=200)
    assert [plan.steps_for(frames) for frames in (80, 320, 2000)] == [200, 400, 1000]


def test_references_are_in_every_table() -> None:
    options = label_efficiency.parse(["--arms", "clustering"])
    assert options.arms == ["random", "every n-th", "oracle (cheats)", "clustering"]
    assert label_efficiency.parse(["--arms", "all"]).arms == list(all_arms())
