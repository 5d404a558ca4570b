"""How the objects of some frames divide among classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cval_torch.report.charts import ClassRow
from cval_torch.report.wording import ClassNames

MOST_CLASSES = 16
_TABLE_CLASSES = 2000


@dataclass(frozen=True)
class ClassShares:
    """The classes of several kinds of frames.

    Attributes:
        kinds: of frames, in order.
        rows: of every class, the most frequent in the first kind first.
        most: the greatest share.
    """

    kinds: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    most: float

    @property
    def drawn(self) -> tuple[ClassRow, ...]:
        """The first `MOST_CLASSES`."""
        return self.rows[:MOST_CLASSES]

    @property
    def listed(self) -> tuple[ClassRow, ...]:
        """Those that a table has room for."""
        return self.rows[:_TABLE_CLASSES]


def class_shares(counts: Mapping[str, Mapping[int, float]], names: ClassNames) -> ClassShares:
    """Compare the classes of several kinds of frames.

    Args:
        counts: by kind, the objects to be expected by label.
        names: of classes.
    """
    totals = {kind: sum(each.values()) for kind, each in counts.items()}
    labels = {label for each in counts.values() for label in each}

    def share(kind: str, label: int) -> float:
        return counts[kind].get(label, 0.0) / totals[kind] if totals[kind] > 0 else 0.0

    ordered = sorted(labels, key=lambda label: (*(-share(kind, label) for kind in counts), label))
    rows = tuple(
        ClassRow(names(label), tuple((kind, share(kind, label), each.get(label, 0.0)) for kind, each in counts.items()))
        for label in ordered
    )
    most = max((value for row in rows for _, value, _ in row.shares), default=0.0)
    return ClassShares(tuple(counts), rows, most)
