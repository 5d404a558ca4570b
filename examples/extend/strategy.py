"""A strategy of your own, in the two ways there are. About half a minute; extra [examples].

    python examples/extend/strategy.py

1. A callable, `Pool -> (F,)` scores, higher = more informative. Pass it as `selection_strategy=`. Here it is
   `small_objects`: frames whose boxes are small.
2. A named strategy, which stages, budgets and `compare` know like any other. It is a function and one record in the
   registry. Here it is `farthest_from_mean`: frames that are unlike the average frame.

A strategy that belongs into the library is the same: one file in `cval_torch/strategies/`, one row in `registry.py`,
and one test. CONTRIBUTING.md shows where they go.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, LocalBackend, Pool, extract
from cval_torch.strategies import STRATEGIES, Strategy
from digits_on_photos import PoolSettings, pool_frames
from small_detector import collate, detector_of_digits, letters_as_shipped


def small_objects(pool: Pool) -> Tensor:
    """(F,) minus the area of the smallest box, in square pixels; frames without boxes come last."""
    assert pool.boxes is not None
    areas = (pool.boxes[:, 2] - pool.boxes[:, 0]) * (pool.boxes[:, 3] - pool.boxes[:, 1])
    smallest = torch.full((len(pool),), 1e9).scatter_reduce(0, pool.frame_rows, areas, "amin")
    return -smallest


def farthest_from_mean(
    embeddings: Tensor, n: int, *, seed: int, labeled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """The rows that are farthest from the mean of all.

    Args:
        embeddings: (N, D), one vector a frame.
        n: frames to choose, 1 to N.
        seed: not used.
        labeled: not used.
        weights: not used.

    Returns:
        (n,) int64 distinct rows, the farthest first; equally far ones by row.
    """
    distances: Tensor = torch.linalg.vector_norm(embeddings - embeddings.mean(0), dim=1)
    return distances.argsort(descending=True, stable=True)[:n]


STRATEGIES["farthest_from_mean"] = Strategy(
    name="farthest_from_mean",
    sees="vectors",
    function=farthest_from_mean,
    needs=(("box_embeddings", "frame_embeddings"),),
    served="in process",
    greedy=True,  # the choice of n frames begins with the choice of fewer
)


def main(*, frames: int = 400) -> list[tuple[str, ...]]:
    """Choose eight frames in each way; returns their ids."""
    dataset = pool_frames(PoolSettings(frames=frames))
    detector = detector_of_digits(letters_as_shipped())
    pool = extract(detector, DataLoader(dataset, batch_size=64, collate_fn=collate))
    stages = {
        "a callable": DetectionSampling(selection_strategy=small_objects, num_of_samples=8),
        "by its name": DetectionSampling(selection_strategy="farthest_from_mean", num_of_samples=8),
        "by its name, within a budget": DetectionSampling(selection_strategy="farthest_from_mean", num_of_boxes=12),
    }
    chosen = []
    for way, stage in stages.items():
        selection = LocalBackend().select(pool, stage)
        print(f"{way}: {selection}\n  {', '.join(selection.frame_ids)}")
        chosen.append(selection.frame_ids)
    return chosen


if __name__ == "__main__":
    main()
