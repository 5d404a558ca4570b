"""How long it takes to score and rank a large pool, against reading its columns once.

    python examples/benchmarks/scoring.py                  # 1,000,000 frames of 20 boxes; needs about 4 GB
    python examples/benchmarks/scoring.py --frames 100000

Three times are compared on the same bytes:

- `read`: `tensor.sum()` over the column that the scores are made of, the least that any scoring can cost;
- `select`: `run_stages` on the pool, from the column to the ranked rows and their scores;
- `objects`: the same through one pydantic object a box and Python floats, as a client of the REST protocol without
  columns would do it; measured on fewer frames, and scaled up.

All are the best of several runs in one process, alternating. Memory beyond the columns is a few bytes a frame.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.service.protocol import BBoxScores, FramePrediction

BOXES = 20
CLASSES = 20
KEEP = 2000


def make_pool(frames: int, *, classes: int | None, seed: int = 0) -> Pool:
    """A pool of random scores, or of class vectors as a fairly sure detector gives them."""
    generator = torch.Generator().manual_seed(seed)
    boxes = frames * BOXES
    ids = [f"{row:07d}" for row in range(frames)]
    offsets = torch.arange(0, boxes + 1, BOXES)
    if classes is None:
        return Pool(ids, offsets, scores=torch.rand(boxes, generator=generator))
    probabilities = torch.empty(boxes, classes)
    for block in torch.split(probabilities, 2**16):
        block.copy_(torch.softmax(3 * torch.randn(block.shape, generator=generator), 1))
    return Pool(ids, offsets, probabilities=probabilities, activation="softmax")


def best_times(*functions: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each function, the least of several alternating runs."""
    best = [math.inf] * len(functions)
    for _ in range(repeats):
        for number, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            best[number] = min(best[number], time.perf_counter() - begin)
    return best


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


def report(pool: Pool, *, repeats: int, object_frames: int) -> None:
    """Print the three times and their ratios for every strategy and policy worth telling apart."""
    column = pool.scores if pool.probabilities is None else pool.probabilities
    if column is None:
        return
    few = pool.take(range(min(object_frames, len(pool))))
    (objects,) = best_times(lambda: select_by_objects(few, KEEP), repeats=1)
    objects *= len(pool) / len(few)
    print(f"\n{pool!r}: {column.nbytes / 1e6:,.0f} MB of numbers, {torch.get_num_threads()} thread(s)")
    print(f"  one object a box: {objects:.1f} s (scaled from {len(few)} frames)")
    for strategy, policy in [
        ("entropy", "max"),
        ("entropy", "sum"),
        ("entropy", "mean"),
        ("margin", "max"),
        ("least", "max"),
    ]:
        stage = DetectionSampling.model_validate(
            {"num_of_samples": KEEP, "selection_strategy": strategy, "bbox_selection_policy": policy}
        )
        read, select = best_times(column.sum, partial(run_stages, pool, stage), repeats=repeats)
        print(
            f"  {strategy:8} {policy:5} read {read * 1e3:7.1f} ms, select {select * 1e3:7.1f} ms: "
            f"{select / read:5.1f} times reading, {objects / select:6.0f} times faster than objects"
        )


def main() -> None:
    """Run both pools."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--object-frames", type=int, default=2000, help="frames to measure one object a box on")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for classes in (None, CLASSES):
        report(make_pool(options.frames, classes=classes), repeats=options.repeats, object_frames=options.object_frames)


if __name__ == "__main__":
    main()
