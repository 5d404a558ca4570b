"""How long it takes to score and rank a large pool, against reading its columns once.

    python examples/benchmarks/scoring.py                  # 1,000,000 frames of 20 boxes; needs about 4 GB
    python examples/benchmarks/scoring.py --frames 100000
    python examples/benchmarks/scoring.py --output examples/benchmarks/results/scoring.md

Every uncertainty and every policy is run on confidences alone and on vectors of 20 classes, on frames of 20 boxes each
and of 0 to 40 boxes. Two times are compared on the same bytes:

- `read`: `tensor.sum()` over the column that the scores are made of, the least that any scoring can cost;
- `select`: `run_stages` on the pool, from the column to the ranked rows and their scores.

Both are medians of several runs in one process, alternating, by the process clock. The table tells `select` over
`read`. As a third, entropy and `max` through one pydantic object a box and Python floats, as a client of the REST
protocol without columns would do it, is measured on fewer frames and scaled up. Memory beyond the columns is a few
bytes a frame.
"""

from __future__ import annotations

import argparse
import heapq
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.service.protocol import BBoxScores, FramePrediction

BOXES = 20
CLASSES = 20
KEEP = 2000
POLICIES = ("min", "max", "mean", "sum")


def make_pool(frames: int, *, classes: int | None, ragged: bool = False, seed: int = 0) -> Pool:
    """A pool of random scores, or of class vectors as a fairly sure detector gives them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 2 * BOXES + 1, (frames,), generator=generator) if ragged else torch.full((frames,), BOXES)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    boxes, ids = int(offsets[-1]), [f"{row:07d}" for row in range(frames)]
    if classes is None:
        return Pool(ids, offsets, scores=torch.rand(boxes, generator=generator))
    probabilities = torch.empty(boxes, classes)
    for block in torch.split(probabilities, 2**16):
        block.copy_(torch.softmax(3 * torch.randn(block.shape, generator=generator), 1))
    return Pool(ids, offsets, probabilities=probabilities, activation="softmax")


def median_times(*functions: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each function by the process clock, medians of several alternating runs after one to warm up."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, own in zip(functions, times, strict=True):
            begin = time.process_time()
            function()
            own.append(time.process_time() - begin)
    return [statistics.median(own[1:]) for own in times]


def select_by_objects(pool: Pool, keep: int) -> list[str]:
    """Entropy and max, box by box, through the payloads."""
    columns = pool.scores if pool.probabilities is None else pool.probabilities
    if columns is None:
        return []
    ranked = []
    for row, values in enumerate(columns.view(len(pool), BOXES, -1).tolist()):
        boxes = [
            BBoxScores(score=box[0]) if len(box) == 1 else BBoxScores(score=0.5, probabilities=box) for box in values
        ]
        frame = FramePrediction(frame_id=pool.frame_ids[row], predictions=boxes)
        ranked.append((-max(entropy_of(box) for box in frame.predictions or []), frame.frame_id))
    return [frame_id for _, frame_id in heapq.nsmallest(keep, ranked)]


def entropy_of(box: BBoxScores) -> float:
    """Entropy of one box over its greatest, by the definition."""
    score = box.score or 0.0
    values: Sequence[float] = box.probabilities or (score, 1 - score)
    return -sum(p * math.log2(p) for p in values if p > 0) / math.log2(len(values))


def report(pool: Pool, *, repeats: int) -> list[str]:
    """Lines of a table: `select` over `read`, for every strategy and policy."""
    column = pool.scores if pool.probabilities is None else pool.probabilities
    if column is None:
        return []
    strategies = ["least", "margin", "ratio", "entropy", *(["probability"] if pool.probabilities is None else [])]
    reads, rows = [], []
    for strategy in strategies:
        cells = []
        for policy in POLICIES:
            stage = DetectionSampling.model_validate(
                {"num_of_samples": KEEP, "selection_strategy": strategy, "bbox_selection_policy": policy}
            )
            read, select = median_times(column.sum, partial(run_stages, pool, stage), repeats=repeats)
            reads.append(read)
            cells.append(f"{select / read:.1f} ({select * 1e3:.0f} ms)")
        rows.append(f"| `{strategy}` | {' | '.join(cells)} |")
    least, most = int(pool.counts.min()), int(pool.counts.max())
    counts = f"{least}" if least == most else f"{least} to {most}"
    what = "confidences" if pool.probabilities is None else f"vectors of {pool.probabilities.shape[1]} classes"
    return [
        f"{len(pool):,} frames of {counts} boxes, {what}: {column.nbytes / 1e6:,.0f} MB, "
        f"read in {statistics.median(reads) * 1e3:.1f} ms",
        "",
        f"| strategy | {' | '.join(f'`{policy}`' for policy in POLICIES)} |",
        f"|---{'|---' * len(POLICIES)}|",
        *rows,
        "",
    ]


def report_objects(pool: Pool, *, frames: int, repeats: int) -> list[str]:
    """One line: the same choice by one object a box. The pool's frames must have as many boxes each."""
    few = pool.take(range(min(frames, len(pool))))
    stage = DetectionSampling(num_of_samples=KEEP, selection_strategy="entropy")
    (objects,) = median_times(lambda: select_by_objects(few, KEEP), repeats=1)
    (select,) = median_times(partial(run_stages, pool, stage), repeats=repeats)
    objects *= len(pool) / len(few)
    return [
        f"By one object a box, `entropy` and `max` take {objects:.0f} s (scaled from {len(few):,} frames), "
        f"{objects / select:,.0f} times as long.",
        "",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the pools one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--object-frames", type=int, default=2000, help="frames to measure one object a box on")
    parser.add_argument("--output", type=Path, help="a Markdown file for the tables")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    lines = [
        "# Ranking a pool, against reading its column once",
        "",
        f"    python examples/benchmarks/scoring.py --frames {options.frames} --repeats {options.repeats}",
        "",
        f"The {KEEP:,} best frames, with {options.threads} thread(s) and torch {torch.__version__}. Cells: how many",
        "times as long as one read of the column it takes to rank the pool, and milliseconds by the process clock.",
        "",
    ]
    print("\n".join(lines))
    for classes in (None, CLASSES):
        for ragged in (False, True):
            pool = make_pool(options.frames, classes=classes, ragged=ragged)
            part = report(pool, repeats=options.repeats)
            if not ragged:
                part += report_objects(pool, frames=options.object_frames, repeats=options.repeats)
            print("\n".join(part), flush=True)
            lines += part
            del pool
    if options.output is not None:
        options.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
