"""The arms of `label_efficiency.py`: the library's strategies, and three references to measure them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cval_torch import DetectionSampling, LocalBackend, Pool, max_zscore
from digits_on_photos import DigitFrames


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
    truth: DigitFrames
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
    counts = torch.ones(len(truth.classes))
    for index in known:
        counts.index_add_(0, truth.labels[index], torch.ones(len(truth.labels[index])))
    seen = set(truth.sequences[known].tolist())
    left, chosen = list(range(len(rows))), []
    for _ in range(choice.n):
        fresh = [row for row in left if int(truth.sequences[rows[row]]) not in seen] or left
        gains = [float((1 / counts[truth.labels[rows[row]]]).sum()) for row in fresh]
        best = fresh[max(range(len(fresh)), key=gains.__getitem__)]
        chosen.append(best)
        left.remove(best)
        labels = truth.labels[rows[best]]
        counts.index_add_(0, labels, torch.ones(len(labels)))
        seen.add(int(truth.sequences[rows[best]]))
    return chosen


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
