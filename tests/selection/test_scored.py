"""Scores made here and there, and one choice from them: as from the whole pool, and as a naive loop chooses."""

from __future__ import annotations

import math
import pickle
import warnings
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection import shortlist
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.scored import Scored, choose_frames, score_frames
from cval_torch.selection.stage import DetectionSampling


def make_pool(counts: list[int], *, seed: int = 0, start: int = 0) -> Pool:
    """Scores on a coarse grid, so that there are ties; ids whose order is not that of the rows."""
    generator = torch.Generator().manual_seed(seed)
    boxes = sum(counts)
    return Pool(
        [f"f{(start + row) * 7919 % 10007:05d}" for row in range(len(counts))],
        torch.tensor([0, *counts]).cumsum(0),
        scores=torch.randint(1, 11, (boxes,), generator=generator) / 11,
        labels=torch.randint(0, 3, (boxes,), generator=generator),
        frame_embeddings=torch.randn(len(counts), 3, generator=generator),
    )


def stage(strategy: Any = "entropy", n: int | None = 3, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def quietly(function: Any, *arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"strategy": "random", "seed": 4},
    {"strategy": "probability"},
    {"bbox_selection_policy": "sum", "sort_strategy": "ascending"},
    {"class_weights": {0: 3.0, 2: 0.0}},
    {"n": None, "num_of_boxes": 4.0},
    {"n": 6, "num_of_boxes": 2.5, "strategy": "random"},
    {"n": 5, "class_quotas": {2: 3, 0: 1}},
    {"n": None, "num_of_boxes": 6.0, "class_quotas": {1: 2}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("policy", ["protocol", "skip", "last", "sample"])
@given(counts=st.lists(st.sampled_from([0, 0, 1, 2, 4]), min_size=2, max_size=30), cut=st.integers(0, 30))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_parts_that_were_scored_apart_give_the_choice_of_the_whole(
    options: dict[str, Any], policy: str, counts: list[int], cut: int
) -> None:
    pool = make_pool([*counts, 1])
    one = stage(**{**options, "null_policy": policy})
    rows = torch.arange(len(pool))
    parts = [part for part in (pool.take(rows[:cut]), pool.take(rows[cut:])) if len(part)]
    scored = Scored.cat([pickle.loads(pickle.dumps(score_frames(part, one))) for part in parts])
    whole = quietly(LocalBackend().select, pool, one)
    chosen = quietly(choose_frames, scored, one)
    assert chosen.frame_ids == whole.frame_ids
    assert chosen.rows.tolist() == whole.rows.tolist()
    assert chosen.remarks == whole.remarks
    torch.testing.assert_close(chosen.scores, whole.scores, rtol=0, atol=0, equal_nan=True)
    if one.num_of_boxes is not None:
        assert chosen.estimated_boxes.tolist() == whole.estimated_boxes.tolist()


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=25), n=st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_scores_and_choice_against_a_loop(counts: list[int], n: int) -> None:
    pool = make_pool(counts)
    assert pool.scores is not None

    def naive(row: int) -> float:
        entropies = [1.0]
        if counts[row]:
            own = pool.scores[int(pool.offsets[row]) : int(pool.offsets[row + 1])].double().tolist()
            entropies = [-s * math.log2(s) - (1 - s) * math.log2(1 - s) for s in own]
        return max(entropies)

    scored = score_frames(pool, stage(n=n))
    assert scored.is_empty.tolist() == [count == 0 for count in counts]
    assert scored.scores.tolist() == pytest.approx([naive(row) for row in range(len(pool))], rel=1e-5)
    best = sorted(range(len(pool)), key=lambda row: (-scored.scores[row], pool.frame_ids[row]))[:n]
    assert quietly(choose_frames, scored, stage(n=n)).rows.tolist() == best


def test_a_stream_of_batches_is_chosen_from_without_its_boxes() -> None:
    """What a pass of a million frames would do: score each batch, let its boxes go, and choose at the end."""
    one = stage(n=5, bbox_selection_policy="mean", num_of_boxes=9.0, class_quotas={1: 2})
    batches = [make_pool([1, 0, 3, 2], seed=number, start=4 * number) for number in range(8)]
    kept = [score_frames(batch, one) for batch in batches]
    whole = Pool.cat(batches)
    assert choose_frames(Scored.cat(kept), one).frame_ids == LocalBackend().select(whole, one).frame_ids
    assert sum(len(pickle.dumps(part)) for part in kept) < sum(len(pickle.dumps(batch)) for batch in batches)


def test_what_is_surely_not_chosen_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "_FEWEST_FRAMES", 1)
    pool = make_pool([1] * 400, seed=3)
    scored = score_frames(pool, stage(n=4))
    assert 4 <= int((~scored.scores.isnan()).sum()) < 200
    assert choose_frames(scored, stage(n=4)).frame_ids == LocalBackend().select(pool, stage(n=4)).frame_ids
    assert not score_frames(pool, stage(n=4, num_of_boxes=2.0)).scores.isnan().any(), "a budget may want any of them"


def test_frames_set_apart_are_out_of_the_running() -> None:
    pool = make_pool([1, 0, 2, 0])
    assert score_frames(pool, stage()).scores.isnan().tolist() == [False] * 4
    for policy in ("skip", "last", "sample"):
        assert score_frames(pool, stage(null_policy=policy)).scores.isnan().tolist() == [False, True, False, True]
    last = quietly(choose_frames, score_frames(pool, stage(null_policy="last")), stage(n=9, null_policy="last"))
    assert len(last) == 4
    assert last.scores.isnan().tolist() == [False, False, True, True]


def test_remarks_are_data_and_are_warned_of_once() -> None:
    pool = make_pool([1, 1])
    with pytest.warns(UserWarning, match="keeps all 2 frames there are") as caught:
        chosen = choose_frames(score_frames(pool, stage(n=9)), stage(n=9))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert chosen.remarks == ("the stage 'entropy' keeps all 2 frames there are: fewer than num_of_samples=9",)


def test_take_and_cat_keep_every_column() -> None:
    one = stage(n=None, num_of_boxes=3.0, class_quotas={0: 1, 1: 1})
    scored = score_frames(make_pool([1, 0, 2, 4, 1]), one)
    back = Scored.cat([scored.take(torch.tensor([3, 1])), scored.take(torch.tensor([0, 4, 2]))])
    order = [3, 1, 0, 4, 2]
    assert list(back.frame_ids) == [scored.frame_ids[row] for row in order]
    assert torch.equal(back.is_empty, scored.is_empty[order])
    assert torch.equal(back.scores, scored.scores[order])
    assert back.costs is not None
    assert torch.equal(back.costs, scored.costs[order])
    assert {label: shows.tolist() for label, shows in back.shown.items()} == {
        label: shows[order].tolist() for label, shows in scored.shown.items()
    }


class TestRefused:
    """Whatever cannot be scored, or chosen from, is named."""

    @pytest.mark.parametrize("strategy", ["k_center", "auto", "ppal"])
    def test_a_strategy_that_compares_frames(self, strategy: str) -> None:
        with pytest.raises(InvalidInputError, match=f"'{strategy}' compares frames with each other"):
            score_frames(make_pool([1, 2]), stage(strategy))
        scored = score_frames(make_pool([1, 2]), stage())
        with pytest.raises(InvalidInputError, match="compare embeddings, which `scored` does not hold"):
            choose_frames(scored, stage(strategy))

    def test_a_distance(self) -> None:
        scored = score_frames(make_pool([1, 2]), stage(min_distance=0.5))
        with pytest.raises(InvalidInputError, match=r"LocalBackend\(\).select"):
            choose_frames(scored, stage(min_distance=0.5))

    @pytest.mark.parametrize("bound", [{"num_of_boxes": 2.0}, {"class_quotas": {1: 1}}])
    def test_what_was_scored_for_another_stage(self, bound: dict[str, Any]) -> None:
        scored = score_frames(make_pool([1, 2]), stage())
        with pytest.raises(InvalidInputError, match="score the frames for this stage"):
            choose_frames(scored, stage(**bound))
        with pytest.raises(InvalidInputError, match="part 1 was scored for another stage"):
            Scored.cat([scored, score_frames(make_pool([1], start=9), stage(**bound))])

    def test_a_frame_in_two_parts(self) -> None:
        scored = score_frames(make_pool([1, 2]), stage())
        with pytest.raises(InvalidInputError, match=f"frame '{scored.frame_ids[1]}' is in two"):
            Scored.cat([scored, scored.take(torch.tensor([1]))])

    def test_nothing(self) -> None:
        with pytest.raises(InvalidInputError, match="one or more; got none"):
            Scored.cat([])
        with pytest.raises(InvalidInputError, match="at least one frame"):
            choose_frames(score_frames(make_pool([1]).take([]), stage()), stage())

    def test_missing_columns_and_weights_that_are_no_numbers(self) -> None:
        pool = make_pool([1, 2])
        with pytest.raises(InvalidInputError, match="needs the column `probabilities` or `scores`"):
            score_frames(pool.replace(scores=None), stage())
        with pytest.raises(InvalidInputError, match="`class_quotas` need the column `labels`"):
            score_frames(pool.replace(labels=None), stage(class_quotas={1: 1}))
        with pytest.raises(InvalidInputError, match="needs the class counts of what is annotated"):
            score_frames(pool, stage(class_weights="balanced"))

    def test_a_frame_without_boxes_where_there_must_be_none(self) -> None:
        pool = make_pool([1, 0])
        one = stage(use_null_detections=False)
        with pytest.raises(InvalidInputError, match=f"frame '{pool.frame_ids[1]}' has no boxes"):
            choose_frames(score_frames(pool, one), one)
