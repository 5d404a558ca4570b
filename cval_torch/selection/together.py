"""One choice from frames that come batch by batch, by one process or by many that have a share of the frames each.

What a choice needs of a frame is small (`Summary`), and is made where the frame is. The choice is made from the
summaries of all frames, on rank 0, by the code that makes it in one process. Vectors stay where they are
(`SharedRows`). Only of the frames that it keeps the predictions come together, for the stages that follow. Where the
first stage compares single boxes, or calls a function of the user's, rank 0 gathers what that reads of all frames.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, warn_user
from cval_torch.pool.gathering import gather_pools, same_layout
from cval_torch.pool.offsets import rows_in_parts
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.pool.team import Team
from cval_torch.selection.backend import Backend, Selection
from cval_torch.selection.candidates import Predicted
from cval_torch.selection.checks import check_apart, checked_stages
from cval_torch.selection.class_weights import counts_for
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.out_of_core import FirstLook, first_look
from cval_torch.selection.scored import Chosen, Scored, ranked_choice
from cval_torch.selection.stage import ClassWeights, DetectionSampling
from cval_torch.selection.stages import Kept, choose_among, narrow
from cval_torch.selection.summary import Scattered, Summary
from cval_torch.strategies.registry import find_strategy
from cval_torch.strategies.shared_rows import Keeps, SharedRows

Again = Callable[[Tensor], Pool]
"""Gives, on rank 0, the frames at some places of the whole, in that order, as they were predicted once more. Every
process must call it."""


def begin_look(
    stages: Sequence[DetectionSampling],
    backend: LocalBackend,
    ranks: Ranks,
    *,
    predictions: int = 0,
    scratch: Path | None = None,
) -> FirstLook:
    """What the stages need of frames that are going to come; every process must call this.

    Args:
        stages: one or more.
        backend: rank 0's says what is annotated.
        ranks: the processes.
        predictions: see `first_look`.
        scratch: see `first_look`.

    Raises:
        InvalidInputError: see `checked_stages`; classes to be balanced, and nothing to count.
        RankError: another process failed.
    """
    first, *others = ranks.exchange_local(lambda: checked_stages(stages))

    # what a process saw in training, or knows to be annotated, may differ
    def known() -> tuple[ClassWeights | Literal["balanced"] | None, Mapping[int, float] | None]:
        return first.class_weights, _counts_for([first], backend)

    weights, counts = ranks.from_rank_zero(known)
    first = first.model_copy(update={"class_weights": weights})
    return first_look([first, *others], counts=counts, predictions=predictions, scratch=scratch)


def choose_from(
    look: FirstLook, places: Sequence[int], backend: LocalBackend, ranks: Ranks, *, again: Again
) -> tuple[Selection, Pool]:
    """Choose from the frames of all processes, as one process would that had them all; every process must call this.

    Args:
        look: has seen this process's frames.
        places: for each of them its row in the whole.
        backend: rank 0's says what is annotated.
        ranks: the processes.
        again: is asked for the predictions of the frames that the first stage chose, where nobody kept them.

    Returns:
        In every process the selection, without its stages, whose rows are those of the pool beside it: the chosen
        frames in rank order, without embeddings.

    Raises:
        Exception: whatever the choice raised, on rank 0.
        RankError: on the others.
    """
    selection, pool, _ = _chosen_rows(look, places, backend, ranks, again=again)
    return selection, pool


def _chosen_rows(
    look: FirstLook, places: Sequence[int], backend: LocalBackend, ranks: Ranks, *, again: Again
) -> tuple[Selection, Pool, Tensor]:
    """As `choose_from`; and the rows of the whole that were chosen."""
    whole, team = _gathered(look, places, ranks)

    def choose() -> Chosen:
        if whole is None:
            raise InvalidInputError("`loader` must yield at least one frame; got none")
        check_apart(whole.scored.frame_ids, backend.labeled)
        return choose_among(whole, look.stage, labeled=backend.labeled, labeled_counts=backend.labeled_counts)

    found = team.lead(choose)
    chosen = ranks.from_rank_zero(lambda: found)
    if chosen is None:
        raise ValueError("rank 0 chose nothing")
    predicted = _predicted(look, places, chosen.rows, ranks, again)

    def go_on() -> tuple[Selection, Pool, Tensor]:
        if whole is not None:
            _check_same_frames([whole.scored.frame_ids[row] for row in chosen.rows.tolist()], predicted.pool)
        kept = replace(
            Kept.everything(predicted.pool, backend.labeled, backend.labeled_counts),
            remarks=chosen.remarks,
            vectors=predicted.vectors,
            contents=predicted.contents,
        )
        if whole is not None and find_strategy(look.stage.selection_strategy).scores_frames:
            kept = replace(kept, scores=chosen.scores_from(whole.scored.scores), descending=look.stage.descending)
        kept = _narrowed(kept, look.others, backend)
        return *_finished(kept), chosen.rows[kept.rows]

    return ranks.from_rank_zero(go_on)


def can_draw_first(stages: Sequence[DetectionSampling]) -> bool:
    """Whether the first stage draws frames whatever the detector says of them."""
    first = stages[0]
    whatever = first.null_policy == "protocol" and first.use_null_detections and not first.constrained
    return first.selection_strategy == "random" and whatever


def draw_first(
    frame_ids: Sequence[str], stages: Sequence[DetectionSampling], backend: LocalBackend, ranks: Ranks, *, again: Again
) -> tuple[Selection, Pool]:
    """Choose by stages of which the first draws at random, before anything is inferred; every process must call this.

    Args:
        frame_ids: F distinct ids of all frames, in the order of the whole.
        stages: one or more, for which `can_draw_first`.
        backend: rank 0's says what is annotated.
        ranks: the processes.
        again: gives the predictions of the frames that are drawn.

    Returns:
        As `choose_from`.

    Raises:
        Exception: whatever the choice raised, on rank 0.
        RankError: on the others.
    """
    first, *others = ranks.exchange_local(lambda: checked_stages(stages))

    def draw() -> Chosen:
        check_apart(frame_ids, backend.labeled)
        unscored = torch.tensor(torch.nan, dtype=torch.float64).expand(len(frame_ids))
        nothing = torch.zeros(len(frame_ids), dtype=torch.bool)
        return ranked_choice(Scored(frame_ids, nothing, unscored), first)

    chosen = ranks.from_rank_zero(draw)
    pool = again(chosen.rows)

    def go_on() -> tuple[Selection, Pool]:
        kept = replace(Kept.everything(pool, backend.labeled, backend.labeled_counts), remarks=chosen.remarks)
        return _finished(_narrowed(kept, others, backend))

    return ranks.from_rank_zero(go_on)


def choose_from_parts(
    parts: Iterable[Pool],
    stages: DetectionSampling | Sequence[DetectionSampling],
    *,
    backend: LocalBackend | None = None,
    scratch_dir: str | os.PathLike[str] | None = None,
) -> Selection:
    """Choose from a pool that is too large for memory and comes in parts, such as files that `Pool.save` wrote.

    The choice is that of `LocalBackend` from the parts as one pool. A part is let go before the next one comes, but for
    what the stages read of it.

    Args:
        parts: pools with the same columns, and no frame in two of them. Unless the first stage scores frames by their
            own boxes, they are gone through once more, for the frames that it chose: give a list, or an object whose
            `__iter__` begins anew.
        stages: one or more.
        backend: says what is annotated; None: nothing is.
        scratch_dir: a folder in which vectors are put while the choice is made; None: they are kept in memory.

    Returns:
        The choice, the first frame first. `rows` are rows of all parts, one after another.

    Raises:
        InvalidInputError: see `LocalBackend.select`; a frame in two parts; `parts` that can be gone through only once.

    >>> box = torch.tensor([0, 1])
    >>> pools = [Pool([name], box, scores=torch.tensor([score])) for name, score in (("a", 0.9), ("b", 0.6))]
    >>> choose_from_parts(pools, DetectionSampling(selection_strategy="least", num_of_samples=1)).frame_ids
    ('b',)
    """
    backend = LocalBackend() if backend is None else backend
    ran, alone, sizes = checked_stages(stages), Ranks(distributed=False), list[int]()
    with ExitStack() as stack:
        scratch = None
        if scratch_dir is not None:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vectors-", dir=scratch_dir)))
        look = begin_look(ran, backend, alone, scratch=scratch)
        for part in parts:
            look.add(part)
            sizes.append(len(part))

        def again(rows: Tensor) -> Pool:
            if isinstance(parts, Iterator):
                raise InvalidInputError("`parts` are gone through twice by these stages: give a list, not an iterator")
            return _taken(parts, sizes, rows)

        selection, _, rows = _chosen_rows(look, range(sum(sizes)), backend, alone, again=again)
    return replace(selection, rows=rows, stages=ran)


def choose_together(
    share: Pool, places: Sequence[int], stages: Sequence[DetectionSampling], backend: Backend, ranks: Ranks
) -> tuple[Selection, Pool]:
    """Choose from the pools of all processes, as one process would that had one of all; every process must call this.

    Args:
        share: this process's frames; all processes have the same columns.
        places: for each of them its row in the whole.
        stages: one or more.
        backend: what chooses, on rank 0.
        ranks: the processes.

    Returns:
        In every process the selection, whose rows are those of the pool beside it: the chosen frames in rank order,
        without embeddings.

    Raises:
        Exception: whatever the choice raised, on rank 0.
        RankError: on the others.
    """
    if type(backend) is not LocalBackend:
        whole = gather_pools(share, places, ranks, to=0)
        selection, pool = ranks.from_rank_zero(lambda: picked(backend.select(whole, stages), whole))
        return replace(selection, stages=tuple(stages)), pool
    look = begin_look(stages, backend, ranks)
    ranks.exchange_local(lambda: look.add(share))

    def again(rows: Tensor) -> Pool:
        mine, order = _own(rows, places)
        return gather_pools(share.take(mine), order, ranks, to=0)

    selection, pool = choose_from(look, places, backend, ranks, again=again)
    return replace(selection, stages=tuple(stages)), pool


def picked(selection: Selection, pool: Pool) -> tuple[Selection, Pool]:
    """A selection with its frames for a pool, in a form that travels: no stages, which may hold any callable."""
    chosen = pool.replace(box_embeddings=None, frame_embeddings=None).take(selection.rows)
    return replace(selection, rows=torch.arange(len(selection)), stages=()), chosen


def _own(rows: Tensor, places: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of some frames of the whole those that this process has: their rows here, and their positions in `rows`."""
    own_rows = {place: row for row, place in enumerate(places)}
    found = [(own_rows[place], rank) for rank, place in enumerate(rows.tolist()) if place in own_rows]
    return [row for row, _ in found], [rank for _, rank in found]


def _gathered(look: FirstLook, places: Sequence[int], ranks: Ranks) -> tuple[Summary | None, Team]:
    """The summary of all frames, in the order of the whole, on rank 0; None on others, and where there is no frame.

    Its long vectors stay where they are, and can be read while rank 0 leads the team.
    """
    if ranks.size == 1:
        return look.summary(), Team(ranks, None)
    if look.keeps_pool:
        share = same_layout(ranks.exchange_local(lambda: look.pool if look.num_frames else None), ranks)
        whole = gather_pools(share, places, ranks, to=0)
        return ranks.exchange_local(lambda: look.summary_of(whole) if ranks.rank == 0 else None), Team(ranks, None)
    own = ranks.exchange_local(lambda: look.summary() if look.num_frames else None)
    scattered = Scattered.of(own, places, ranks)
    described = {} if own is None else own.described()
    team = Team(ranks, Keeps(torch.tensor(places, dtype=torch.int64), scattered.mine, described))
    if not scattered.parts:
        return None, team
    frames = sum(map(len, scattered.places))
    long = {name: SharedRows(team, name, column, frames) for name, column in scattered.like.items()}

    def join() -> Summary | None:
        return scattered.joined().with_vectors(long) if ranks.rank == 0 else None

    return ranks.exchange_local(join), team


def _predicted(look: FirstLook, places: Sequence[int], rows: Tensor, ranks: Ranks, again: Again) -> Predicted:
    """What is known of the chosen frames, at `rows` of the whole, on rank 0."""
    if any(ranks.exchange(lambda: look.has_to_look_again)):
        return Predicted(again(rows))
    mine, order = _own(rows, places)
    own = ranks.exchange_local(lambda: look.predicted(torch.tensor(mine, dtype=torch.int64)) if mine else None)
    if ranks.size == 1 and own is not None:
        return own
    share = same_layout(None if own is None else own.pool, ranks)
    pool = gather_pools(share, order, ranks, to=0)
    parts = ranks.exchange(lambda: None if own is None else (order, replace(own, pool=share.take([]))))
    there = [part for part in parts if part is not None]
    back = torch.tensor([place for theirs, _ in there for place in theirs], dtype=torch.int64).argsort()
    return replace(Predicted.cat([part for _, part in there]).take_vectors(back), pool=pool)


def _check_same_frames(frame_ids: Sequence[str], again: Pool) -> None:
    """Raise an `InvalidInputError` if frames that were loaded once more are others."""
    for expected, found in zip(frame_ids, again.frame_ids, strict=True):
        if expected != found:
            raise InvalidInputError(
                f"frame {expected!r} was chosen, and is {found!r} when it is loaded again: ids must not change while "
                "frames are chosen"
            )


def _taken(parts: Iterable[Pool], sizes: Sequence[int], rows: Tensor) -> Pool:
    """The frames at some rows of all parts, which have `sizes` frames, in that order."""
    order = rows.argsort(stable=True)
    of_parts = rows_in_parts(rows[order], sizes)
    taken = [part.take(mine) for part, mine in zip(parts, of_parts, strict=True) if len(mine)]
    return Pool.cat(taken).take(order.argsort())


def _narrowed(kept: Kept, stages: Sequence[DetectionSampling], backend: LocalBackend) -> Kept:
    """What later stages leave of the frames that the first one chose; warns of all that was remarked."""
    kept = narrow(kept, stages, _counts_for(stages, backend))
    for remark in kept.remarks:
        warn_user(remark)
    return kept


def _finished(kept: Kept) -> tuple[Selection, Pool]:
    return picked(Selection.of(kept.source, kept.rows, kept.scores, (), remarks=kept.remarks), kept.source)


def _counts_for(stages: Sequence[DetectionSampling], backend: LocalBackend) -> dict[int, float] | None:
    return counts_for(stages, labeled=backend.labeled, labeled_counts=backend.labeled_counts)
