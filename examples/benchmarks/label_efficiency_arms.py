"""The arms of `label_efficiency.py`: the library's strategies, and three references to measure them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cval_torch import DetectionSampling, LocalBackend, Pool, max_zscore


class Truth(Protocol):
    """Frames with their labels: what `DigitFrames` and `RealFrames` have in common."""

    boxes: list[Tensor]
    labels: list[Tensor]
    sequences: Tensor
    frame_ids: list[str]
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """What an arm may look at. Only the oracle looks at `truth`.

    Attributes:
        pool: what the detector said of the frames not yet labelled, in the order of the videos; their names alone for
            a reference, which does not ask the detector.
        labeled: the same of those that are.
        truth: all frames with their labels; `pool.indices` and `labeled.indices` are its rows.
        n: frames to choose.
        seed: of the draw.
    """

    pool: Pool
    labeled: Pool
    truth: Truth
    n: int
    seed: int

    def counts(self) -> dict[int, int]:
        """Annotated objects by class."""
        assert self.labeled.indices is not None
        found = torch.cat([self.truth.labels[row] for row in self.labeled.indices.tolist()])
        return dict(enumerate(found.bincount(minlength=len(self.truth.classes)).tolist()))


Arm = Callable[[Choice], Sequence[int]]
"""Chooses n rows of `Choice.pool`."""


def staged(*stages: tuple[Any, int, dict[str, Any]], labeled: bool = False) -> Arm:
    """An arm of the library's stages: (strategy, how many times n it keeps, options).

    With `labeled` it knows what is annotated: what the detector says of those frames, and what annotators counted.
    """

    def choose(choice: Choice) -> Sequence[int]:
        asked = [
            DetectionSampling(
                selection_strategy=name,
                num_of_samples=min(times * choice.n, len(choice.pool)),
                seed=choice.seed,
                **options,
            )
            for name, times, options in stages
        ]
        backend = LocalBackend()
        if labeled:
            backend = LocalBackend(labeled=choice.labeled, labeled_counts=choice.counts())
        rows: list[int] = backend.select(choice.pool, asked).rows.tolist()
        return rows

    return choose


def every_nth(choice: Choice) -> Sequence[int]:
    """Frames at equal distances, in the order of the videos; the seed shifts where it begins."""
    offset = choice.seed % 97 / 97
    return [int((number + offset) * len(choice.pool) / choice.n) for number in range(choice.n)]


def oracle(choice: Choice) -> Sequence[int]:
    """Cheats: reads the labels. Each time the frame with most of the classes that are labelled least, from a sequence
    that no chosen frame is from, as long as there is one.
    """
    assert choice.pool.indices is not None
    assert choice.labeled.indices is not None
    truth = choice.truth
    known = choice.labeled.indices.tolist()
    rows = choice.pool.indices.tolist()
    shown = torch.stack([each.bincount(minlength=len(truth.classes)) for each in truth.labels]).float()
    counts = shown[known].sum(0) + 1
    sequences, shown = truth.sequences[rows], shown[rows]
    fresh = ~torch.isin(sequences, truth.sequences[known])
    free, chosen = torch.ones(len(rows), dtype=torch.bool), list[int]()
    for _ in range(choice.n):
        may = free & fresh
        gains = torch.where(may if may.any() else free, (shown / counts).sum(1), -1)
        best = int(gains.argmax())
        chosen.append(best)
        free[best] = False
        fresh &= sequences != sequences[best]
        counts += shown[best]
    return chosen


def most_boxes(choice: Choice) -> Sequence[int]:
    """What people do by hand: the frames with most detections above 0.3 first, others of as many by lot."""
    pool = choice.pool
    assert pool.scores is not None
    clear = torch.zeros(len(pool), device=pool.device).index_add_(0, pool.frame_rows, (pool.scores > 0.3).float())
    lot = torch.rand(len(pool), generator=torch.Generator().manual_seed(choice.seed)).to(pool.device)
    rows: list[int] = (clear + 0.5 * lot).argsort(descending=True)[: choice.n].tolist()
    return rows


_DOUBT: dict[str, Any] = {"null_policy": "last"}
_SUM = _DOUBT | {"bbox_selection_policy": "sum"}
_MAX = _DOUBT | {"bbox_selection_policy": "max"}
_BALANCED: dict[str, Any] = {"class_weights": "balanced"}

REFERENCES: dict[str, Arm] = {
    "random": staged(("random", 1, {})),
    "every n-th": every_nth,
    "oracle (cheats)": oracle,
}
STRATEGIES: dict[str, Arm] = {
    "auto": staged(("auto", 1, {}), labeled=True),
    "entropy sum, weighted_kmeans": staged(("entropy", 4, _SUM), ("weighted_kmeans", 1, {}), labeled=True),
    "entropy, max": staged(("entropy", 1, _MAX)),
    "entropy, sum": staged(("entropy", 1, _SUM)),
}
MORE_STRATEGIES: dict[str, Arm] = {
    "most boxes": most_boxes,
    "balanced entropy sum, weighted_kmeans": staged(
        ("entropy", 4, _SUM | _BALANCED), ("weighted_kmeans", 1, {}), labeled=True
    ),
    "entropy sum, ppal": staged(("entropy", 4, _SUM), ("ppal", 1, {}), labeled=True),
    "entropy sum, diverse_prototypes": staged(("entropy", 4, _SUM), ("diverse_prototypes", 1, {}), labeled=True),
    "entropy sum, kmeans_plus_plus": staged(("entropy", 4, _SUM), ("kmeans_plus_plus", 1, {}), labeled=True),
    "k_center": staged(("k_center", 1, {}), labeled=True),
    "typicality": staged(("typicality", 1, {}), labeled=True),
    "facility_location": staged(("facility_location", 1, {}), labeled=True),
    "clustering": staged(("clustering", 1, {})),
    "hierarchical": staged(("hierarchical", 1, {})),
    "margin, max": staged(("margin", 1, _MAX)),
    "least, max": staged(("least", 1, _MAX)),
    "z-score maximum": staged((max_zscore(("entropy", "sum"), ("margin", "max")), 1, {})),
}


def all_arms() -> dict[str, Arm]:
    """Every arm by name."""
    return REFERENCES | STRATEGIES | MORE_STRATEGIES
