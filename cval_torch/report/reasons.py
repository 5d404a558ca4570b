"""Why a frame was chosen, as far as its own boxes and the stages tell."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, callable_name
from cval_torch.pool.pool import Pool
from cval_torch.report.wording import ClassNames, counted, decimal, isolated, visible
from cval_torch.selection.class_weights import with_known_weights
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.class_gain import expected_of_boxes
from cval_torch.strategies.registry import find_strategy

_GAINS = ("auto", "class_gain")


@dataclass(frozen=True)
class Reason:
    """One thing that speaks for a frame.

    Attributes:
        title: what it is about, in a word or two.
        text: a sentence or two.
    """

    title: str
    text: str


def scoring_stage(stages: Sequence[DetectionSampling]) -> DetectionSampling | None:
    """The last of the stages that scored frames; None if none did."""
    scoring = [stage for stage in stages if find_strategy(stage.selection_strategy).scores_frames]
    return scoring[-1] if scoring else None


def box_scores(pool: Pool, stage: DetectionSampling) -> Tensor:
    """(B,) what each box of a pool scores by a stage: as a frame of that one box alone.

    Raises:
        InvalidInputError: a column is missing; see `frame_scores`.
    """
    alone = Pool.of_checked(
        [str(number) for number in range(pool.num_boxes)],
        torch.arange(pool.num_boxes + 1, device=pool.device),
        scores=pool.scores,
        labels=pool.labels,
        probabilities=pool.probabilities,
        activation=pool.activation,
    )
    return frame_scores(alone, stage.model_copy(update={"bbox_selection_policy": "max"}))


class Reasons:
    """Why each of n frames was chosen.

    Args:
        pool: the n frames, in rank order.
        scores: (n,) their frame scores; NaN where there is none.
        stages: the stages that were run.
        names: of classes.
        counts: annotated objects by label, as far as a detector can tell; None: not known.
        expected: the same as `class_gain` counts them.
        in_order: whether these are the first frames of the choice, each chosen after those before it.
    """

    def __init__(
        self,
        pool: Pool,
        scores: Tensor,
        stages: Sequence[DetectionSampling],
        names: ClassNames,
        *,
        counts: Mapping[int, float] | None,
        expected: Mapping[int, float] | None = None,
        in_order: bool = True,
    ) -> None:
        self._pool, self._scores, self._stages, self._names = pool, scores.tolist(), tuple(stages), names
        self._stage = scoring_stage(stages)
        self._box_scores: list[float] | None = None
        stage = self._stage
        if stage is not None and find_strategy(stage.selection_strategy).scores_boxes:
            known = with_known_weights(stage, pool, counts)
            try:
                self._box_scores = box_scores(pool, known).tolist()
            except InvalidInputError:  # a column is missing, or what classes weigh: then no box can be named
                self._box_scores = None
            self._stage = known
        self._gains: list[tuple[int, float, float, int]] | None = None
        if in_order and expected is not None and stages and stages[-1].selection_strategy in _GAINS:
            self._gains = _gains(pool, expected)

    def decisive(self, row: int) -> int | None:
        """Which of a frame's boxes gives the frame its score, or most of its gain; None if none does."""
        begin, end = self._range(row)
        if begin == end:
            return None
        if self._gains is not None:
            return self._gains[row][3]
        if self._box_scores is None or self._stage is None:
            return None
        own = self._box_scores[begin:end]
        policy = self._stage.bbox_selection_policy or "max"
        if policy not in ("min", "max"):
            return None
        return own.index(max(own) if policy == "max" else min(own))

    def of(self, row: int) -> tuple[Reason, ...]:
        """The reasons for the frame at `row`."""
        last = self._stages[-1]
        found = []
        if self._stage is not None:
            found.append(Reason("Score", self._score(self._stage, row)))
        if self._gains is not None and self._pool.counts[row]:
            label, objects, before, _ = self._gains[row]
            found.append(
                Reason(
                    "Scarce class",
                    f"For what is known of it, it shows most of {isolated(self._names(label))}: about "
                    f"{decimal(objects, 2)} objects here, {decimal(before, 1)} expected in what was annotated or "
                    "chosen before.",
                )
            )
        if last.selection_strategy == "random":
            found.append(Reason("Chance", f"Drawn at random, with seed {last.seed}."))
        return tuple(found)

    def _range(self, row: int) -> tuple[int, int]:
        return int(self._pool.offsets[row]), int(self._pool.offsets[row + 1])

    def _score(self, stage: DetectionSampling, row: int) -> str:
        begin, end = self._range(row)
        name, score = visible(stage.name), self._scores[row]
        if math.isnan(score):
            apart = f"It has no boxes, so the null policy `{stage.null_policy}` set it apart."
            return apart if begin == end else "It has no score."
        if callable(stage.selection_strategy):
            return f"The function {name} gives the frame {decimal(score)}."
        if begin == end:
            return f"It has no boxes. By {name} such a frame scores {decimal(score)}."
        boxes = counted(end - begin, "box", "boxes")
        if callable(stage.bbox_selection_policy):
            made = visible(callable_name(stage.bbox_selection_policy))
            return (
                f"The function {made} makes {decimal(score)} of the {name} of {counted(end - begin, 'box', 'boxes')}."
            )
        policy = str(stage.bbox_selection_policy or "max")
        if self._box_scores is None:
            return f"The {policy} of the {name} of its {boxes} is {decimal(score)}."
        own = self._box_scores[begin:end]
        place = self.decisive(row) if self._gains is None else None
        if place is None:
            place = own.index(max(own))
            told = f"The {policy} of the {name} of {boxes} is {decimal(score)}. "
            return f"{told}The largest part, {decimal(own[place])}, is {self._box(begin + place)}."
        if end - begin == 1:
            return f"Its one box, {self._box(begin + place)}, has {name} {decimal(score)}."
        most = "highest" if policy == "max" else "lowest"
        told = f"Decided by {self._box(begin + place)}: its {name} of {decimal(score)} is the {most} of {boxes}."
        return told + self._weight(stage, begin + place)

    def _box(self, place: int) -> str:
        pool = self._pool
        name = "a box" if pool.labels is None else isolated(self._names(int(pool.labels[place])))
        return name if pool.scores is None else f"{name} ({float(pool.scores[place]):.2f})"

    def _weight(self, stage: DetectionSampling, place: int) -> str:
        if not isinstance(stage.class_weights, dict) or self._pool.labels is None:
            return ""
        label = int(self._pool.labels[place])
        return f" A box of {isolated(self._names(label))} weighs {decimal(stage.class_weights.get(label, 1.0), 2)}."


def _gains(pool: Pool, expected: Mapping[int, float]) -> list[tuple[int, float, float, int]] | None:
    """As `class_gain` counts: of each frame the class that it adds most to, its objects, those before, its surest box.

    None where a column is missing. A frame without boxes has zeros.
    """
    if pool.labels is None or (pool.scores is None and pool.probabilities is None):
        return None
    objects, labels, offsets = expected_of_boxes(pool).tolist(), pool.labels.tolist(), pool.offsets.tolist()
    known = defaultdict(float, expected)
    found = []
    for begin, end in itertools.pairwise(offsets):
        own: defaultdict[int, float] = defaultdict(float)
        for place in range(begin, end):
            own[labels[place]] += objects[place]
        label = max(own, key=lambda each: (own[each] / (known[each] + 1), -each), default=0)
        places = [place for place in range(begin, end) if labels[place] == label]
        box = max(places, key=objects.__getitem__, default=begin) - begin
        found.append((label, float(own[label]), float(known[label]), box))
        for place in range(begin, end):
            known[labels[place]] += objects[place]
    return found
