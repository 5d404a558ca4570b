"""Which measure of a choice goes with what it is worth? What `compare` puts first is what this says.

    python examples/benchmarks/label_efficiency.py --settings clean no_duplicates no_tail no_empties realistic
    python examples/benchmarks/measures_of_gain.py

`compare` counts what is in the frames that a strategy chooses, and trains nothing. The learning curves of
`label_efficiency.py` say what a choice was worth: the mAP after training on it, less that of random choices of the same
pool and start. This makes the first choice of every stored run again, measures it, and correlates the ranks of the two:
over the arms of each pool (their mean is given), and over all of them together.

Written to `--out`: `measures.csv`, a line a choice, and the table, which is printed, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import Pool
from cval_torch.comparison.measures import Ruler, missed_boxes, near_duplicates
from label_efficiency import SETTINGS, DigitBench
from label_efficiency_arms import all_arms
from learning_rounds import Bench, Job, Plan

MIN_SCORE, DUPLICATE_RADIUS = 0.3, 0.25  # as `compare` has them
NOT_MEASURED = ("setting", "pool", "start", "arm", "draw", "gain")


def truth_pool(bench: Bench, rows: Sequence[int]) -> Pool:
    """What the frames at some rows truly show."""
    labels = [bench.truth.labels[row] for row in rows]
    boxes = [bench.truth.boxes[row] for row in rows]
    offsets = torch.tensor([0, *map(len, labels)]).cumsum(0)
    names = [bench.truth.frame_ids[row] for row in rows]
    return Pool(names, offsets, labels=torch.cat(labels), boxes=torch.cat(boxes).float().reshape(-1, 4))


class GainRuler:
    """The measures of `compare`, and others that it might have.

    Args:
        said: what the detector says of the F candidates.
        truth: what they show.
        counts: (K,) annotated objects of each class.
    """

    def __init__(self, said: Pool, truth: Pool, counts: Tensor) -> None:
        self._truth, self._counts = truth, counts
        self._ruler = Ruler(said, truth, min_score=MIN_SCORE, duplicate_radius=DUPLICATE_RADIUS)
        self._missed = missed_boxes(truth, said, min_score=MIN_SCORE)

    def measure(self, rows: Tensor) -> dict[str, float]:
        """All of them, of the frames at (n,) rows."""
        values = self._ruler.measure(rows)
        values.pop("frames")
        distinct = self._distinct(rows)
        values["distinct_frames"] = len(distinct)
        for name, those in (("", rows), ("distinct_", distinct)):
            chosen = torch.zeros(len(self._truth), dtype=torch.bool)
            chosen[those] = True
            boxes = chosen[self._truth.frame_rows]
            values[f"{name}scarce_objects"] = self._scarce(boxes)
            values[f"{name}scarce_misses"] = self._scarce(boxes & self._missed)
            values[f"{name}misses"] = int((boxes & self._missed).sum())
            values[f"{name}objects"] = int(boxes.sum())
        return values

    def _scarce(self, boxes: Tensor) -> float:
        """Each object of a class counts less than the one before it: 1 / (annotated so far + 1)."""
        assert self._truth.labels is not None
        found = self._truth.labels[boxes].bincount(minlength=len(self._counts))
        return math.fsum(
            math.fsum(1 / (have + number) for number in range(1, more + 1))
            for have, more in zip(self._counts.tolist(), found.tolist(), strict=True)
        )

    def _distinct(self, rows: Tensor) -> Tensor:
        """The first frames of each group of near-duplicates."""
        places, kept = self._ruler._places, list[int]()
        assert places is not None
        for row in rows.tolist():
            if not bool(near_duplicates(places[[*kept, row]], self._ruler._radius)[-1]):
                kept.append(row)
        return torch.tensor(kept, dtype=torch.int64)


def measured_choices(bench: Bench, folder: Path) -> list[dict[str, Any]]:
    """The first choice of each stored run of a job, measured, less the mean of random choices."""
    job, found = bench.job, list[dict[str, Any]]()
    start = bench.start()
    known = set(start)
    rest = [row for row in bench.candidates if row not in known]
    place_of = {row: place for place, row in enumerate(rest)}
    ruler: GainRuler | None = None
    for file in sorted((folder / "rounds").glob(f"{job.setting}-pool{job.pool_seed}-start{job.start_seed}-*.json")):
        rounds = json.loads(file.read_text())["rounds"]
        if len(rounds) < 2:
            continue
        arm, draw = rounds[0]["arm"], rounds[0]["draw"]
        detector, _ = bench.detector(start)
        if ruler is None:
            labels = torch.cat([bench.truth.labels[row] for row in start])
            counts = labels.bincount(minlength=len(bench.truth.classes))
            ruler = GainRuler(bench.said(detector).take(rest), truth_pool(bench, rest), counts)
        chosen = [place_of[row] for row in bench.choose(arm, draw, 0, start, detector)]
        values = ruler.measure(torch.tensor(chosen))
        where = {"setting": job.setting, "pool": job.pool_seed, "start": job.start_seed, "arm": arm, "draw": draw}
        found.append({**where, "gain": rounds[1]["map50"], **values})
    base = [each for each in found if each["arm"] == "random"]
    names = [name for name in found[0] if name not in NOT_MEASURED[:-1]] if base else []
    means = {name: fmean(each[name] for each in base) for name in names}
    return [each | {name: each[name] - mean for name, mean in means.items()} for each in found] if base else []


def table_of(choices: Sequence[dict[str, Any]]) -> str:
    """How the ranks of each measure go with those of the gain; the best first."""
    by_pool: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for each in choices:
        by_pool[each["setting"], each["pool"], each["start"]].append(each)
    settings = list(dict.fromkeys(each["setting"] for each in choices))
    names = [name for name in choices[0] if name not in NOT_MEASURED]
    lines = []
    for name in names:
        within = {where: _correlation(those, name) for where, those in by_pool.items()}
        means = [fmean([value for where, value in within.items() if where[0] == setting]) for setting in settings]
        lines.append((fmean(within.values()), name, _correlation(choices, name), means))
    head = f"| measure | within a pool | all together | {' | '.join(settings)} |"
    rows = [
        f"| {name} | {mean:.2f} | {together:.2f} | {' | '.join(f'{each:.2f}' for each in means)} |"
        for mean, name, together, means in sorted(lines, key=lambda line: -abs(line[0]))
    ]
    return "\n".join([head, "|---" * (3 + len(settings)) + "|", *rows])


def _correlation(choices: Sequence[dict[str, Any]], name: str) -> float:
    """Spearman's; 0 where one of the two is constant."""
    found = spearmanr([each[name] for each in choices], [each["gain"] for each in choices]).statistic
    return 0.0 if math.isnan(found) else float(found)


def main(arguments: list[str] | None = None) -> str:
    """Measure what is not measured yet, and print the table."""
    options = parse(arguments)
    found: list[dict[str, Any]] = []
    for file in sorted((options.rounds / "rounds").glob("*-random-0.json")):
        stored = json.loads(file.read_text())
        first = stored["rounds"][0]
        if first["setting"] not in options.settings:
            continue
        plan = Plan(**stored["plan"] | {"added": tuple(stored["plan"]["added"])})
        job = Job(plan, first["setting"], first["pool"], first["start"], tuple(all_arms()), 3, options.rounds)
        found += measured_choices(DigitBench(job), options.rounds)
        print(f"{len(found)} choices, the last of {job.setting}, pool {job.pool_seed}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "measures.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    table = table_of(found)
    print(table)
    return table


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=Path, default=Path("runs/label_efficiency"), help="rounds of (%(default)s)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="kinds of pool")
    parser.add_argument("--out", type=Path, default=Path("runs/measures_of_gain"), help="folder (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
