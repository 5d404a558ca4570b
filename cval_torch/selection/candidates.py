"""`Candidates`: of frames that come batch by batch, those that a stage can still choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cval_torch.errors import CvalError, InvalidInputError
from cval_torch.pool.offsets import rows_in_parts
from cval_torch.pool.pool import Pool
from cval_torch.selection.costs import budgets
from cval_torch.selection.null_policy import sets_apart
from cval_torch.selection.order import order_of_ids
from cval_torch.selection.ranking import rank_some
from cval_torch.selection.scored import Scored
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.descriptor import Descriptors

# Frames that cannot be chosen any more are let go once so many have come beside twice those that can.
_SPARE = 256
# More than sums of costs in another order may differ.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Predicted:
    """What is kept of F frames for later stages, and to show what the detector said of them.

    Attributes:
        pool: the frames, with the columns that are asked for again.
        vectors: where they lie, for a later stage that sees vectors, or keeps a `min_distance`.
        contents: for a later stage that sees these.
    """

    pool: Pool
    vectors: Descriptors | None = None
    contents: Contents | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, about."""
        size = sum(column.nbytes for _, column in self.pool.columns())
        size += 0 if self.vectors is None else self.vectors.looks.nbytes
        return size if self.contents is None else size + self.contents.descriptors.looks.nbytes

    @classmethod
    def cat(cls, parts: list[Predicted]) -> Predicted:
        """One after another, the frames of one or more parts."""
        vectors = [part.vectors.copied() for part in parts if part.vectors is not None]
        contents = [part.contents.copied() for part in parts if part.contents is not None]
        return cls(
            Pool.cat([part.pool for part in parts]),
            Descriptors.cat(vectors) if vectors else None,
            Contents.cat(contents) if contents else None,
        )

    def take(self, rows: Tensor) -> Predicted:
        """The frames at (n,) int64 rows, in that order."""
        return replace(self.take_vectors(rows), pool=self.pool.take(rows))

    def take_vectors(self, rows: Tensor) -> Predicted:
        """The same, but with the pool as it is."""
        return replace(
            self,
            vectors=None if self.vectors is None else self.vectors.take(rows).copied(),
            contents=None if self.contents is None else self.contents.take(rows).copied(),
        )


class Candidates:
    """Frames that a stage can still choose, whatever is yet to come.

    Args:
        stage: one that scores frames by their own boxes.
    """

    def __init__(self, stage: DetectionSampling) -> None:
        self._stage = stage
        self._parts: list[tuple[Tensor, Scored, Predicted]] = []
        self._held, self._needed, self._come = 0, 0, 0

    def add(self, scored: Scored, read: Callable[[], Predicted]) -> None:
        """Take a batch in.

        Args:
            scored: its frames, scored for the stage.
            read: gives what is to be kept of them.
        """
        rows = torch.arange(self._come, self._come + len(scored))
        self._come += len(scored)
        if len(scored) == 0:
            return
        self._parts.append((rows, scored, read()))
        self._held += len(scored)
        if self._held > 2 * self._needed + _SPARE:
            self._let_go()

    def most_bytes(self, frames: int) -> float:
        """Bytes of as many as may be held at a time of so many frames, by those that are held now; about."""
        if not self._held:
            return 0.0
        held = sum(predicted.nbytes for _, _, predicted in self._parts)
        wanted = self._needed if self._stage.num_of_samples is None else self._stage.num_of_samples
        return held / self._held * min(3 * wanted + _SPARE, frames)

    def take(self, rows: Tensor) -> Predicted:
        """The frames that came as number `rows` (n,), in that order. They must be candidates."""
        if not self._parts:
            raise InvalidInputError("`loader` must yield at least one frame; got none")
        held = torch.cat([part for part, _, _ in self._parts])
        places = torch.searchsorted(held, rows).clamp_(max=max(len(held) - 1, 0))
        if not torch.equal(held[places], rows):
            raise CvalError("a frame was let go that has been chosen; this is a fault of cval_torch")
        order = places.argsort(stable=True)
        mine = rows_in_parts(places[order], [len(part) for part, _, _ in self._parts])
        parts = [part.take(some) for (_, _, part), some in zip(self._parts, mine, strict=True) if len(some)]
        found = Predicted.cat(parts) if parts else self._parts[0][2].take(rows)
        return found.take(order.argsort()) if len(rows) else found

    def _let_go(self) -> None:
        scored = Scored.cat([part for _, part, _ in self._parts])
        kept = still_possible(scored, self._stage)
        if len(kept) < self._held:
            self._parts = [self._picked(kept, scored)]
        self._held = self._needed = len(kept)

    def _picked(self, kept: Tensor, scored: Scored) -> tuple[Tensor, Scored, Predicted]:
        rows, parts = [], []
        of_parts = rows_in_parts(kept, [len(part) for part, _, _ in self._parts])
        for (part, _, predicted), mine in zip(self._parts, of_parts, strict=True):
            rows.append(part[mine])
            if len(mine):
                parts.append(predicted if len(mine) == len(part) else predicted.take(mine))
        nothing = self._parts[0][2].take(kept[:0])
        return torch.cat(rows), scored.take(kept), Predicted.cat(parts) if parts else nothing


def still_possible(scored: Scored, stage: DetectionSampling) -> Tensor:
    """The rows that a stage may choose of these frames and others that are yet to come.

    - By rank: the best `num_of_samples`, or as far as the budget goes; others only add frames before those.
    - For quotas: of each class the best, as many as its quota.
    - Of frames that a `null_policy` sets apart, all under `sample`, and under `last` the first by id.

    Args:
        scored: frames, at least one, scored for the stage.
        stage: one that scores frames by their own boxes.

    Returns:
        (m,) int64 rows, rising.
    """
    possible = torch.zeros(len(scored), dtype=torch.bool)
    apart = scored.is_empty if sets_apart(stage) else torch.zeros_like(possible)
    running = (~scored.scores.isnan() & ~apart).nonzero().squeeze(1)
    for label, quota in (stage.class_quotas or {}).items():
        showing = running[scored.shown[label][running]]
        possible[_best(scored, stage, showing, quota)] = True
    ranked = _best(scored, stage, running, stage.num_of_samples)
    if scored.costs is not None:
        in_reach = torch.ones_like(ranked, dtype=torch.bool)
        for each, budget in budgets(stage, scored.costs[ranked]):
            # what quotas may have taken is not counted here: it need not be in the choice
            costs = each.masked_fill(possible[ranked], 0)
            in_reach &= costs.cumsum(0) - costs <= budget * (1 + _ROUNDING)
        ranked = ranked[in_reach]
    possible[ranked] = True
    set_apart = apart.nonzero().squeeze(1)
    if stage.null_policy == "last" and stage.num_of_samples is not None:
        set_apart = set_apart[order_of_ids(scored.frame_ids, set_apart)[: stage.num_of_samples]]
    if stage.null_policy != "skip":
        possible[set_apart] = True
    return possible.nonzero().squeeze(1)


def _best(scored: Scored, stage: DetectionSampling, rows: Tensor, n: int | None) -> Tensor:
    """The first n of some rows by rank; all, if n is None."""
    if len(rows) == 0:
        return rows
    n = len(rows) if n is None else min(n, len(rows))
    best = rank_some(rows, scored.scores, scored.frame_ids, n, descending=stage.descending)
    return torch.tensor(best, dtype=torch.int64)
