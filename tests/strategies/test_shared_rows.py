"""Frames that lie in several processes: every vector strategy chooses as if they were all in one."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threads_as_ranks import as_ranks

from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.pool.team import Team
from cval_torch.strategies.class_gain import Contents, class_gain
from cval_torch.strategies.descriptor import Descriptors, beside
from cval_torch.strategies.registry import STRATEGIES
from cval_torch.strategies.shared_rows import Keeps, SharedRows

k_center, gain_greedy = (sys.modules[f"cval_torch.strategies.{name}"] for name in ("k_center", "gain_greedy"))
VECTOR_STRATEGIES = [name for name, record in STRATEGIES.items() if record.sees == "vectors" and record.takes_points]


def frames_of(count: int, seed: int, *, copies: bool, empty: bool = True) -> Pool:
    """Frames of up to three boxes; with `copies` every third is the first again, but for its scores' last digits."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0 if empty else 1, 4, (count,), generator=generator)
    boxes = int(counts.sum())
    looks = torch.randn(boxes, 24, generator=generator)
    labels = torch.randint(0, 5, (boxes,), generator=generator)
    if copies and boxes:
        looks[::3], labels[::3] = looks[0].clone(), labels[0].clone()
    return Pool(
        [f"f{row:04}" for row in range(count)],
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        scores=torch.rand(boxes, generator=generator),
        labels=labels,
        box_embeddings=looks,
        frame_embeddings=torch.randn(count, 8, generator=generator),
    )


def lead(pool: Pool, owners: list[int], size: int, work: Any, *, contents: bool = False) -> list[Any]:
    """What `work(frames)` gives in rank 0, where frames of the pool have owners, and lie there in any order."""

    def run(ranks: Ranks) -> Any:
        places = torch.tensor([row for row, owner in enumerate(owners) if owner == ranks.rank], dtype=torch.int64)
        places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(ranks.rank))]
        share, whole = pool.take(places), Contents.of(pool) if contents else Descriptors.of(pool)
        own = (Contents if contents else Descriptors).of(share, part=True) if len(places) else None
        columns: dict[str, torch.Tensor] = {}
        described = own.descriptors if isinstance(own, Contents) else own
        if isinstance(own, Contents):
            columns = {"looks": own.descriptors.looks}
            columns |= {} if own.frame_embeddings is None else {"frames": own.frame_embeddings}
        elif own is not None:
            columns = {"looks": own.looks}
        team = Team(ranks, Keeps(places, columns, {} if described is None else {"looks": described}))
        if isinstance(whole, Contents):
            looks = SharedRows(team, "looks", whole.descriptors.looks[:0], len(pool))
            assert whole.frame_embeddings is not None
            frames = SharedRows(team, "frames", whole.frame_embeddings[:0], len(pool))
            told: Any = whole.without_vectors().with_vectors(looks, frames)
        else:
            told = whole.without_looks()
            told = Descriptors(
                told.looks,
                told.is_null,
                told.shares,
                told.widths,
                told.classes,
                elsewhere=SharedRows(team, "looks", whole.looks[:0], len(pool)),
            )
        return team.lead(lambda: work(told))

    return as_ranks(size, run)


def chosen(outcomes: list[Any]) -> Any:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    assert all(outcome is None for outcome in outcomes[1:])
    return outcomes[0]


@pytest.mark.parametrize("name", VECTOR_STRATEGIES)
@given(size=st.integers(2, 4), seed=st.integers(0, 99), copies=st.booleans(), known=st.booleans(), data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_strategy_chooses_as_from_one_process(
    name: str, size: int, seed: int, copies: bool, known: bool, data: st.DataObject
) -> None:
    pool = frames_of(data.draw(st.integers(8, 60)), seed, copies=copies)
    owners = data.draw(st.lists(st.integers(0, size - 1), min_size=len(pool), max_size=len(pool)))
    rows = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[: len(pool) - 2]
    labeled = Descriptors.of(frames_of(7, seed + 1, copies=copies), part=True) if known else None
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed)) if seed % 2 else None
    function = STRATEGIES[name].function
    assert function is not None

    def work(frames: Descriptors) -> list[int]:
        ours, theirs = beside(frames, labeled)
        around = None if theirs is None else theirs[:]
        found: list[int] = function(ours.take(rows), 4, seed=seed, labeled=around, weights=weights).tolist()
        return found

    assert chosen(lead(pool, owners, size, work)) == work(Descriptors.of(pool))


@given(
    size=st.integers(2, 4),
    seed=st.integers(0, 99),
    known=st.booleans(),
    counts=st.sampled_from([None, {0: 3.5, 4: 20.0}]),
    candidates=st.integers(1, 9),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_class_gain_chooses_as_from_one_process(
    size: int, seed: int, known: bool, counts: dict[int, float] | None, candidates: int, data: st.DataObject
) -> None:
    pool = frames_of(data.draw(st.integers(5, 60)), seed, copies=True)
    owners = data.draw(st.lists(st.integers(0, size - 1), min_size=len(pool), max_size=len(pool)))
    rows = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[: len(pool) - 2]
    labeled = Contents.of(frames_of(7, seed + 1, copies=True), part=True) if known else None
    n = data.draw(st.integers(1, len(rows)))

    def work(frames: Contents) -> list[int]:
        return class_gain(frames.take(rows), n, seed=0, labeled=labeled, labeled_counts=counts).tolist()

    expected = work(Contents.of(pool))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(k_center, "_CANDIDATES", candidates)
        assert chosen(lead(pool, owners, size, work, contents=True)) == expected


def test_class_gain_asks_for_few_vectors() -> None:
    """Shares compare, so that rank 0 is sent less than all frames have."""
    pool, sent = frames_of(3000, 0, copies=False), list[int]()
    labeled = Contents.of(frames_of(40, 1, copies=False))

    def work(frames: Contents) -> list[int]:
        return class_gain(frames, 20, seed=0, labeled=labeled).tolist()

    def noted(share: Any, *args: Any) -> Any:
        answer = bring(share, *args)
        sent.append(answer.points.shape[0])
        return answer

    bring = gain_greedy._Share.bring
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(gain_greedy._Share, "bring", noted)
        found = chosen(lead(pool, [row % 2 for row in range(3000)], 2, work, contents=True))
    assert 20 <= sum(sent) < 1000
    assert found == work(Contents.of(pool))


def test_rows_are_those_of_the_whole() -> None:
    pool = frames_of(20, 3, copies=False)
    rows = torch.tensor([7, 7, 0, 19])
    whole = Descriptors.of(pool)

    def work(frames: Descriptors) -> bool:
        looks = frames.elsewhere
        assert looks is not None
        return (
            torch.equal(frames[rows], whole[rows])
            and torch.equal(frames[3:11], whole[3:11])
            and torch.equal(frames.take(rows)[1:3], whole.take(rows)[1:3])
            and torch.equal(looks.widened(30)[rows], torch.nn.functional.pad(whole.looks[rows], (0, 6)))
            and looks[rows[:0]].shape == (0, 24)
        )

    assert chosen(lead(pool, [row % 3 for row in range(20)], 3, work))


def test_frames_without_boxes_beside_labeled_ones_with_boxes() -> None:
    """The frames have no width of a box's embedding, and get room for one."""
    pool = frames_of(12, 0, copies=False)
    none = torch.zeros(13, dtype=torch.int64)
    pool = Pool(pool.frame_ids, none, frame_embeddings=pool.frame_embeddings, box_embeddings=torch.empty(0, 0))
    labeled = Descriptors.of(frames_of(5, 1, copies=False, empty=False), part=True)
    function = STRATEGIES["k_center"].function
    assert function is not None

    def work(frames: Descriptors) -> list[int]:
        ours, theirs = beside(frames, labeled)
        assert theirs is not None
        found: list[int] = function(ours, 5, seed=0, labeled=theirs[:]).tolist()
        return found

    assert chosen(lead(pool, [row % 2 for row in range(12)], 2, work)) == work(Descriptors.of(pool))
