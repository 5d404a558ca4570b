"""What to label first, when nothing is labelled: strategies on a detector of other classes, beside random choice.

    python examples/benchmarks/first_round.py            # ten pools: 25 minutes on a core
    python examples/benchmarks/first_round.py --tiny     # seconds; shows that it runs, and nothing else

There is no detector of one's own classes yet, but there is one of others, such as one of COCO. Here it has learnt
letters, and the pools show digits. It infers the pool once, each arm chooses the first frames to label, and a detector
is trained on them as in `label_efficiency.py`. What is said is its mAP@50, in pairs within a pool.

Written to `--out`: `first_round.csv`, a line a training, and the table, which is printed, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from torch.utils.data import DataLoader

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, LocalBackend, Pool, extract
from label_efficiency import POOL_SEEDS_FROM, SETTINGS, DigitBench, letters_file
from label_efficiency_arms import Choice, every_nth
from label_efficiency_report import interval, write_lines
from learning_rounds import Job, Plan
from small_detector import collate, pretrained_on_letters

STAGES: dict[str, list[dict[str, Any]]] = {
    "typicality": [{"selection_strategy": "typicality"}],
    "facility_location": [{"selection_strategy": "facility_location"}],
    "k_center": [{"selection_strategy": "k_center"}],
    "clustering": [{"selection_strategy": "clustering"}],
    "auto": [{"selection_strategy": "auto"}],
    "frames with detections at random": [{"selection_strategy": "random", "null_policy": "skip"}],
    "probability sum, typicality": [
        {"selection_strategy": "probability", "bbox_selection_policy": "sum", "sort_strategy": "descending"},
        {"selection_strategy": "typicality"},
    ],
}
_KEPT = 5  # of a stage before the last, times what is asked for


def choices(pool: Pool, bench: DigitBench, n: int, draws: int) -> Iterator[tuple[str, int, list[int]]]:
    """Arm, draw, and the rows that it labels first."""
    backend = LocalBackend(labeled_counts={})
    for draw in range(draws):
        stage = DetectionSampling(selection_strategy="random", num_of_samples=n, seed=draw)
        yield "random", draw, backend.select(pool, stage).rows.tolist()
    yield "every n-th", 0, list(every_nth(Choice(pool, pool, bench.truth, n, 0)))
    for arm, stages in STAGES.items():
        kept = [min(_KEPT * n, len(pool))] * (len(stages) - 1) + [n]
        asked = [
            DetectionSampling.model_validate({**stage, "num_of_samples": many})
            for stage, many in zip(stages, kept, strict=True)
        ]
        yield arm, 0, backend.select(pool, asked).rows.tolist()


def measured(job: Job, draws: int) -> list[dict[str, Any]]:
    """Every first round on one pool."""
    bench = DigitBench(job)
    letters = pretrained_on_letters(letters_file(job.folder, job.plan), steps=job.plan.letters_steps)
    pool = extract(letters, DataLoader(bench.pool, batch_size=100, collate_fn=collate), progress=False)
    found = []
    for arm, draw, rows in choices(pool, bench, job.plan.start, draws):
        _, map50 = bench.train(rows)
        labels = [bench.truth.labels[row] for row in rows]
        counted = {"boxes": sum(map(len, labels)), "classes": len({each for some in labels for each in some.tolist()})}
        where = {"setting": job.setting, "pool": job.pool_seed, "arm": arm, "draw": draw}
        found.append({**where, **counted, "map50": round(map50, 4)})
    return found


def table_of(found: Sequence[dict[str, Any]]) -> str:
    """The mean of each arm over pools, and its difference to random's mean on the same pool with a 95 % interval."""
    settings = list(dict.fromkeys(each["setting"] for each in found))
    lines = ["| setting | arm | mAP@50 | difference to random | boxes | classes |", "|---|---|---|---|---|---|"]
    for setting in settings:
        here = [each for each in found if each["setting"] == setting]
        pools = sorted({each["pool"] for each in here})
        base = {p: fmean(e["map50"] for e in here if e["pool"] == p and e["arm"] == "random") for p in pools}
        for arm in dict.fromkeys(each["arm"] for each in here):
            runs = [each for each in here if each["arm"] == arm]
            of_pool = {pool: fmean(e["map50"] for e in runs if e["pool"] == pool) for pool in pools}
            mean, half = interval([of_pool[pool] - base[pool] for pool in pools])
            difference = "" if arm == "random" else f"{mean:+.3f} ± {half:.3f}"
            boxes, classes = (fmean(each[name] for each in runs) for name in ("boxes", "classes"))
            value = fmean(of_pool.values())
            lines.append(f"| {setting} | {arm} | {value:.3f} | {difference} | {boxes:.0f} | {classes:.1f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> str:
    """Run every pool, and print the table."""
    options = parse(arguments)
    plan = Plan()
    if options.tiny:
        plan = Plan(frames=60, test_frames=10, start=10, added=(), steps=2, letters_steps=2)
    pretrained_on_letters(letters_file(options.out, plan), steps=plan.letters_steps, progress=True)
    found: list[dict[str, Any]] = []
    for setting in options.settings:
        for number in range(1 if options.tiny else options.pools):
            job = Job(plan, setting, POOL_SEEDS_FROM + number, 0, (), options.random_draws, options.out)
            found += measured(job, options.random_draws)
            print(f"{setting}, pool {job.pool_seed} is done", flush=True)
            write_lines(found, options.out / "first_round.csv")
    table = table_of(found)
    print(table)
    return table


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    usual = ["realistic", "no_duplicates"]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=usual, help="kinds of pool (%(default)s)")
    parser.add_argument("--pools", type=int, default=5, help="pools of each setting (%(default)s)")
    parser.add_argument("--random-draws", type=int, default=3, help="random choices of each pool (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="one pool of 60 frames, untrained: seconds")
    parser.add_argument("--out", type=Path, default=Path("runs/first_round"), help="folder (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
