"""What bounds the choice of a stage beside its number of frames: distances, quotas of classes, and budgets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.costs import SHOWN, affordable, budgets, estimated_boxes, largest_fitting, total, within
from cval_torch.selection.null_policy import SetApart
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling

_FIRST_RANKS = 1024

Rows = npt.NDArray[np.int64]


class RankedRows:
    """The frames of a stage that ranks, in the order in which it takes them, worked out as far as anyone asks.

    That is the rank order; but frames for a quota come before others, and near-duplicates after all others.

    Args:
        shown: by label, (F,) bool, whether a frame shows the class; of the labels in `class_quotas`.
        stage: says which distance and quotas to keep.
        ranked: gives so many rows in rank order, the first of them first.
        apart: the frames that are set apart; the others can be had.
        new_spacing: makes what keeps the `min_distance`, if the stage has one.
    """

    def __init__(
        self,
        shown: Mapping[int, Tensor],
        stage: DetectionSampling,
        ranked: Callable[[int], Tensor],
        apart: SetApart,
        *,
        new_spacing: Callable[[], Spacing] | None = None,
    ) -> None:
        self._shown, self._ranked = shown, ranked
        self._count, self._frames = apart.num_competing, apart.frames
        self._wanted = stage.class_quotas or {}
        self._spacing = None if new_spacing is None else new_spacing()
        self._rows: list[int] = []
        self._ranks: dict[int, int] = {}
        self._device = ranked(0).device
        self._source = self._by_rules() if self._wanted or self._spacing is not None else self._by_rank()

    def first(self, n: int) -> Tensor:
        """The first `n` rows to be taken, (n,) int64: by rank, near-duplicates after the others."""
        self._rows += itertools.islice(self._source, max(n - len(self._rows), 0))
        rows = self._rows[:n]
        if self._ranks:
            rows.sort(key=self._ranks.__getitem__)
        return torch.tensor(rows, dtype=torch.int64, device=self._device)

    def _by_rank(self) -> Iterator[int]:
        done, asked = 0, _FIRST_RANKS
        while done < self._count:
            rows = self._ranked(min(asked, self._count)).tolist()
            yield from rows[done:]
            done, asked = len(rows), 4 * asked

    def _by_rules(self) -> Iterator[int]:
        ranking: Rows = self._ranked(self._count).cpu().numpy()
        self._ranks = dict(zip(ranking.tolist(), range(len(ranking)), strict=True))
        open_ = np.ones(self._frames, dtype=bool)
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
        return self._spacing.pass_over(torch.from_numpy(rows).to(self._device))

    def _quotas(self, ranking: Rows) -> list[tuple[npt.NDArray[np.bool_], int]]:
        """Whether a row shows a class, and the quota of the class, the rarest class first, then by label."""
        rows = torch.from_numpy(ranking).to(self._device)
        found = quotas_by_rarity(self._shown, self._wanted, rows)
        return [(shows.cpu().numpy(), quota) for shows, quota in found]


def quotas_by_rarity(shown: Mapping[int, Tensor], quotas: Mapping[int, int], rows: Tensor) -> list[tuple[Tensor, int]]:
    """(F,) bool, which frames show a class, and its quota: the class that is rarest among some rows first.

    Args:
        shown: by label, (F,) bool.
        quotas: by label.
        rows: (n,) int64.
    """
    by_rarity = sorted(quotas, key=lambda label: (int(shown[label][rows].sum()), label))
    return [(shown[label], quotas[label]) for label in by_rarity]


def rows_within(
    first: Callable[[int], Tensor],
    apart: SetApart,
    stage: DetectionSampling,
    *,
    costs: Tensor | None,
    new_spacing: Callable[[], Spacing] | None = None,
) -> tuple[Tensor, Tensor]:
    """The rows of a choice: those that competed, and those set apart that follow them.

    Args:
        first: gives so many competing rows, those that are taken first.
        apart: the frames that are set apart.
        stage: says how many frames, boxes or minutes, and which distance to keep.
        costs: (F,) the boxes to be expected in each frame; needed where the stage has a budget.
        new_spacing: makes what keeps the `min_distance`, if the stage has one.
    """
    n = apart.frames if stage.num_of_samples is None else min(stage.num_of_samples, apart.frames)
    if stage.budget_fields and costs is not None:
        guesses = (budget / max(float(each.mean()), 1e-9) for each, budget in budgets(stage, costs))
        n = largest_fitting(partial(_fits, first, apart, costs, stage), n, guess=int(min(n, *guesses)))
    competing, following = apart.split(n)
    rows, filling = first(competing), apart.rows
    if new_spacing is not None and following:
        spacing = new_spacing()
        spacing.take(rows)
        filling = filled(spacing, filling, following)
    return rows, filling[:following]


def _fits(first: Callable[[int], Tensor], apart: SetApart, costs: Tensor, stage: DetectionSampling, n: int) -> bool:
    competing, following = apart.split(n)
    rows = first(competing)
    return affordable(stage, torch.cat([costs[rows], costs.new_zeros(following)]))


def shows_class(pool: Pool, label: int) -> Tensor:
    """(F,) bool, whether half an object of the class or more is to be expected in a frame; `labels` must be there."""
    return estimated_boxes(pool, label=label) >= SHOWN


def filled(spacing: Spacing, rows: Tensor, n: int) -> Tensor:
    """The first `n` of `rows` that are far enough from one another, then, if these are fewer, of the others."""
    far = list(itertools.islice(spacing.pass_over(rows), n))
    taken = set(far)
    rest = itertools.islice((row for row in rows.tolist() if row not in taken), n - len(far))
    return torch.tensor([*far, *rest], dtype=torch.int64, device=rows.device)


def check_labels(pool: Pool, stage: DetectionSampling) -> None:
    """Raise an `InvalidInputError` if the pool has boxes and lacks the `labels` that quotas need."""
    if stage.class_quotas is not None and pool.labels is None and pool.num_boxes:
        raise InvalidInputError("`class_quotas` need the column `labels`, which extract() and `category_id` give")


def bounds_of(pool: Pool, stage: DetectionSampling) -> tuple[Tensor | None, dict[int, Tensor]]:
    """What the bounds of a stage look at.

    Returns:
        (F,) the boxes to be expected in each frame, None without a budget; and by label of `class_quotas`, (F,) bool,
        whether a frame shows the class.
    """
    costs = estimated_boxes(pool) if stage.budget_fields else None
    return costs, {label: shows_class(pool, label) for label in stage.class_quotas or ()}


def remarks_on_bounds(
    rows: Tensor,
    stage: DetectionSampling,
    *,
    costs: Tensor | None,
    shown: Mapping[int, Tensor],
    new_spacing: Callable[[], Spacing] | None = None,
) -> list[str]:
    """What to say where the (n,) chosen rows do not keep the bounds of a stage; arguments as for `rows_within`."""
    remarks = []
    if costs is not None:
        for name, (each, budget) in zip(stage.budget_fields, budgets(stage, costs[rows]), strict=True):
            if not within(each, budget):
                unit = name.removeprefix("num_of_")
                remarks.append(f"keeps about {total(each):.4g} {unit}: more than {name}={budget:g}")
    if stage.min_distance is not None and new_spacing is not None:
        far = sum(1 for _ in new_spacing().pass_over(rows))
        if far < len(rows):
            remarks.append(f"fills up with frames nearer than min_distance={stage.min_distance:g}: too few are apart")
    for label, quota in (stage.class_quotas or {}).items():
        if (found := int(shown[label][rows].sum())) < quota:
            remarks.append(f"keeps {found} frames of class {label}: fewer than the {quota} of class_quotas")
    return remarks
