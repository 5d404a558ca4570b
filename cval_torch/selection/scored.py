"""Scoring apart from choosing: `score_frames`, `Scored`, and `choose_frames`.

A score depends on the boxes of its own frame. So frames can be scored wherever their boxes are: in this process, in
several, or a batch after another. What a choice needs of a frame afterwards is some thirty bytes. `choose_frames`
makes the choice from these, by the same code wherever the scores came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, warn_user
from cval_torch.pool.pool import IdSource, Pool
from cval_torch.selection.backend import Selection
from cval_torch.selection.checks import checked_stages
from cval_torch.selection.constraints import RankedRows, bounds_of, check_labels, remarks_on_bounds, rows_within
from cval_torch.selection.null_policy import SetApart, remark_on_number, sets_apart
from cval_torch.selection.order import rows_by_id, shuffled
from cval_torch.selection.ranking import check_can_score, frame_scores, null_score, only_scored_columns, rank_some
from cval_torch.selection.shortlist import shortlist
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.registry import find_strategy


@dataclass(frozen=True, eq=False)
class Scored:
    """F frames with what one stage needs to choose among them, and nothing of their boxes.

    Attributes:
        frame_ids: F distinct ids.
        is_empty: (F,) bool, whether a frame has no boxes.
        scores: (F,) float64; which end of the scale comes first is the stage's to say. NaN: the frame is not in the
            running, because others are surely better or the `null_policy` sets it apart.
        costs: (F,) float64, the boxes to be expected in each frame; None where the stage has no budget.
        shown: by label, (F,) bool, whether a frame shows the class; of the labels in the stage's `class_quotas`.
        ids_from: where the ids come from; None if nobody says.
    """

    frame_ids: Sequence[str]
    is_empty: Tensor
    scores: Tensor
    costs: Tensor | None = None
    shown: Mapping[int, Tensor] = field(default_factory=dict)
    ids_from: IdSource | None = None

    def __len__(self) -> int:
        return len(self.frame_ids)

    def take(self, rows: Tensor) -> Scored:
        """The frames at (n,) int64 `rows`, in that order."""
        return Scored(
            [self.frame_ids[row] for row in rows.tolist()],
            self.is_empty[rows],
            self.scores[rows],
            None if self.costs is None else self.costs[rows],
            {label: shows[rows] for label, shows in self.shown.items()},
            self.ids_from,
        )

    @classmethod
    def cat(cls, parts: Sequence[Scored]) -> Scored:
        """One after another, the frames of several parts that were scored for the same stage.

        Raises:
            InvalidInputError: no parts; a frame in two of them; or they were scored for different stages.
        """
        if not parts:
            raise InvalidInputError("`parts` must be one or more; got none")
        first = parts[0]
        for number, part in enumerate(parts):
            if (part.costs is None) != (first.costs is None) or set(part.shown) != set(first.shown):
                raise InvalidInputError(f"part {number} was scored for another stage than the first")
        frame_ids = [frame_id for part in parts for frame_id in part.frame_ids]
        if len(set(frame_ids)) < len(frame_ids):
            (twice, _), *_ = Counter(frame_ids).most_common(1)
            raise InvalidInputError(f"frame {twice!r} is in two of the parts")
        costs = [part.costs for part in parts if part.costs is not None]
        return cls(
            frame_ids,
            torch.cat([part.is_empty for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat(costs) if costs else None,
            {label: torch.cat([part.shown[label] for part in parts]) for label in first.shown},
            first.ids_from if all(part.ids_from == first.ids_from for part in parts) else None,
        )


def score_frames(pool: Pool, stage: DetectionSampling) -> Scored:
    """The first half of a stage that ranks: score every frame, wherever its boxes are.

    Args:
        pool: F frames, all there are or some of them.
        stage: a scoring strategy, or `random`, which needs no scores. Weights of classes must be numbers.

    Returns:
        The frames, in the order of the pool. Of a large pool only those that can be among the best are scored.

    Raises:
        InvalidInputError: a strategy that compares frames with each other; a missing column; see `frame_scores`.

    >>> pool = Pool(["a", "b", "c"], torch.tensor([0, 1, 2, 3]), scores=torch.tensor([0.9, 0.5, 0.8]))
    >>> stage = DetectionSampling(selection_strategy="least", num_of_samples=2)
    >>> choose_frames(score_frames(pool, stage), stage).frame_ids
    ('b', 'c')
    """
    strategy = find_strategy(stage.selection_strategy)
    if strategy.is_diversity:
        raise InvalidInputError(
            f"{strategy.name!r} compares frames with each other, so it cannot score them one by one: use "
            "LocalBackend().select(pool, stages)"
        )
    check_labels(pool, stage)
    check_can_score(pool, stage)
    scores = torch.full((len(pool),), torch.nan, dtype=torch.float64, device=pool.device)
    is_empty = pool.is_empty
    if strategy.scores_frames:
        rows = _in_the_running(pool, stage)
        if rows is None:
            scores = frame_scores(pool, stage)
        else:
            scores[rows] = null_score(stage)
            filled = rows[~is_empty[rows]]
            scores[filled] = frame_scores(only_scored_columns(pool, filled), stage)
        if sets_apart(stage):
            scores[is_empty] = torch.nan
    return Scored(pool.frame_ids, is_empty, scores, *bounds_of(pool, stage), pool.ids_from)


def choose_frames(scored: Scored, stage: DetectionSampling) -> Selection:
    """The second half: choose from scores, as `LocalBackend` does from a pool.

    Args:
        scored: F frames, at least one, scored by `score_frames` for the same stage.
        stage: how many to choose, and within which bounds; not `min_distance`, which compares embeddings.

    Returns:
        The choice, the first frame first. `rows` are rows of `scored`; `indices` are None.

    Raises:
        InvalidInputError: no frames; a stage that does not rank, or has a `min_distance`; frames that were scored for
            another stage.
    """
    (stage,) = checked_stages(stage)
    if len(scored) == 0:
        raise InvalidInputError("`scored` must hold at least one frame to choose from; got none")
    if find_strategy(stage.selection_strategy).is_diversity or stage.min_distance is not None:
        raise InvalidInputError(
            "a diversity strategy and `min_distance` compare embeddings, which `scored` does not hold: use "
            "LocalBackend().select(pool, stages)"
        )
    if (stage.budget_fields and scored.costs is None) or not scored.shown.keys() >= set(stage.class_quotas or ()):
        raise InvalidInputError(
            "`scored` lacks what a budget or `class_quotas` of the stage need: score the frames for this stage"
        )
    chosen = ranked_choice(scored, stage)
    for remark in chosen.remarks:
        warn_user(remark)
    return Selection(
        tuple(scored.frame_ids[row] for row in chosen.rows.tolist()),
        chosen.rows,
        chosen.scores_from(scored.scores),
        (stage,),
        estimated_boxes=None if scored.costs is None else scored.costs[chosen.rows],
        remarks=chosen.remarks,
        ids_from=scored.ids_from,
    )


@dataclass(frozen=True, eq=False)
class Chosen:
    """What one stage chose.

    Attributes:
        rows: (n,) int64, in rank order.
        num_competing: how many of them competed for their place; those that a `null_policy` set apart follow.
        remarks: what the user should know of the choice.
    """

    rows: Tensor
    num_competing: int
    remarks: tuple[str, ...]

    def scores_from(self, scores: Tensor) -> Tensor:
        """(n,) of (F,) frame scores; NaN for frames that were set apart."""
        found = scores[self.rows]
        found[self.num_competing :] = torch.nan
        return found


def ranked_choice(
    scored: Scored, stage: DetectionSampling, *, new_spacing: Callable[[], Spacing] | None = None
) -> Chosen:
    """What a stage that ranks, or draws at random, chooses.

    Args:
        scored: F frames.
        stage: the stage.
        new_spacing: makes what keeps the `min_distance` of the stage, if it has one.

    Raises:
        InvalidInputError: see `SetApart.of`.
    """
    apart = SetApart.of(scored.is_empty, scored.frame_ids, stage)
    ranked = _ranking(scored, stage, apart)
    if stage.constrained:
        ranked = RankedRows(scored.shown, stage, ranked, apart, new_spacing=new_spacing).first
    return bounded_choice(ranked, apart, stage, costs=scored.costs, shown=scored.shown, new_spacing=new_spacing)


def bounded_choice(
    first: Callable[[int], Tensor],
    apart: SetApart,
    stage: DetectionSampling,
    *,
    costs: Tensor | None,
    shown: Mapping[int, Tensor],
    new_spacing: Callable[[], Spacing] | None = None,
) -> Chosen:
    """As many of the `first` competing frames as the stage asks for and its budget allows, then those set apart."""
    seen, following = rows_within(first, apart, stage, costs=costs, new_spacing=new_spacing)
    rows = torch.cat([seen, following])
    remarks = remark_on_number(apart, stage, stage.num_of_samples)
    remarks += remarks_on_bounds(rows, stage, costs=costs, shown=shown, new_spacing=new_spacing)
    return Chosen(rows, len(seen), tuple(f"the stage {stage.name!r} {remark}" for remark in remarks))


def _ranking(scored: Scored, stage: DetectionSampling, apart: SetApart) -> Callable[[int], Tensor]:
    """From a number to so many rows that compete, the best first."""
    device = scored.scores.device
    if stage.selection_strategy == "random":
        competing = torch.arange(len(scored), device=device) if apart.competing is None else apart.competing
        by_id = rows_by_id(scored.frame_ids, competing)
        drawn = by_id[shuffled(len(by_id), stage.seed).to(device)]
        return lambda n: drawn[:n]
    running = (~scored.scores.isnan()).nonzero().squeeze(1)

    def ranked(n: int) -> Tensor:
        best = rank_some(running, scored.scores, scored.frame_ids, n, descending=stage.descending) if n else []
        return torch.tensor(best, dtype=torch.int64, device=device)

    return ranked


def _in_the_running(pool: Pool, stage: DetectionSampling) -> Tensor | None:
    """Rows that surely hold the best of an unbounded stage; None where all have to be scored."""
    if stage.constrained or stage.num_of_samples is None or callable(stage.selection_strategy):
        return None
    competing = (~pool.is_empty).nonzero().squeeze(1) if sets_apart(stage) else None
    wanted = min(stage.num_of_samples, len(pool) if competing is None else len(competing))
    return shortlist(pool, stage, wanted, among=competing) if wanted else None
