"""Budgets, distances and quotas of a stage, against an oracle that reads the rules one by one."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from constrained_choice import Oracle, make_looks, quietly
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_names import DIVERSITIES, GREEDY, POOL_DIVERSITIES

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection import spacing
from cval_torch.selection.constraints import bounds_of, check_labels, filled, remarks_on_bounds, shows_class
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages
from cval_torch.strategies.class_gain import class_gain
from cval_torch.strategies.registry import STRATEGIES

RANKING = ("least", "entropy", "probability", "random")


NULL_POLICIES = ("protocol", "skip", "last", "sample")


def stage(strategy: Any = "entropy", n: int | None = None, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


OPTIONS = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(RANKING),
        "n": st.sampled_from([None, 1, 3, 8, 40]),
        "num_of_boxes": st.sampled_from([None, 0.1, 1.0, 2.5, 7.0, 20.0, 500.0]),
        "minutes": st.sampled_from(
            [
                {},
                {},
                {"num_of_minutes": 3.01},
                {"num_of_minutes": 0.7, "seconds_per_box": 0.0},
                {"num_of_minutes": 9.1, "seconds_per_frame": 50.3, "seconds_per_box": 3.3},
            ]
        ),
        "min_distance": st.sampled_from([None, 0.05, 0.4, 1.0, 2.12]),
        "class_quotas": st.sampled_from([None, {0: 1}, {2: 3, 0: 2}, {1: 30, 2: 2}, {9: 1, 1: 4}]),
        "null_policy": st.sampled_from(NULL_POLICIES),
        "sort_strategy": st.sampled_from([None, "ascending", "descending"]),
        "seed": st.integers(0, 3),
    }
)


@given(
    options=OPTIONS,
    frames=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    beside=st.booleans(),
    block=st.sampled_from([1, 3, 1024]),
)
@settings(max_examples=200, deadline=None)
def test_stages_that_rank_keep_the_rules(
    options: dict[str, Any], frames: int, seed: int, beside: bool, block: int
) -> None:
    options |= options.pop("minutes")
    if options["n"] is None and options["num_of_boxes"] is None and "num_of_minutes" not in options:
        options["n"] = 5
    if options["strategy"] == "random":
        options["sort_strategy"] = None
    pool = make_looks(frames, seed=seed)
    if pool.num_boxes == 0:
        return
    labeled = make_looks(3, seed=seed + 1, prefix="l") if beside else None
    one = stage(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spacing, "_BLOCK_FRAMES", block)
        got, scores = quietly(pool, one, labeled)
    assert got == Oracle(pool, one, labeled).choice()
    if one.selection_strategy == "random":
        assert all(math.isnan(score) for score in scores)
    else:
        known = dict(zip(pool.frame_ids, frame_scores(pool, one).tolist(), strict=True))
        empty = set(itertools.compress(pool.frame_ids, (pool.counts == 0).tolist()))
        apart = empty if one.null_policy != "protocol" else set()
        expected = [math.nan if frame_id in apart else known[frame_id] for frame_id in got]
        assert scores == pytest.approx(expected, abs=0, nan_ok=True)
    moved = pool.take(torch.randperm(frames, generator=torch.Generator().manual_seed(seed)))
    assert quietly(moved, one, labeled)[0] == got


@pytest.mark.parametrize("strategy", [*DIVERSITIES, *POOL_DIVERSITIES])
@given(
    n=st.sampled_from([None, 1, 4, 12, 30]),
    budget=st.sampled_from([None, 0.1, 3.0, 8.0, 300.0]),
    distance=st.sampled_from([None, 0.3, 0.9, 2.12]),
    policy=st.sampled_from(NULL_POLICIES),
    weighted=st.booleans(),
    beside=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=30, deadline=None)
def test_diversity_chooses_among_thinned_frames_within_the_budget(
    strategy: str,
    n: int | None,
    budget: float | None,
    distance: float | None,
    policy: str,
    weighted: bool,
    beside: bool,
    seed: int,
) -> None:
    if n is None and budget is None:
        n = 6
    pool = make_looks(14, seed=seed)
    labeled = make_looks(3, seed=seed + 1, prefix="l") if beside else None
    before = [stage("entropy", 14, bbox_selection_policy="sum")] if weighted else []
    one = stage(strategy, n, num_of_boxes=budget, min_distance=distance, null_policy=policy, seed=seed % 3)
    got, _ = quietly(pool, [*before, one], labeled)
    oracle = Oracle(pool, one, labeled)
    nulls = {f for f, count in zip(pool.frame_ids, pool.counts.tolist(), strict=True) if count == 0}
    candidates = sorted(f for f in pool.frame_ids if policy == "protocol" or f not in nulls)
    if weighted:
        weight = dict(zip(pool.frame_ids, frame_scores(pool, before[0]).tolist(), strict=True))
        candidates.sort(key=lambda frame_id: (-weight[frame_id], frame_id))
    far: list[str] = []
    for frame_id in candidates:
        if oracle.is_far(frame_id, oracle.labeled + far):
            far.append(frame_id)

    def choice(count: int) -> list[str]:
        """By the strategy alone among the frames that are left, then those passed over."""
        left = pool.take([oracle.row_of[frame_id] for frame_id in far]) if far else None
        some = min(count, len(far))
        plain = stage(strategy, some or 1, seed=one.seed)
        first = [] if left is None or not some else quietly(left, [*before, plain], labeled)[0]
        return first + [frame_id for frame_id in candidates if frame_id not in far][: count - some]

    def cost(chosen: list[str]) -> float:
        return math.fsum(oracle.costs[oracle.row_of[frame_id]] for frame_id in chosen)

    seen = [frame_id for frame_id in got if frame_id in candidates]
    if policy == "protocol" or not nulls:
        assert got == choice(len(got))
        most = min(n or 14, 14)
        if budget is None:
            assert len(got) == most
        else:
            assert cost(got) <= budget or len(got) == 1
            assert len(got) == most or cost(choice(len(got) + 1)) > budget
    elif not weighted or len(far) == len(seen):  # weights are of the frames at hand
        assert seen == choice(len(seen))
        assert budget is None or cost(seen) <= budget or len(got) == 1
    moved = pool.take(torch.randperm(14, generator=torch.Generator().manual_seed(seed)))
    assert quietly(moved, [*before, one], labeled)[0] == got


@pytest.mark.parametrize("strategy", sorted(GREEDY))
@pytest.mark.parametrize("beside", [False, True])
@given(fewer=st.integers(1, 40), frames=st.integers(40, 120), seed=st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_a_greedy_choice_begins_with_that_of_fewer(
    strategy: str, beside: bool, fewer: int, frames: int, seed: int
) -> None:
    pool = make_looks(frames, seed=seed)
    labeled = make_looks(5, seed=seed + 1, prefix="l") if beside else None
    many, _ = quietly(pool, stage(strategy, 40), labeled)
    assert many[:fewer] == quietly(pool, stage(strategy, fewer), labeled)[0]


def test_a_greedy_choice_is_not_worked_out_again_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(pool: Pool, n: int, **options: Any) -> torch.Tensor:
        asked.append(n)
        return class_gain(pool, n, **options)

    monkeypatch.setitem(STRATEGIES, "auto", replace(STRATEGIES["auto"], function=noted))
    pool = make_looks(80, seed=3)
    chosen = LocalBackend().select(pool, stage("auto", num_of_boxes=20.0))
    assert 18 < chosen.num_of_boxes <= 20
    assert asked == sorted(set(asked))


def test_a_budget_ends_the_choice_at_the_frame_that_exceeds_it() -> None:
    pool = Pool(list("abcd"), torch.tensor([0, 1, 4, 5, 6]), scores=torch.tensor([0.5, 0.6, 0.6, 0.6, 0.7, 0.9]))
    chosen = LocalBackend().select(pool, stage(num_of_boxes=1.5))
    assert chosen.frame_ids == ("a",), "b would exceed it, and the cheaper c and d are not taken in its place"
    chosen = LocalBackend().select(pool, stage(num_of_boxes=3))
    assert chosen.frame_ids == ("a", "b", "c"), "0.5 + 1.8 + 0.7, of float32"
    assert chosen.estimated_boxes is not None
    assert chosen.estimated_boxes.tolist() == pytest.approx([0.5, 1.8, 0.7])
    assert chosen.num_of_boxes == pytest.approx(3)
    assert repr(chosen) == "Selection(3 frames of about 3 boxes by entropy)"
    assert LocalBackend().select(pool, stage(n=2, num_of_boxes=3)).frame_ids == ("a", "b")


def test_minutes_are_of_frames_and_boxes() -> None:
    pool = Pool(list("abcd"), torch.tensor([0, 1, 1, 3, 4]), scores=torch.tensor([0.5, 0.75, 0.25, 0.9]))
    timed = {"seconds_per_frame": 30, "seconds_per_box": 60}
    chosen = LocalBackend().select(pool, stage(num_of_minutes=1.5, null_policy="sample", **timed))
    assert chosen.frame_ids == ("a", "b"), "1 minute, and half a one for a frame that shows nothing"
    assert LocalBackend().select(pool, stage(num_of_minutes=1.49, null_policy="sample", **timed)).frame_ids == ("a",)
    assert LocalBackend().select(pool, stage(num_of_minutes=2.5, num_of_boxes=1.5, **timed)).frame_ids == ("a", "b")
    with pytest.warns(UserWarning, match="keeps about 0.3425 minutes: more than num_of_minutes=0.1"):
        LocalBackend().select(pool, stage(num_of_minutes=0.1))
    looks = make_looks(60, seed=3, nulls=False)
    for strategy in ("auto", "k_center", "clustering"):
        chosen = LocalBackend().select(looks, stage(strategy, num_of_minutes=8))
        assert chosen.estimated_boxes is not None
        assert 6.5 < (chosen.estimated_boxes.sum() * 25.5 + len(chosen) * 7.8) / 60 <= 8


def test_without_scores_boxes_are_counted() -> None:
    vectors = torch.eye(6)
    pool = Pool(list("abc"), torch.tensor([0, 1, 4, 6]), box_embeddings=vectors)
    for strategy in ("random", *DIVERSITIES):
        chosen = LocalBackend().select(pool, stage(strategy, num_of_boxes=5))
        assert 0 < chosen.num_of_boxes <= 5
        assert chosen.num_of_boxes == sum({"a": 1, "b": 3, "c": 2}[frame_id] for frame_id in chosen.frame_ids)


def test_a_first_frame_that_is_too_dear_is_kept_with_a_warning() -> None:
    pool = make_looks(9, seed=0, nulls=False)
    for strategy in ("entropy", "random", "clustering"):
        with pytest.warns(UserWarning, match=f"'{strategy}' keeps about .* boxes: more than num_of_boxes=0.01"):
            assert len(LocalBackend().select(pool, stage(strategy, num_of_boxes=0.01))) == 1


def test_near_duplicates_are_passed_over_and_fill_up_with_a_warning() -> None:
    looks = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]])
    pool = Pool(list("abcd"), torch.arange(5), scores=torch.tensor([0.5, 0.51, 0.6, 0.7]), box_embeddings=looks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LocalBackend().select(pool, stage(n=2, min_distance=0.1)).frame_ids == ("a", "c")
        assert LocalBackend().select(pool, stage(n=2, min_distance=2**0.5)).frame_ids == ("a", "c"), "just so far"
        assert LocalBackend().select(pool, stage(n=2, min_distance=0.001)).frame_ids == ("a", "b")
    with pytest.warns(UserWarning, match=r"'entropy' fills up with frames nearer than min_distance=0.1: too few"):
        assert LocalBackend().select(pool, stage(n=3, min_distance=0.1)).frame_ids == ("a", "c", "b")
    labeled = Pool(["x"], torch.arange(2), scores=torch.tensor([0.9]), box_embeddings=looks[:1])
    chosen = LocalBackend(labeled=labeled).select(pool, stage(n=1, min_distance=0.1))
    assert chosen.frame_ids == ("c",)


def test_labeled_frames_without_boxes_are_in_the_same_space() -> None:
    pool = make_looks(8, seed=3, nulls=False)
    empty = Pool(["x", "y"], torch.zeros(3, dtype=torch.int64), scores=torch.empty(0), labels=torch.empty(0).long(),
                 box_embeddings=torch.empty(0, 6), frame_embeddings=torch.eye(6)[:2])  # fmt: skip
    for one in (stage(n=3, min_distance=0.1), stage("k_center", 3)):
        assert len(quietly(pool, one, empty)[0]) == 3
        assert len(quietly(empty, one, pool)[0]) == 2


def test_quotas_are_served_before_the_rest_and_rank_with_it() -> None:
    pool = Pool(
        list("abcdef"),
        torch.arange(7),
        scores=torch.tensor([0.5, 0.55, 0.6, 0.65, 0.7, 0.75]),
        labels=torch.tensor([0, 0, 0, 1, 0, 2]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LocalBackend().select(pool, stage(n=3)).frame_ids == ("a", "b", "c")
        assert LocalBackend().select(pool, stage(n=3, class_quotas={2: 1})).frame_ids == ("a", "b", "f")
        assert LocalBackend().select(pool, stage(n=3, class_quotas={2: 1, 1: 1})).frame_ids == ("a", "d", "f")
        assert LocalBackend().select(pool, stage(n=3, class_quotas={0: 2})).frame_ids == ("a", "b", "c")
    with pytest.warns(UserWarning, match="'entropy' keeps 1 frames of class 2: fewer than the 4 of class_quotas"):
        assert LocalBackend().select(pool, stage(n=2, class_quotas={2: 4, 0: 1})).frame_ids == ("a", "f")


def test_a_frame_for_one_quota_counts_for_the_others_that_it_shows() -> None:
    pool = Pool(list("abcd"), torch.tensor([0, 1, 2, 4, 5]), scores=torch.tensor([0.5, 0.6, 0.7, 0.7, 0.9]),
                labels=torch.tensor([2, 2, 0, 1, 0]))  # fmt: skip
    assert quietly(pool, stage(n=2, class_quotas={0: 1, 1: 1}))[0] == ["a", "c"]


def test_frames_without_boxes_keep_the_distance_from_those_with() -> None:
    pool = Pool(list("abc"), torch.tensor([0, 1, 1, 1]), scores=torch.tensor([0.7]),
                box_embeddings=torch.tensor([[1.0, 0]]),
                frame_embeddings=torch.tensor([[0.0, 0], [1, 0], [0, 1]]))  # fmt: skip
    assert quietly(pool, stage(n=2, null_policy="last"))[0] == ["a", "b"]
    assert quietly(pool, stage(n=2, null_policy="last", min_distance=1))[0] == ["a", "c"]
    assert quietly(pool, stage(n=3, null_policy="last", min_distance=1))[0] == ["a", "c", "b"]


def test_a_class_is_shown_by_half_an_object() -> None:
    pool = Pool(list("abc"), torch.tensor([0, 1, 2, 4]), scores=torch.tensor([0.5, 0.49, 0.3, 0.25]),
                labels=torch.tensor([0, 1, 1, 1]))  # fmt: skip
    assert quietly(pool, stage("probability", 1, class_quotas={1: 1}))[0] == ["c"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            stage("clustering", 3, class_quotas={0: 1}),
            "`class_quotas` are for stages that rank, `random` and `auto`.*'clustering' in stage 0",
        ),
        ([stage(n=4), stage("k_center", 3, class_quotas={0: 1})], "'k_center' in stage 1"),
    ],
)
def test_quotas_of_diversity_are_refused(stages: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        run_stages(make_looks(9, seed=0), stages)


def test_missing_columns_are_named() -> None:
    pool = make_looks(9, seed=0)
    with pytest.raises(InvalidInputError, match="`class_quotas` need the column `labels`"):
        run_stages(pool.replace(labels=None), stage(n=2, class_quotas={0: 1}))
    bare = pool.replace(box_embeddings=None, frame_embeddings=None)
    with pytest.raises(InvalidInputError, match="`min_distance` need the column `box_embeddings`"):
        run_stages(bare, stage(n=2, min_distance=0.1))


def test_a_stage_hands_on_what_it_kept() -> None:
    pool = make_looks(20, seed=4)
    stages = [stage("entropy", num_of_boxes=12, class_quotas={1: 2}), stage("weighted_kmeans", num_of_boxes=5)]
    first = quietly(pool, stages[0])[0]
    both = quietly(pool, stages)[0]
    assert set(both) <= set(first)
    assert 1 < len(both) < len(first)


class TestPieces:
    """What the rules are made of, by hand and against loops."""

    @given(
        frames=st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), max_size=4), min_size=1, max_size=6),
        scored=st.booleans(),
        label=st.integers(0, 3),
    )
    def test_a_class_is_shown(self, frames: list[list[tuple[int, int]]], scored: bool, label: int) -> None:
        """In eighths, which are exact: by scores of half an object together; without scores by one box."""
        boxes = [box for frame in frames for box in frame]
        pool = Pool(
            [f"{row}" for row in range(len(frames))],
            torch.tensor([0, *map(len, frames)]).cumsum(0),
            labels=torch.tensor([label for label, _ in boxes], dtype=torch.int64),
            scores=torch.tensor([eighths / 8 for _, eighths in boxes]) if scored else None,
        )
        expected = [sum(eighths if scored else 8 for each, eighths in frame if each == label) >= 4 for frame in frames]
        assert shows_class(pool, label).tolist() == expected
        costs, shown = bounds_of(pool, stage(n=1, num_of_boxes=3, class_quotas={label: 1}))
        assert shown[label].tolist() == expected
        assert costs is not None
        assert costs.tolist() == [sum(eighths / 8 if scored else 1 for _, eighths in frame) for frame in frames]
        assert bounds_of(pool, stage(n=1)) == (None, {})

    @given(
        looks=st.lists(st.integers(0, 3), min_size=1, max_size=9),
        n=st.integers(0, 9),
        data=st.data(),
    )
    def test_what_is_too_near_fills_up_in_order(self, looks: list[int], n: int, data: st.DataObject) -> None:
        rows = data.draw(st.permutations(range(len(looks))))
        pool = Pool(
            [f"{row}" for row in range(len(looks))],
            torch.zeros(len(looks) + 1, dtype=torch.int64),
            frame_embeddings=torch.eye(4)[looks],
        )
        far = [row for place, row in enumerate(rows) if looks[row] not in {looks[each] for each in rows[:place]}][:n]
        near = [row for row in rows if row not in far]
        assert filled(Spacing.of(pool, 0.5), torch.tensor(rows), n).tolist() == [*far, *near][:n]

    def test_what_is_said_of_rules_that_are_not_kept(self) -> None:
        pool = Pool(
            list("abc"),
            torch.arange(4),
            scores=torch.tensor([1.0, 0.75, 0.25]),
            labels=torch.tensor([7, 7, 8]),
            frame_embeddings=torch.eye(2)[[0, 0, 1]],
        )
        one = stage(n=2, num_of_boxes=1.5, min_distance=0.5, class_quotas={7: 2, 8: 1})
        costs, shown = bounds_of(pool, one)

        def said(*rows: int) -> list[str]:
            spacing = partial(Spacing.of, pool, 0.5)
            return remarks_on_bounds(torch.tensor(rows), one, costs=costs, shown=shown, new_spacing=spacing)

        assert said(0, 1) == [
            "keeps about 1.75 boxes: more than num_of_boxes=1.5",
            "fills up with frames nearer than min_distance=0.5: too few are apart",
            "keeps 0 frames of class 8: fewer than the 1 of class_quotas",
        ]
        assert said(0, 2) == [
            "keeps 1 frames of class 7: fewer than the 2 of class_quotas",
            "keeps 0 frames of class 8: fewer than the 1 of class_quotas",
        ]
        assert remarks_on_bounds(torch.tensor([0, 1]), stage(n=2), costs=None, shown={}) == []

    def test_quotas_need_labels_where_there_are_boxes(self) -> None:
        one = stage(n=1, class_quotas={7: 1})
        check_labels(Pool(["a"], torch.tensor([0, 0])), one)
        check_labels(Pool(["a"], torch.tensor([0, 1])), stage(n=1))
        with pytest.raises(InvalidInputError, match="`class_quotas` need the column `labels`"):
            check_labels(Pool(["a"], torch.tensor([0, 1])), one)


@pytest.mark.parametrize("n", [9, 30])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("policy", ["protocol", "sample"])
def test_auto_keeps_quotas_as_far_as_there_are_frames(n: int, beside: bool, policy: str) -> None:
    pool = make_looks(40, seed=6)
    labeled = make_looks(4, seed=7, prefix="l") if beside else None
    quotas = {0: 3, 2: 2}
    one = stage("auto", n, class_quotas=quotas, null_policy=policy, min_distance=0.05)
    got, _ = quietly(pool, one, labeled)
    assert len(set(got)) == len(got) == n
    shows = {label: set(itertools.compress(pool.frame_ids, shows_class(pool, label).tolist())) for label in quotas}
    rarest = min(quotas, key=lambda label: (len(shows[label]), label))
    assert all(len(shows[label] & set(got)) >= quota for label, quota in quotas.items())
    assert set(got[: quotas[rarest]]) <= shows[rarest], "the rarest class first"
    few, _ = quietly(pool, one.model_copy(update={"num_of_samples": 4}), labeled)
    assert few == got[:4] or policy == "sample", "a choice begins with that of fewer"
    free, _ = quietly(pool, stage("auto", n, null_policy=policy, min_distance=0.05), labeled)
    assert free != got, "it would have chosen others, or in another order"
    with pytest.warns(UserWarning, match="keeps 0 frames of class 9: fewer than the 2 of class_quotas"):
        run_stages(pool, stage("auto", n, class_quotas={9: 2}), labeled=labeled)
