"""What can be said of a choice, from the frames that were chosen and from whatever else a report was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.report.annotated import Annotated
from cval_torch.report.below_cut import best_of_rest, next_choices, some_others
from cval_torch.report.frames import ChosenFrames
from cval_torch.report.neighbours import NEAR, Near, Places
from cval_torch.report.reasons import scoring_stage
from cval_torch.report.wording import visible
from cval_torch.selection.class_weights import class_counts, with_known_weights
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.class_gain import expected_objects

BELOW, OTHERS = 12, 12
_GIVE_POOL = "Pass `pool=`, what `extract` gave for the same loader, to see {what}."
_GIVE_LABELED = "Pass `labeled=`, what `extract` gave for the annotated frames, or `labeled=[]` if there are none"
_CLOSE = 1e-5


class ReportedFrames(ChosenFrames, Protocol):
    """What a report is made of; `SelectedFrames` is one."""

    @property
    def dataset(self) -> Any:
        """The dataset that was chosen from, whose items are images, or tuples that begin with one."""

    @property
    def stages(self) -> Sequence[DetectionSampling]:
        """The stages that were run, in order."""

    @property
    def estimated_boxes(self) -> Tensor:
        """(n,) the boxes to be expected in each frame."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known. A sentence in `missing` says what to pass to know what is None.

    Attributes:
        annotated: the frames that were annotated before.
        pool: the F frames that were chosen from; None: not given.
        chosen_rows: (n,) rows of the chosen ones in it.
        counts: annotated objects by label, as far as the detector can tell.
        expected: the same as `class_gain` counts them.
        scores: (F,) the scores of all frames.
        below: rows of those that would have come next; how they were found is in `below_said`.
        others: rows of some others, at random.
        places: where frames lie.
        nearest: of each chosen frame, up to a number, the nearest that was annotated or chosen before.
        groups: of each of these the near-duplicates that were not chosen.
        radius: of near-duplicates.
        radius_said: where the radius comes from.
        missing: by name of what is None, a sentence.
    """

    annotated: Annotated
    pool: Pool | None
    chosen_rows: Tensor | None
    counts: dict[int, float] | None
    expected: dict[int, float] | None = None
    scores: Tensor | None = None
    below: Tensor | None = None
    below_said: str = ""
    others: Tensor | None = None
    places: Places | None = None
    nearest: list[Near | None] | None = None
    groups: list[list[Near]] | None = None
    radius: float = 0.0
    radius_said: str = ""
    missing: dict[str, str] = field(default_factory=dict)


def facts_of(selected: ReportedFrames, annotated: Annotated, pool: Pool | None, *, shown: int, seed: int) -> Facts:
    """Find out what can be said.

    Args:
        selected: n frames.
        annotated: what was annotated before.
        pool: the frames that were chosen from, with the chosen ones and without annotated ones; None: not given.
        shown: for how many of the chosen frames, from the first, neighbours are wanted.
        seed: of the handful of others.
    """
    missing: dict[str, str] = {}
    counts = _counts(annotated, missing)
    expected = {} if annotated.is_none else None if annotated.pool is None else expected_objects(annotated.pool)
    if pool is None:
        for name, what in (
            ("scores", "the scores of all frames, and where the cut is"),
            ("below", "the frames just below the cut"),
            ("others", "some of the frames that were not chosen"),
            ("places", "where the chosen frames lie among all others, and which near-duplicates they stand for"),
        ):
            missing[name] = _GIVE_POOL.format(what=what)
        return Facts(annotated, None, None, counts, expected, missing=missing)
    row_of = {frame_id: row for row, frame_id in enumerate(pool.frame_ids)}
    rows = torch.tensor([row_of[frame_id] for frame_id in selected.frame_ids], dtype=torch.int64)
    scores = _scores(selected, pool, rows, counts, missing)
    below, said = _below(selected, pool, rows, scores, annotated=annotated, missing=missing)
    taken = rows if below is None else torch.cat([rows, below])
    places = _places(pool, annotated, missing)
    nearest, groups, radius, radius_said = None, None, 0.0, ""
    if places is not None:
        nearest = places.nearest_before(rows[:shown])
        radius, radius_said = _radius(places, selected.stages)
        groups = places.stands_for(rows, radius)[:shown]
    return Facts(
        annotated=annotated,
        pool=pool,
        chosen_rows=rows,
        counts=counts,
        expected=expected,
        scores=scores,
        below=below,
        below_said=said,
        others=some_others(pool, taken, OTHERS, seed=seed),
        places=places,
        nearest=nearest,
        groups=groups,
        radius=radius,
        radius_said=radius_said,
        missing=missing,
    )


def _counts(annotated: Annotated, missing: dict[str, str]) -> dict[int, float] | None:
    if annotated.is_none:
        return {}
    if annotated.pool is None:
        missing["counts"] = f"{_GIVE_LABELED}, to see their classes and which of them are scarce."
        return None
    try:
        return class_counts(annotated.pool)
    except InvalidInputError as error:
        missing["counts"] = _because(error)
        return None


def _scores(
    selected: ReportedFrames, pool: Pool, rows: Tensor, counts: dict[int, float] | None, missing: dict[str, str]
) -> Tensor | None:
    stage = scoring_stage(selected.stages)
    if stage is None:
        names = " and ".join(dict.fromkeys(visible(stage.name) for stage in selected.stages))
        missing["scores"] = f"No stage scored single frames: {names} chose without scores, so there is no cut."
        return None
    try:
        scores = frame_scores(pool, with_known_weights(stage, pool, counts)).double().cpu()
    except InvalidInputError as error:
        missing["scores"] = _because(error)
        return None
    theirs = selected.scores.double().cpu()
    known = ~theirs.isnan()
    if bool(((scores[rows] - theirs).abs()[known] > _CLOSE * theirs[known].abs().clamp_min(1)).any()):
        missing["scores"] = (
            "The chosen frames score otherwise in `pool` than they did when they were chosen, so the scores of the "
            "others cannot be compared with theirs. Pass the pool that they were chosen from."
        )
        return None
    return scores


def _below(
    selected: ReportedFrames,
    pool: Pool,
    rows: Tensor,
    scores: Tensor | None,
    *,
    annotated: Annotated,
    missing: dict[str, str],
) -> tuple[Tensor | None, str]:
    if len(pool) == len(rows):
        missing["below"] = "All frames of the pool were chosen."
        return None, ""
    names = " → ".join(visible(stage.name) for stage in selected.stages)
    found = next_choices(pool, selected.frame_ids, selected.stages, BELOW, labeled=annotated.pool)
    if found is not None and len(found):
        return found, f"The next ones that {names} would choose, in this order."
    stage = scoring_stage(selected.stages)
    if scores is not None and stage is not None:
        best = best_of_rest(pool, rows, scores, BELOW, descending=stage.descending)
        if len(best):
            return best, f"Those with the best {visible(stage.name)} that were not chosen."
    missing["below"] = (
        f"What {names} would choose next cannot be told from what was passed. "
        + ("" if annotated.is_described else f"{_GIVE_LABELED}.")
    ).strip()
    return None, ""


def _places(pool: Pool, annotated: Annotated, missing: dict[str, str]) -> Places | None:
    try:
        return Places(pool, annotated.pool)
    except InvalidInputError as error:
        missing["places"] = _because(error)
        return None


def _radius(places: Places, stages: Sequence[DetectionSampling]) -> tuple[float, str]:
    asked = [stage.min_distance for stage in stages if stage.min_distance is not None]
    if asked:
        return max(asked), "the `min_distance` of the choice"
    return NEAR * places.median_distance(), "a quarter of the median distance between two frames"


def _because(error: InvalidInputError) -> str:
    text = visible(str(error))
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
