"""Which measure of a choice goes with what it is worth? What `compare` puts first is what this says.

    python examples/benchmarks/label_efficiency.py --settings clean no_duplicates no_tail no_empties realistic
    python examples/benchmarks/measures_of_gain.py

    python examples/benchmarks/real_pool.py --data DIR --tile 128 --half report --settings plain
    python examples/benchmarks/measures_of_gain.py --rounds runs/real_pool --frames runs/real_pool/frames-....pt

`compare` counts what is in the frames that a strategy chooses, and trains nothing. The learning curves of
`label_efficiency.py` say what a choice was worth: the mAP after training on it, less that of random choices of the same
pool and start. This takes the first choice of every stored run, measures it, and correlates the ranks of the two:
over the arms of each pool (their mean is given), and over all of them together.

Written to `--out`: `measures.csv`, a line a choice, and the table, which is printed, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import Pool
from cval_torch.comparison.measures import Ruler
from cval_torch.selection.class_weights import class_counts
from label_efficiency import DigitBench
from label_efficiency_arms import all_arms
from label_efficiency_report import write_lines
from learning_rounds import Bench, Job, Plan
from real_pool import RealBench

WHERE = ("setting", "pool", "start", "arm", "draw")
MIN_SCORE, DUPLICATE_RADIUS = 0.3, 0.25  # as `compare` has them
NOT_MEASURED = (*WHERE, "frames", "gain")


def truth_pool(bench: Bench, rows: Sequence[int]) -> Pool:
    """What the frames at some rows truly show."""
    labels = [bench.truth.labels[row] for row in rows]
    boxes = [bench.truth.boxes[row] for row in rows]
    offsets = torch.tensor([0, *map(len, labels)]).cumsum(0)
    names = [bench.truth.frame_ids[row] for row in rows]
    return Pool(names, offsets, labels=torch.cat(labels), boxes=torch.cat(boxes).float().reshape(-1, 4))


def measured_choices(bench: Bench, folder: Path) -> list[dict[str, Any]]:
    """The first choice of each stored run of a job, measured, less the mean of random choices."""
    job, found = bench.job, list[dict[str, Any]]()
    start = bench.start()
    known = set(start)
    rest = [row for row in bench.candidates if row not in known]
    place_of = {row: place for place, row in enumerate(rest)}
    ruler: Ruler | None = None
    for file in sorted((folder / "rounds").glob(f"{job.setting}-pool{job.pool_seed}-start{job.start_seed}-*.json")):
        stored = json.loads(file.read_text())
        rounds, labelled = stored["rounds"], stored["next"]
        if len(rounds) < 2:
            continue
        arm, draw = rounds[0]["arm"], rounds[0]["draw"]
        detector, _ = bench.detector(start)
        if ruler is None:
            ruler = Ruler(
                bench.said(detector).take(rest),
                truth_pool(bench, rest),
                counts=class_counts(truth_pool(bench, start)),
                min_score=MIN_SCORE,
                duplicate_radius=DUPLICATE_RADIUS,
            )
        rows = labelled[len(start) : len(start) + job.plan.added[0]] or bench.choose(arm, draw, 0, start, detector)
        values = ruler.measure(torch.tensor([place_of[row] for row in rows]))
        where = {"setting": job.setting, "pool": job.pool_seed, "start": job.start_seed, "arm": arm, "draw": draw}
        found.append({**where, "gain": rounds[1]["map50"], **values})
    base = [each for each in found if each["arm"] == "random"]
    names = [name for name in found[0] if name not in WHERE] if base else []
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
    values, gains = [each[name] for each in choices], [each["gain"] for each in choices]
    if len(set(values)) == 1 or len(set(gains)) == 1:
        return 0.0
    return float(spearmanr(values, gains).statistic)


def main(arguments: list[str] | None = None) -> str:
    """Measure what is not measured yet, and print the table."""
    options = parse(arguments)
    found: list[dict[str, Any]] = []
    for file in sorted((options.rounds / "rounds").glob("*-random-0.json")):
        stored = json.loads(file.read_text())
        first = stored["rounds"][0]
        if options.settings and first["setting"] not in options.settings:
            continue
        plan = Plan(**stored["plan"] | {"added": tuple(stored["plan"]["added"])})
        job = Job(plan, first["setting"], first["pool"], first["start"], tuple(all_arms()), 3, options.rounds)
        frames = options.frames
        bench = DigitBench(job) if frames is None else RealBench(job, pool=frames, device=options.device)
        found += measured_choices(bench, options.rounds)
        print(f"{len(found)} choices, the last of {job.setting}, pool {job.pool_seed}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write_lines(found, options.out / "measures.csv")
    table = table_of(found)
    print(table)
    return table


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=Path, default=Path("runs/label_efficiency"), help="rounds of (%(default)s)")
    parser.add_argument("--settings", nargs="+", help="kinds of pool (all that there are rounds of)")
    parser.add_argument("--frames", type=Path, help="of a real pool: the file of frames in the folder of its rounds")
    parser.add_argument("--device", default="cpu", help="where detectors of a real pool train (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/measures_of_gain"), help="folder (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
