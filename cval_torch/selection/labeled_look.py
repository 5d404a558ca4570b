"""`LabeledLook`: annotated frames that come batch by batch, of which nothing is kept that no stage will look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cval_torch.errors import InvalidInputError
from cval_torch.pool.gathering import gather_pools, gather_rows, same_layout
from cval_torch.pool.layout import Gathered, Layout
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.columns import columns_read
from cval_torch.selection.labeled import Labeled
from cval_torch.selection.scored import Scored
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.summary import GrowingSummary, Scattered, Summary
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.columns import DESCRIBED
from cval_torch.strategies.descriptor import Descriptors
from cval_torch.strategies.registry import find_strategy

COUNTED = ("labels", "scores")
"""The columns that objects are counted by."""


class LabeledLook:
    """Takes in annotated frames, and keeps of them what stages look at.

    Of a frame stays one vector, unless a stage compares single boxes: then the columns stay that it reads.

    Args:
        stages: the stages, some of which look at annotated frames. None: no stage does.
        counted: whether the objects of the frames are going to be counted by class, for which labels and scores stay.

    Attributes:
        columns: the columns that have to be given; others may be given, and are let go.
        num_frames: how many frames have come.
    """

    def __init__(self, stages: Sequence[DetectionSampling] = (), *, counted: bool = False) -> None:
        seen = [(find_strategy(stage.selection_strategy).sees, stage) for stage in stages]
        spaced = any(stage.min_distance is not None for stage in stages)
        self._vectors = spaced or any(sees == "vectors" for sees, _ in seen)
        self._contents = any(sees == "contents" for sees, _ in seen)
        kept = {column for sees, stage in seen if sees == "boxes" for column in columns_read(stage)}
        self._kept = kept.union(COUNTED if counted else ())
        read = {column for sees, stage in seen if sees == "contents" for column in columns_read(stage)}
        self.columns = frozenset(self._kept.union(read, DESCRIBED if self._vectors else ()))
        self.num_frames = 0
        self._layout: Layout | None = None
        self._gathered, self._growing = Gathered(), GrowingSummary()

    def add(self, pool: Pool) -> None:
        """Take in a batch.

        Raises:
            InvalidInputError: a missing column; or other columns, or other widths, than the batches before it.
        """
        pool = pool.only(self.columns)
        layout = Layout.of(pool)
        (self._layout or layout).check_same(layout)
        self._layout = layout
        self.num_frames += len(pool)
        if self._kept:
            self._gathered.add(pool.only(self._kept))
        if self._vectors or self._contents:
            self._growing.add(self._summary(pool))

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, about."""
        return self._gathered.nbytes + self._growing.nbytes

    def _summary(self, pool: Pool) -> Summary:
        unscored = torch.tensor(torch.nan, dtype=torch.float64).expand(len(pool))
        return Summary(
            Scored(pool.frame_ids, pool.is_empty, unscored, ids_from=pool.ids_from),
            Descriptors.of(pool, part=True) if self._vectors else None,
            Contents.of(pool, part=True, name="labeled") if self._contents else None,
        )

    def labeled(self, places: Sequence[int], ranks: Ranks) -> Labeled:
        """All frames, in every process; every process must call this. Nothing can be taken in after that.

        Args:
            places: for each frame that this process has, its row in the whole; of one process they are 0, 1, 2, ...
            ranks: the processes.

        Raises:
            InvalidInputError: no process has a frame; an id twice.
            RankError: another process failed.
        """
        pool = summary = None
        if self._kept:
            own = ranks.exchange_local(lambda: self._gathered.pool() if self.num_frames else None)
            share = same_layout(own, ranks)
            pool = share if ranks.size == 1 else gather_pools(share, places, ranks)
        if self._vectors or self._contents:
            growing = ranks.exchange_local(lambda: self._growing.join() if self.num_frames else None)
            summary = gather_summaries(growing, places, ranks)
        if summary is None:
            if pool is None:
                raise InvalidInputError("`loader` must yield at least one frame; got none")
            return Labeled(pool.frame_ids, pool=pool)
        return Labeled(summary.scored.frame_ids, summary.vectors, summary.contents, pool)


def gather_summaries(own: Summary | None, places: Sequence[int], ranks: Ranks) -> Summary | None:
    """Bring the summaries of all processes together, in all of them; every process must call this.

    Args:
        own: of this process's frames, without a pool; None if it has none.
        places: for each of its frames the row in the whole; of one process they are 0, 1, 2, ...
        ranks: the processes.

    Returns:
        Of all frames, in the order of the whole; None if no process has one.

    Raises:
        InvalidInputError: an id twice among the frames of all.
        RankError: another process failed.
    """
    if ranks.size == 1:
        return own
    scattered = Scattered.of(own, places, ranks)
    if not scattered.parts:
        return None
    long = {
        name: gather_rows(scattered.mine.get(name, column), scattered.places, ranks)
        for name, column in scattered.like.items()
    }

    def join() -> Summary:
        small = scattered.joined()
        return small.with_columns(small.scored.frame_ids, small.columns() | long)

    return ranks.exchange_local(join)
