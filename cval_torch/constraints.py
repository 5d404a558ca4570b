"""What bounds the choice of a stage beside its number of frames: distances, quotas of classes, and budgets."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cval_torch.costs import SHOWN, estimated_boxes, total, within
from cval_torch.diversity.spacing import Spacing
from cval_torch.errors import InvalidInputError
from cval_torch.pool import Pool
from cval_torch.ranking import stage_name
from cval_torch.wire import DetectionSampling

_FIRST_RANKS = 1024

Rows = npt.NDArray[np.int64]


class RankedRows:
    """The frames of a stage that ranks, in the order in which it takes them, worked out as far as anyone asks.

    That is the rank order; but frames for a quota come before others, and near-duplicates after all others.

    Args:
        pool: F frames.
        stage: says which distance and quotas to keep.
        ranked: gives so many rows of the pool in rank order, the first of them first.
        count: how many rows can be had.
        labeled: frames to keep the distance from, too.
    """

    def __init__(
        self,
        pool: Pool,
        stage: DetectionSampling,
        ranked: Callable[[int], Tensor],
        count: int,
        *,
        labeled: Pool | None = None,
    ) -> None:
        self._pool, self._stage, self._ranked, self._count = pool, stage, ranked, count
        distance = stage.min_distance
        self._spacing = None if distance is None else Spacing(pool, distance, labeled=labeled)
        self._rows: list[int] = []
        self._ranks: dict[int, int] = {}
        self._source = self._by_rank() if distance is None and stage.class_quotas is None else self._by_rules()

    def first(self, n: int) -> Tensor:
        """The first `n` rows to be taken, (n,) int64: by rank, near-duplicates after the others."""
        self._rows += itertools.islice(self._source, max(n - len(self._rows), 0))
        rows = self._rows[:n]
        if self._ranks:
            rows.sort(key=self._ranks.__getitem__)
        return torch.tensor(rows, dtype=torch.int64, device=self._pool.device)

    def _by_rank(self) -> Iterator[int]:
        done, asked = 0, _FIRST_RANKS
        while done < self._count:
            rows = self._ranked(min(asked, self._count)).tolist()
            yield from rows[done:]
            done, asked = len(rows), 4 * asked

    def _by_rules(self) -> Iterator[int]:
        ranking: Rows = self._ranked(self._count).cpu().numpy()
        self._ranks = dict(zip(ranking.tolist(), range(len(ranking)), strict=True))
        open_ = np.ones(len(self._pool), dtype=bool)
        for shows, quota in self._quotas(ranking):
            missing = quota - int((shows & ~open_).sum())
            for row in itertools.islice(self._far(ranking[(shows & open_)[ranking]]), max(missing, 0)):
                open_[row] = False
                yield row
        for row in self._far(ranking[open_[ranking]]):
            open_[row] = False
            yield row
        for row in ranking[open_[ranking]].tolist():
            self._ranks[row] += len(ranking)
            yield row

    def _far(self, rows: Rows) -> Iterator[int]:
        if self._spacing is None:
            return iter(rows.tolist())
        return self._spacing.pass_over(torch.from_numpy(rows).to(self._pool.device))

    def _quotas(self, ranking: Rows) -> list[tuple[npt.NDArray[np.bool_], int]]:
        """(F,) whether a frame shows a class, and its quota, the rarest class first, then by label."""
        wanted = self._stage.class_quotas or {}
        shown = {label: shows_class(self._pool, label).cpu().numpy() for label in wanted}
        by_rarity = sorted(wanted, key=lambda label: (int(shown[label][ranking].sum()), label))
        return [(shown[label], wanted[label]) for label in by_rarity]


def shows_class(pool: Pool, label: int) -> Tensor:
    """(F,) bool, whether half an object of the class or more is to be expected in a frame; `labels` must be there."""
    return estimated_boxes(pool, label=label) >= SHOWN


def filled(spacing: Spacing, rows: Tensor, n: int) -> Tensor:
    """The first `n` of `rows` that are far enough from one another, then, if these are fewer, of the others."""
    far = list(itertools.islice(spacing.pass_over(rows), n))
    taken = set(far)
    rest = itertools.islice((row for row in rows.tolist() if row not in taken), n - len(far))
    return torch.tensor([*far, *rest], dtype=torch.int64, device=rows.device)


def check_columns(pool: Pool, stage: DetectionSampling) -> None:
    """Raise an `InvalidInputError` if the pool has boxes and lacks the `labels` that quotas need."""
    if stage.class_quotas is not None and pool.labels is None and pool.num_boxes:
        raise InvalidInputError("`class_quotas` need the column `labels`, which extract() and `category_id` give")


def warn_of_choice(
    pool: Pool, stage: DetectionSampling, rows: Tensor, *, labeled: Pool | None = None, stacklevel: int
) -> None:
    """Say so if the (n,) chosen rows do not keep what the stage asks for, at the caller `stacklevel` frames up."""
    if not stage.constrained:
        return
    chosen, problems = pool.take(rows), []
    if stage.num_of_boxes is not None and not within(costs := estimated_boxes(chosen), stage.num_of_boxes):
        problems.append(f"keeps about {total(costs):.4g} boxes: more than num_of_boxes={stage.num_of_boxes:g}")
    if stage.min_distance is not None:
        in_order = torch.arange(len(chosen), device=chosen.device)
        far = sum(1 for _ in Spacing(chosen, stage.min_distance, labeled=labeled).pass_over(in_order))
        if far < len(chosen):
            problems.append(f"fills up with frames nearer than min_distance={stage.min_distance:g}: too few are apart")
    for label, quota in (stage.class_quotas or {}).items():
        if (shown := int(shows_class(chosen, label).sum())) < quota:
            problems.append(f"keeps {shown} frames of class {label}: fewer than the {quota} of class_quotas")
    for problem in problems:
        warnings.warn(f"the stage {stage_name(stage)!r} {problem}", UserWarning, stacklevel=stacklevel)
