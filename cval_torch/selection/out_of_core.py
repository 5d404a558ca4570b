"""Choosing from frames that come batch by batch, of which nothing is kept that no stage will read.

What becomes of a frame depends on the first stage:

- One that scores frames by their own boxes: of each frame stay its id, its score, and what budgets and quotas look at.
  What the detector said of a frame stays while the frame can still be chosen (`Candidates`).
- One that compares frames, or keeps a `min_distance`, and `random`: of each frame stays a vector at the most, and a few
  numbers (`Summary`).
- One that compares single boxes, or calls a function of the user's: the columns that it reads stay, of all frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.layout import Gathered
from cval_torch.pool.pool import Pool
from cval_torch.selection.candidates import Candidates, Predicted
from cval_torch.selection.class_weights import with_known_weights
from cval_torch.selection.columns import columns_read
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.summary import GrowingSummary, Summary
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.descriptor import Descriptors
from cval_torch.strategies.registry import find_strategy

PREDICTIONS = frozenset(("boxes", "labels", "scores", "probabilities"))
"""The columns of `SelectedFrames.predictions`."""

_BYTES_OF_A_NAME = 200  # an id as a string, in a list, and in what finds an id that comes twice; two numbers of its row


def scores_each_frame(stage: DetectionSampling) -> bool:
    """Whether the stage's score of a frame depends on nothing but that frame's boxes, for certain."""
    if callable(stage.selection_strategy) or callable(stage.bbox_selection_policy) or stage.min_distance is not None:
        return False
    return find_strategy(stage.selection_strategy).scores_boxes


class FirstLook(ABC):
    """What stages need of frames that come batch by batch, before the first of them chooses.

    Attributes:
        stage: the first stage.
        others: those after it.
        later: the columns that later stages, and the user, want of the frames that it chooses.
        columns: the columns that have to be given of every frame; others may be given, and are let go.
        num_frames: how many frames have come.
    """

    def __init__(self, stages: Sequence[DetectionSampling], counts: Mapping[int, float] | None) -> None:
        self.stage, self.others = stages[0], stages[1:]
        self.later = PREDICTIONS.union(*map(columns_read, self.others))
        self.columns = columns_read(self.stage)
        self.num_frames = 0
        self._counts = counts

    def add(self, pool: Pool) -> None:
        """Take in a batch of frames.

        Raises:
            InvalidInputError: a missing column.
        """
        self.num_frames += len(pool)
        self._add(pool)

    def summary(self) -> Summary:
        """Of all frames that have come. Nothing can be taken in after that.

        Raises:
            InvalidInputError: no frames; an id twice.
        """
        if self.num_frames == 0:
            raise InvalidInputError("`loader` must yield at least one frame; got none")
        return self._summary()

    @property
    def has_to_look_again(self) -> bool:
        """Whether nothing is known of the frames that were chosen but what the first stage read of them."""
        return False

    @property
    def keeps_pool(self) -> bool:
        """Whether the first stage needs the frames themselves, which `pool` gives."""
        return False

    @property
    def pool(self) -> Pool | None:
        """The frames themselves. Nothing can be taken in after that."""
        return None

    def summary_of(self, pool: Pool) -> Summary:
        """Of frames that all processes took in."""
        return Summary.of(pool, self._of(pool))

    @property
    def growing_bytes(self) -> int:
        """Bytes that are kept of all frames so far, about: they grow with the number of frames."""
        return _BYTES_OF_A_NAME * self.num_frames + self._growing_bytes()

    def other_bytes(self, frames: int) -> float:
        """Bytes that are going to be kept, of so many frames, of those that may be chosen; about."""
        return 0.0

    @abstractmethod
    def _growing_bytes(self) -> int: ...

    @abstractmethod
    def predicted(self, rows: Tensor) -> Predicted:
        """What is known of (n,) frames that the first stage chose, in that order."""

    @abstractmethod
    def _add(self, pool: Pool) -> None: ...

    @abstractmethod
    def _summary(self) -> Summary: ...

    def _of(self, pool: Pool) -> DetectionSampling:
        """The first stage, with numbers for the classes in a pool."""
        return with_known_weights(self.stage, pool, self._counts)


def first_look(
    stages: Sequence[DetectionSampling],
    *,
    counts: Mapping[int, float] | None = None,
    predictions: int = 0,
    scratch: Path | None = None,
) -> FirstLook:
    """What some stages need.

    Args:
        stages: one or more, checked.
        counts: annotated objects by label, for stages that balance classes.
        predictions: so many bytes of what the detector said of all frames are kept, where it is not known before the
            end which will be chosen. If there are more, that has to be had again of those that are chosen.
        scratch: a folder for vectors; None: memory.
    """
    first = stages[0]
    if scores_each_frame(first):
        return _Scoring(stages, counts)
    if find_strategy(first.selection_strategy).sees in ("boxes", "pool") or callable(first.bbox_selection_policy):
        return _Whole(stages, counts)
    return _Comparing(stages, counts, predictions=predictions, scratch=scratch)


class _Summing(FirstLook):
    """Keeps the summary of every frame."""

    def __init__(
        self, stages: Sequence[DetectionSampling], counts: Mapping[int, float] | None, *, scratch: Path | None = None
    ) -> None:
        super().__init__(stages, counts)
        self._growing = GrowingSummary(scratch)

    def _add(self, pool: Pool) -> None:
        summary = Summary.of(pool, self._of(pool), part=True)
        self._growing.add(summary)
        self._keep(pool, summary)

    @abstractmethod
    def _keep(self, pool: Pool, summary: Summary) -> None:
        """Keep what is wanted of a batch beside its summary."""

    def _summary(self) -> Summary:
        return self._growing.join()

    def _growing_bytes(self) -> int:
        return self._growing.nbytes


class _Scoring(_Summing):
    """Before a stage that scores frames by their own boxes."""

    def __init__(self, stages: Sequence[DetectionSampling], counts: Mapping[int, float] | None) -> None:
        super().__init__(stages, counts)
        self.columns |= self.later
        self._candidates = Candidates(self.stage)
        strategies = [find_strategy(stage.selection_strategy) for stage in self.others]
        self._vectors = any(strategy.sees == "vectors" for strategy in strategies)
        self._vectors |= any(stage.min_distance is not None for stage in self.others)
        self._contents = any(strategy.sees == "contents" for strategy in strategies)
        single = [stage for stage in self.others if find_strategy(stage.selection_strategy).sees in ("boxes", "pool")]
        self._kept = PREDICTIONS.union(*map(columns_read, single))

    def _keep(self, pool: Pool, summary: Summary) -> None:
        self._candidates.add(summary.scored, lambda: self._read(pool))

    def _read(self, pool: Pool) -> Predicted:
        return Predicted(
            pool.only(self._kept),
            Descriptors.of(pool, part=True) if self._vectors else None,
            Contents.of(pool, part=True) if self._contents else None,
        )

    def other_bytes(self, frames: int) -> float:
        return self._candidates.most_bytes(frames)

    def predicted(self, rows: Tensor) -> Predicted:
        return self._candidates.take(rows)


class _Comparing(_Summing):
    """Before a stage that compares frames, or that draws them at random."""

    def __init__(
        self,
        stages: Sequence[DetectionSampling],
        counts: Mapping[int, float] | None,
        *,
        predictions: int,
        scratch: Path | None,
    ) -> None:
        super().__init__(stages, counts, scratch=scratch)
        self._most = predictions
        # embeddings of all boxes are too much to keep for a few frames
        has_embeddings = self.later & {"box_embeddings", "frame_embeddings"}
        self._gathered = Gathered() if predictions and not has_embeddings else None
        if self._gathered is not None:
            self.columns |= self.later

    def _keep(self, pool: Pool, summary: Summary) -> None:
        if self._gathered is not None:
            self._gathered.add(pool.only(self.later))
            if self._gathered.nbytes > self._most:
                self._gathered = None

    @property
    def has_to_look_again(self) -> bool:
        return self._gathered is None

    def predicted(self, rows: Tensor) -> Predicted:
        if self._gathered is None:
            raise ValueError("no predictions were kept")
        return Predicted(self._gathered.pool().take(rows))


class _Whole(FirstLook):
    """Before a stage that looks at single boxes, or calls a function of the user's."""

    def __init__(self, stages: Sequence[DetectionSampling], counts: Mapping[int, float] | None) -> None:
        super().__init__(stages, counts)
        if "box_embeddings" in self.columns:  # beside which predictions are small
            self.columns |= self.later
        self._gathered = Gathered()
        self._pool: Pool | None = None

    def _add(self, pool: Pool) -> None:
        self._gathered.add(pool.only(self.columns))

    @property
    def keeps_pool(self) -> bool:
        return True

    @property
    def pool(self) -> Pool:
        if self._pool is None:
            self._pool = self._gathered.pool()
        return self._pool

    def _summary(self) -> Summary:
        return self.summary_of(self.pool)

    def _growing_bytes(self) -> int:
        return self._gathered.nbytes

    @property
    def has_to_look_again(self) -> bool:
        return not self.later <= self.columns

    def predicted(self, rows: Tensor) -> Predicted:
        return Predicted(self.pool.take(rows))
