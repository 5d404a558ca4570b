"""Lists of stages: what each keeps for the next, and what must hold for every strategy."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import blobs_in_order
from strategy_names import KNOWN_STRATEGIES
from tied_frames import UNCERTAIN, make_tied_pool

from cval_torch.errors import NotEnoughMemoryError
from cval_torch.pool.pool import Pool
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages


def stage(strategy: Any = "entropy", n: int = 3, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def ids_of(pool: Pool, stages: Any, **options: Any) -> list[str]:
    return [pool.frame_ids[row] for row in run_stages(pool, stages, **options)[0].tolist()]


def test_the_recorded_order_of_the_live_service_is_reproduced_in_kind() -> None:
    """`margin`, `min`, `ascending` is 1 - |2s - 1|: the frame with the surest box comes first."""
    scores = [[0.6, 0.55], [0.97, 0.5], [0.3, 0.52], [0.02, 0.4]]
    pool = Pool(list("abcd"), torch.arange(0, 9, 2), scores=torch.tensor(scores).flatten())
    got = ids_of(pool, stage("margin", 4, bbox_selection_policy="min", sort_strategy="ascending"))
    surest = {key: min(1 - abs(2 * s - 1) for s in row) for key, row in zip("abcd", scores, strict=True)}
    assert got == sorted(surest, key=surest.__getitem__) == ["d", "b", "c", "a"]


def test_the_default_is_the_most_uncertain_box_first() -> None:
    pool = Pool(["sure", "one doubtful", "many"], torch.tensor([0, 2, 4, 8]),
                scores=torch.tensor([0.99, 0.98, 0.99, 0.52, 0.7, 0.7, 0.7, 0.7]))  # fmt: skip
    assert ids_of(pool, stage("entropy")) == ["one doubtful", "many", "sure"]
    assert ids_of(pool, stage("probability")) == ["many", "one doubtful", "sure"]


def shuffled(pool: Pool, seed: int) -> Pool:
    return pool.take(torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("strategy", KNOWN_STRATEGIES)
@pytest.mark.parametrize("null_policy", ["protocol", "skip", "last", "sample"])
@given(seed=st.integers(0, 1000), n=st.integers(1, 14))
@settings(max_examples=6, deadline=None)
def test_the_order_of_the_frames_changes_nothing(strategy: str, null_policy: str, seed: int, n: int) -> None:
    pool = make_tied_pool([2, 0, 3, 1, 0, 5, 2, 2, 1, 4, 0, 2, 3, 1], seed=seed)
    stages = stage(strategy, n, null_policy=null_policy, seed=seed, bbox_selection_policy="mean")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows, scores, _ = run_stages(pool, stages)
        moved_pool = shuffled(pool, seed + 1)
        moved, moved_scores, _ = run_stages(moved_pool, stages)
    assert [pool.frame_ids[row] for row in rows.tolist()] == [moved_pool.frame_ids[row] for row in moved.tolist()]
    assert torch.equal(scores.nan_to_num(-1), moved_scores.nan_to_num(-1))
    assert len(set(rows.tolist())) == len(rows)


@pytest.mark.parametrize("strategy", KNOWN_STRATEGIES)
def test_a_seed_repeats_and_every_strategy_narrows(strategy: str) -> None:
    pool = make_tied_pool([2] * 30)
    stages = [stage("entropy", 12), stage(strategy, 5, seed=7)]
    chosen = ids_of(pool, stages)
    assert chosen == ids_of(pool, stages)
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(ids_of(pool, stages[0]))


def test_random_is_uniform_and_turns_with_its_seed() -> None:
    pool = make_tied_pool([1] * 10)
    counts = dict.fromkeys(pool.frame_ids, 0)
    for seed in range(400):
        for frame_id in ids_of(pool, stage("random", 3, seed=seed)):
            counts[frame_id] += 1
    # 120 expected, sd 9.2: five of them
    assert all(74 <= count <= 166 for count in counts.values())


def test_scores_are_those_of_the_last_stage_that_scored() -> None:
    pool = make_tied_pool([3] * 20)
    rows, scores, _ = run_stages(pool, [stage("entropy", 10), stage("random", 4), stage("clustering", 2)])
    assert torch.equal(scores, frame_scores(pool, stage("entropy"))[rows])
    assert run_stages(pool, stage("random"))[1].isnan().all()
    rows, scores, _ = run_stages(pool, [stage("entropy", 10), stage("least", 4)])
    assert torch.equal(scores, frame_scores(pool, stage("least"))[rows])


def test_the_same_stage_twice_is_two_stages() -> None:
    pool = make_tied_pool([2] * 9)
    one = stage("random", 4, seed=1)
    assert set(ids_of(pool, [one, one])) == set(ids_of(pool, one))


def test_the_last_stage_ranks() -> None:
    pool = make_tied_pool([3] * 40)
    both = ids_of(pool, [stage("entropy", 20, bbox_selection_policy="sum"), stage("clustering", 6)])
    first = ids_of(pool, stage("entropy", 20, bbox_selection_policy="sum"))
    assert both == ids_of(pool.take([pool.frame_ids.index(frame_id) for frame_id in first]), stage("clustering", 6))


@pytest.mark.parametrize("strategy", KNOWN_STRATEGIES)
def test_more_than_there_are_gives_all_with_a_warning(strategy: str) -> None:
    pool = make_tied_pool([2, 1, 0, 3])
    with pytest.warns(UserWarning, match="all 4 frames there are: fewer than num_of_samples=9") as caught:
        chosen = ids_of(pool, stage(strategy, 9))
    assert sorted(chosen) == sorted(pool.frame_ids)
    assert len(caught) == 1


@pytest.mark.parametrize("strategy", KNOWN_STRATEGIES)
@pytest.mark.parametrize("bare", [False, True])
def test_a_pool_without_any_box(strategy: str, bare: bool) -> None:
    columns = {} if bare else {"scores": torch.empty(0), "probabilities": torch.empty(0, 3), "activation": "softmax"}
    pool = Pool(["b", "c", "a"], torch.zeros(4, dtype=torch.int64), frame_embeddings=torch.eye(3), **columns)
    chosen = ids_of(pool, stage(strategy, 2))
    assert len(set(chosen)) == 2
    if strategy in (*UNCERTAIN, "probability"):
        assert chosen == ["a", "b"], "all score alike: by id"


@pytest.mark.parametrize("strategy", KNOWN_STRATEGIES)
def test_one_frame(strategy: str) -> None:
    assert ids_of(make_tied_pool([2]), stage(strategy, 1)) == ["frame0000"]


def test_scores_of_exactly_0_and_1_are_fine() -> None:
    pool = Pool(["sure", "never", "even"], torch.arange(4), scores=torch.tensor([1.0, 0.0, 0.5]))
    for strategy in UNCERTAIN:
        assert run_stages(pool, stage(strategy, 3))[1].tolist() == [1, 0, 0]


def test_class_weights_reach_the_entropy() -> None:
    pool = Pool(["a", "b"], torch.arange(3), probabilities=torch.tensor([[0.5, 0.5, 0], [0, 0.5, 0.5]]),
                activation="softmax")  # fmt: skip
    assert ids_of(pool, stage(n=1, probs_weights=[0, 1, 5])) == ["b"]
    assert ids_of(pool, stage(n=1, probs_weights=[5, 1, 0])) == ["a"]
    got = frame_scores(pool, stage(probs_weights=[5, 1, 0])).tolist()
    assert got == pytest.approx([3 / math.log2(3), 0.5 / math.log2(3)], abs=1e-6)


@pytest.mark.parametrize("sort", [None, "ascending", "descending"])
@pytest.mark.parametrize("between", [[], ["k_center"], ["k_center", "random", "kmeans_plus_plus"]])
def test_a_direction_is_handed_on_through_stages_that_do_not_score(sort: Any, between: list[str]) -> None:
    """`weighted_kmeans` takes of each blob the frame that `probability` held for the most informative.

    The stages between keep all frames, so the choice is that of two stages: by default the least sure.
    """
    points, truth = blobs_in_order([8, 8, 8])
    confidences = torch.rand(24, generator=torch.Generator().manual_seed(1))
    pool = Pool([f"{row:02d}" for row in range(24)], torch.arange(25), scores=confidences, frame_embeddings=points)
    stages = [
        stage("probability", 24, sort_strategy=sort),
        *(stage(name, 24) for name in between),
        stage("weighted_kmeans", 3),
    ]
    sign = 1 if sort == "descending" else -1
    best = [
        max((truth == blob).nonzero().flatten().tolist(), key=lambda row: sign * confidences[row]) for blob in range(3)
    ]
    rows, scores, _ = run_stages(pool, stages)
    assert set(rows.tolist()) == set(best)
    assert torch.equal(scores, confidences[rows].double())


STAGES = st.lists(
    st.tuples(
        st.sampled_from([*UNCERTAIN, "probability", "random"]), st.integers(1, 8), st.sampled_from([None, "ascending"])
    ),
    min_size=1,
    max_size=4,
)


@given(given_stages=STAGES, counts=st.lists(st.integers(0, 3), min_size=1, max_size=9), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_several_stages_are_one_after_another(given_stages: list[Any], counts: list[int], seed: int) -> None:
    """A list of stages is a loop: each chooses by itself among what the one before it kept."""
    pool = make_tied_pool(counts, seed=seed)
    stages = [stage(name, n, sort_strategy=sort, seed=seed) for name, n, sort in given_stages]
    left = pool
    scores: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in stages:
            rows, found, _ = run_stages(left, one)
            left = left.take(rows)
            if one.selection_strategy != "random":
                scores.update(zip(left.frame_ids, found.tolist(), strict=True))
        rows, found, ran = run_stages(pool, stages)
    assert tuple(pool.frame_ids[row] for row in rows.tolist()) == left.frame_ids
    assert [None if math.isnan(score) else score for score in found.tolist()] == [
        scores.get(frame_id) for frame_id in left.frame_ids
    ]
    assert ran == tuple(stages)


@pytest.mark.parametrize("name", ["ppal", "diverse_prototypes"])
def test_boxes_that_are_too_many_to_compare_are_refused_before_they_are_copied(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_tied_pool([3, 1, 4, 1, 5] * 20)
    few = [
        DetectionSampling(selection_strategy="entropy", num_of_samples=5),
        DetectionSampling(selection_strategy=name, num_of_samples=2),
    ]
    monkeypatch.setattr("cval_torch.pool.memory.available_memory", lambda: 5000)
    with pytest.raises(NotEnoughMemoryError, match=rf"'{name}', which compares 280 boxes of 100 frames, .*`entropy`"):
        LocalBackend().select(pool, few[1])
    assert len(LocalBackend().select(pool, few)) == 2
