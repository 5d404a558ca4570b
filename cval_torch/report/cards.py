"""One card a frame: its picture, its boxes, what it costs and why it is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cval_torch.pool.offsets import places_of
from cval_torch.pool.pool import Pool
from cval_torch.report.facts import Facts, ReportedFrames
from cval_torch.report.reasons import Reason, Reasons, scoring_stage
from cval_torch.report.shown_boxes import ShownBoxes, shown_boxes
from cval_torch.report.thumbnails import Picture, picture_of, small_picture
from cval_torch.report.wording import ClassNames, counted, decimal, isolated, ordinal, visible
from cval_torch.selection.costs import estimated_boxes

_MOST_DUPLICATES = 3


@dataclass(frozen=True)
class Duplicate:
    """A near-duplicate that a chosen frame stands for: its id, its distance in words, its small picture or none."""

    frame_id: str
    distance: str
    small: str


@dataclass(frozen=True)
class Card:
    """What a page shows of one frame.

    Attributes:
        number: of the card, from 0: the page's own name for it.
        kind: `chosen`, `below` or `other`.
        frame_id: as it can be shown.
        rank: from 1; None: it was not chosen.
        score: as a number for sorting; None: it has none.
        score_text: the same in words.
        stage: what chose it, in a word.
        cost: the boxes to be expected in it.
        picture: of the frame.
        boxes: in it.
        reasons: why it was chosen.
        duplicates: the nearest of the frames that it stands for.
    """

    number: int
    kind: str
    frame_id: str
    rank: int | None
    score: float | None
    score_text: str
    stage: str
    cost: float
    picture: Picture
    boxes: ShownBoxes
    reasons: tuple[Reason, ...]
    duplicates: tuple[Duplicate, ...] = ()

    @property
    def boxes_said(self) -> str:
        """How many boxes there are, and how many are shown."""
        total, shown = self.boxes.total, len(self.boxes.drawn)
        if total == 0:
            return "No boxes"
        return counted(total, "box", "boxes") if shown == total else f"{shown} of {counted(total, 'box', 'boxes')}"


class Cards:
    """The cards of a report, made one after another: pictures are many, and only one is held at a time.

    Args:
        selected: the chosen frames.
        facts: what is known.
        names: of classes.
        min_score: of boxes that are shown.
        max_frames: chosen frames that get a card, from the first.
        step: is called after each card.
    """

    def __init__(
        self,
        selected: ReportedFrames,
        facts: Facts,
        names: ClassNames,
        *,
        min_score: float,
        max_frames: int,
        step: Callable[[], object],
    ) -> None:
        self._selected, self._facts, self._names, self._min_score = selected, facts, names, min_score
        self.shown = min(len(selected), max_frames)
        self._step = step
        self._score_places = _places_by_score(selected, facts)

    @property
    def total(self) -> int:
        """How many there will be."""
        rows = [rows for rows in (self._facts.below, self._facts.others) if rows is not None]
        return self.shown + sum(len(each) for each in rows)

    @property
    def frame_ids(self) -> list[str]:
        """The ids by the number of the card, as they are."""
        pool = self._facts.pool
        ids = list(self._selected.frame_ids[: self.shown])
        for rows in (self._facts.below, self._facts.others):
            ids += [] if rows is None or pool is None else [pool.frame_ids[row] for row in rows.tolist()]
        return ids

    def chosen(self) -> Iterator[Card]:
        """Those of the chosen frames."""
        selected, facts = self._selected, self._facts
        rows = torch.arange(self.shown)
        pool = selected.predictions if self.shown == len(selected) else selected.predictions.take(rows)
        reasons = Reasons(
            pool, selected.scores, selected.stages, self._names, counts=facts.counts, expected=facts.expected
        )
        scores, costs = selected.scores.tolist(), selected.estimated_boxes.tolist()
        for rank in range(self.shown):
            near = self._nearest(rank)
            yield self._card(
                pool,
                rank,
                reasons,
                number=rank,
                kind="chosen",
                load=lambda rank=rank: selected[rank],  # type: ignore[misc]  # mypy infers no lambda with defaults
                rank=rank + 1,
                score=scores[rank],
                stage=self._stage(pool, rank, scores[rank]),
                cost=costs[rank],
                more=(*self._place(rank), *near),
                duplicates=self._duplicates(rank),
            )

    def below(self) -> Iterator[Card]:
        """Those of the frames that come next."""
        return self._others(self._facts.below, "below", self.shown)

    def others(self) -> Iterator[Card]:
        """Those of some other frames."""
        begin = self.shown + (0 if self._facts.below is None else len(self._facts.below))
        return self._others(self._facts.others, "other", begin)

    def _others(self, rows: Tensor | None, kind: str, begin: int) -> Iterator[Card]:
        whole = self._facts.pool
        if rows is None or whole is None or len(rows) == 0:
            return
        pool = whole.take(rows)
        nothing = torch.full((len(pool),), torch.nan, dtype=torch.float64)
        scores = nothing if self._facts.scores is None else self._facts.scores[rows]
        stages = self._selected.stages
        reasons = Reasons(pool, scores, stages, self._names, counts=self._facts.counts, in_order=False)
        costs = estimated_boxes(pool).tolist()
        for place, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True)):
            yield self._card(
                pool,
                place,
                reasons,
                number=begin + place,
                kind=kind,
                load=self._loader(row),
                rank=None,
                score=score,
                stage="not chosen",
                cost=costs[place],
                more=(),
            )

    def _card(
        self,
        pool: Pool,
        row: int,
        reasons: Reasons,
        *,
        number: int,
        kind: str,
        load: Callable[[], Any],
        rank: int | None,
        score: float,
        stage: str,
        cost: float,
        more: tuple[Reason, ...],
        duplicates: tuple[Duplicate, ...] = (),
    ) -> Card:
        frame_id = pool.frame_ids[row]
        picture = picture_of(load, frame_id)
        decisive = reasons.decisive(row)
        boxes = shown_boxes(pool, row, picture, self._names, min_score=self._min_score, decisive=decisive)
        told = reasons.of(row)
        if kind != "chosen":  # why it scores what it scores is all that can be said of it
            told = tuple(each for each in told if each.title == "Score" and not math.isnan(score))
        self._step()
        return Card(
            number,
            kind,
            visible(frame_id),
            rank,
            None if math.isnan(score) else score,
            decimal(score),
            stage,
            cost,
            picture,
            boxes,
            told + more,
            duplicates,
        )

    def _loader(self, row: int) -> Callable[[], Any]:
        pool, dataset = self._facts.pool, self._selected.dataset

        def load() -> Any:
            if pool is None or pool.indices is None:
                raise LookupError("the pool does not say which row of the dataset the frame is")
            return dataset[int(pool.indices[row])]

        return load

    def _stage(self, pool: Pool, row: int, score: float) -> str:
        last = self._selected.stages[-1]
        apart = last.null_policy != "protocol" and bool(pool.is_empty[row]) and math.isnan(score)
        return f"{visible(last.name)}, set apart" if apart else visible(last.name)

    def _place(self, rank: int) -> tuple[Reason, ...]:
        if self._score_places is None or (place := self._score_places[rank]) is None:
            return ()
        stage = scoring_stage(self._selected.stages)
        best = "highest" if stage is None or stage.descending else "lowest"
        which = best if place == 1 else f"{ordinal(place)} {best}"
        return (Reason("Place", f"The {which} score of {len(self._facts.pool or ()):,} frames."),)

    def _nearest(self, rank: int) -> tuple[Reason, ...]:
        if self._facts.nearest is None:
            return ()
        near, annotated = self._facts.nearest[rank], self._facts.annotated
        before = "Nearest annotated or chosen before" if annotated.pool is not None else "Nearest chosen before"
        if near is None:
            return (Reason(before, "None: this is the first choice."),)
        pool = annotated.pool if near.is_annotated else self._facts.pool
        name = "" if pool is None else isolated(visible(pool.frame_ids[near.row]))
        kind = "annotated" if near.is_annotated else "chosen"
        return (Reason(before, f"{name} ({kind}), at distance {decimal(near.distance)}."),)

    def _duplicates(self, rank: int) -> tuple[Duplicate, ...]:
        facts = self._facts
        if facts.groups is None or facts.pool is None:
            return ()
        ids = facts.pool.frame_ids
        return tuple(
            Duplicate(
                visible(ids[near.row]), decimal(near.distance), small_picture(self._loader(near.row), ids[near.row])
            )
            for near in facts.groups[rank][:_MOST_DUPLICATES]
        )

    @property
    def other_labels(self) -> set[int]:
        """The labels of all boxes of the frames that were not chosen and have a card."""
        pool = self._facts.pool
        found: set[int] = set()
        for rows in (self._facts.below, self._facts.others):
            if rows is not None and pool is not None and pool.labels is not None:
                found |= set(pool.labels[places_of(pool.offsets, rows)[0]].tolist())
        return found

    @property
    def have_scores(self) -> bool:
        """Whether any of the chosen frames has a score."""
        return not bool(self._selected.scores.isnan().all())

    def num_duplicates(self, rank: int) -> int | None:
        """How many near-duplicates a chosen frame stands for; None: not known."""
        return None if self._facts.groups is None else len(self._facts.groups[rank])


def _places_by_score(selected: ReportedFrames, facts: Facts) -> list[int | None] | None:
    """Of each chosen frame how many frames have a better score, and one; None where scores are not known."""
    stage = scoring_stage(selected.stages)
    if facts.scores is None or stage is None:
        return None
    keys = (-facts.scores if stage.descending else facts.scores).sort().values
    own = selected.scores.double().cpu() * (-1 if stage.descending else 1)
    before = torch.searchsorted(keys, own - 1e-9).tolist()
    return [None if bool(score.isnan()) else place + 1 for place, score in zip(before, own, strict=True)]
