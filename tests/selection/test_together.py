"""The choice of several processes is that of one."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import BOTH, Outcomes, values
from threads_as_ranks import as_ranks

from cval_torch.errors import InvalidInputError, RankError
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.backend import Selection
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.together import choose_from_parts, choose_together, picked


def test_a_selection_is_that_of_one_process_on_every_rank(two: Outcomes) -> None:
    chosen = values(two, "a_selection_is_that_of_one_process")
    assert chosen[0][0] == chosen[0][1] == chosen[1][0] == chosen[1][1]


@BOTH
def test_first_stages_of_every_kind_choose_as_one_process(ranks: Outcomes) -> None:
    everyones = values(ranks, "selections_of_every_kind_are_those_of_one_process")
    assert all(chosen == everyones[0] for chosen in everyones)
    assert all(together == alone for together, alone in everyones[0])


@BOTH
def test_the_class_weights_of_rank_zero_hold(ranks: Outcomes) -> None:
    assert values(ranks, "the_class_weights_of_rank_zero_hold") == [True] * len(ranks)


@BOTH
def test_every_kind_of_stage_chooses_as_in_one_process(ranks: Outcomes) -> None:
    assert values(ranks, "every_kind_of_stage_chooses_as_in_one_process") == [[]] * len(ranks)


def test_of_frames_that_are_not_kept_next_to_nothing_travels(two: Outcomes) -> None:
    """40 frames have 1 kB of embeddings each, 4 are kept."""
    assert all(0 < sent < 40 * 1024 / 4 for sent in values(two, "only_frames_that_were_kept_travel"))


def pool_of(counts: list[int], *, seed: int = 0) -> Pool:
    """Frames with few different scores, so that ties go by id across processes too."""
    generator = torch.Generator().manual_seed(seed)
    boxes, frames = sum(counts), len(counts)
    return Pool(
        [f"f{row:02d}" for row in torch.randperm(frames, generator=generator).tolist()],
        torch.tensor([0, *counts]).cumsum(0),
        scores=torch.randint(0, 5, (boxes,), generator=generator) / 4,
        labels=torch.randint(0, 3, (boxes,), generator=generator),
        box_embeddings=torch.randn(boxes, 3, generator=generator),
        frame_embeddings=torch.randn(frames, 2, generator=generator),
        indices=torch.arange(frames),
    )


def stage(strategy: Any = "entropy", n: int | None = 4, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def boxes_beside_the_mean(pool: Pool) -> torch.Tensor:
    """A score that a share of the frames does not give."""
    return (pool.counts - pool.counts.double().mean()).abs()


STAGES = [
    [stage(bbox_selection_policy="mean")],
    [stage("random", seed=3)],
    [stage("probability", 6, sort_strategy="ascending"), stage("k_center", 3)],
    [stage("random", 6), stage("weighted_kmeans", 2)],
    [stage(boxes_beside_the_mean, 5), stage("least", 2)],
    [stage("probability", 8), stage("weighted_kmeans", 3)],
    [stage("least", 8, null_policy="sample")],
    [stage("k_center", 5)],
    [stage("auto", 5), stage("class_gain", 3)],
    [stage("auto", 5, min_distance=0.2)],
    [stage("auto", None, num_of_boxes=4.5), stage("auto", 2)],
    [stage("least", 5, min_distance=0.3)],
    [stage("least", None, num_of_boxes=2.5, null_policy="last")],
    [stage("margin", 5, class_quotas={1: 2}, null_policy="skip")],
    [stage("entropy", 3, class_weights="balanced")],
]


@pytest.mark.parametrize("number", range(len(STAGES)))
@given(counts=st.lists(st.integers(0, 3), min_size=6, max_size=9), size=st.integers(1, 3), data=st.data())
@settings(deadline=None, max_examples=8)
def test_shares_of_any_kind_choose_as_the_whole(number: int, counts: list[int], size: int, data: st.DataObject) -> None:
    stages, pool = STAGES[number], pool_of([1, *counts])
    owners = data.draw(st.lists(st.integers(0, size - 1), min_size=len(pool), max_size=len(pool)))
    known = pool_of([1, 0, 2], seed=7).replace(frame_ids=("x", "y", "z")) if data.draw(st.booleans()) else None
    counts = {0: 5.0, 2: 1.0} if known is None or data.draw(st.booleans()) else None
    backend = LocalBackend(labeled=known, labeled_counts=counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = backend.select(pool, stages)

        def choose(ranks: Ranks) -> tuple[Selection, Pool]:
            places = [row for row, owner in enumerate(owners) if owner == ranks.rank]
            return choose_together(pool.take(places), places, stages, backend, ranks)

        outcomes = as_ranks(size, choose)
    for selection, chosen in outcomes:
        assert selection.frame_ids == chosen.frame_ids == expected.frame_ids
        assert selection.rows.tolist() == list(range(len(expected)))
        assert torch.equal(selection.scores.nan_to_num(-1), expected.scores.nan_to_num(-1))
        assert selection.remarks == expected.remarks
        assert selection.stages == tuple(stages)
        assert expected.indices is not None
        assert selection.indices.tolist() == expected.indices.tolist() == chosen.indices.tolist()
        assert chosen.num_boxes == pool.take(expected.rows).num_boxes
        assert chosen.box_embeddings is None
        assert chosen.frame_embeddings is None


def test_another_backend_sees_all_frames_once_on_rank_zero() -> None:
    seen: list[int] = []

    class Noting(LocalBackend):
        def select(self, pool: Pool, stages: Any) -> Selection:
            seen.append(len(pool))
            return super().select(pool, stages)

    pool = pool_of([1, 2, 0, 1])
    outcomes = as_ranks(
        2, lambda ranks: choose_together(pool.take([ranks.rank, 2 + ranks.rank]), [ranks.rank, 2 + ranks.rank],
                                         [stage(n=2)], Noting(), ranks))  # fmt: skip
    assert seen == [4]
    assert outcomes[0][0].frame_ids == outcomes[1][0].frame_ids == LocalBackend().select(pool, stage(n=2)).frame_ids


@pytest.mark.parametrize("strategy", ["entropy", "k_center"])
def test_what_rank_zero_refuses_is_an_error_in_all(strategy: str) -> None:
    pool = pool_of([1, 2, 1, 1])
    backend = LocalBackend(labeled=pool.take([3]))
    shares = [[0, 2], [1, 3]]
    first, second = as_ranks(
        2,
        lambda ranks: choose_together(
            pool.take(shares[ranks.rank]), shares[ranks.rank], [stage(strategy)], backend, ranks
        ),
    )
    assert isinstance(first, InvalidInputError)
    assert f"{pool.frame_ids[3]!r} is in both" in str(first)
    assert isinstance(second, RankError)


def test_what_is_picked_travels_without_embeddings_and_callables() -> None:
    pool = pool_of([1, 2, 1])
    chosen = LocalBackend().select(pool, stage(boxes_beside_the_mean, 2))
    selection, frames = picked(chosen, pool)
    assert (selection.frame_ids, selection.stages) == (chosen.frame_ids, ())
    assert frames.frame_ids == chosen.frame_ids
    assert frames.scores is not None
    assert (frames.box_embeddings, frames.frame_embeddings) == (None, None)
    assert pickle.loads(pickle.dumps(selection)).frame_ids == chosen.frame_ids


PARTS = [
    [stage("entropy", 7), stage("k_center", 3)],
    [stage("k_center", 4)],
    [stage("auto", 7), stage("least", 2)],
    [stage("random", 5)],
    [stage("least", 5, min_distance=0.3)],
    [stage(boxes_beside_the_mean, 5)],
    [stage("ppal", 3)],
]


@pytest.mark.parametrize("number", range(len(PARTS)))
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_pool_in_parts_is_chosen_from_as_the_whole(number: int, on_disk: bool, tmp_path: Path) -> None:
    pool, stages = pool_of([1, 0, 2, 3, 1, 0, 2, 2, 1]), PARTS[number]
    parts = [pool.take(range(3)), pool.take(range(3, 4)), pool.part(4, 9)]
    expected = LocalBackend().select(pool, stages)
    chosen = choose_from_parts(parts, stages, scratch_dir=tmp_path if on_disk else None)
    assert chosen.frame_ids == expected.frame_ids
    assert torch.equal(chosen.rows, expected.rows)
    assert torch.equal(chosen.scores.nan_to_num(-1), expected.scores.nan_to_num(-1))
    assert torch.equal(chosen.estimated_boxes, expected.estimated_boxes)  # type: ignore[arg-type]
    assert chosen.stages == expected.stages
    assert list(tmp_path.iterdir()) == []


def test_frames_that_are_others_when_they_come_again_are_refused() -> None:
    pool = pool_of([1, 0, 2, 3, 1])
    turns = iter([pool, pool.take([1, 0, 2, 3, 4])])

    class Changing:
        def __iter__(self) -> Any:
            return iter([next(turns)])

    with pytest.raises(InvalidInputError, match=r"was chosen, and is .* when it is loaded again"):
        choose_from_parts(Changing(), stage("k_center", 5))


def test_parts_that_come_once_are_enough_for_a_stage_that_scores_frames() -> None:
    pool = pool_of([1, 0, 2, 3, 1])
    chosen = choose_from_parts(iter(pool.parts(frames=2)), stage("entropy", 2))
    assert chosen.frame_ids == LocalBackend().select(pool, stage("entropy", 2)).frame_ids
    with pytest.raises(InvalidInputError, match="give a list, not an iterator"):
        choose_from_parts(iter(pool.parts(frames=2)), stage("k_center", 2))
