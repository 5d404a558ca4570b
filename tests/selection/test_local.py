"""The local backend as a user meets it: what a Selection holds, callables in place of names, frames without boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Selection
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.protocol import DetectionSamplingRequest


def stage(strategy: Any = "entropy", n: int = 2, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def select(pool: Pool, *stages: DetectionSampling) -> Selection:
    return LocalBackend().select(pool, stages)


@pytest.fixture
def pool() -> Pool:
    """Frames of 2, 0, 1, 3, 0 and 1 boxes."""
    return Pool(
        ["f", "e", "d", "c", "b", "a"],
        torch.tensor([0, 2, 2, 3, 6, 6, 7]),
        scores=torch.tensor([0.9, 0.6, 0.5, 0.99, 0.7, 0.8, 0.95]),
        indices=torch.tensor([10, 20, 30, 40, 50, 60]),
        box_embeddings=torch.eye(7),
        frame_embeddings=torch.eye(6),
    )


def test_where_the_embeddings_are_does_not_matter_in_process(pool: Pool) -> None:
    request = DetectionSamplingRequest.model_validate({**stage().model_dump(), "dataset_id": "x"})
    assert select(pool, request).frame_ids == select(pool, stage()).frame_ids


def test_labeled_frames_are_stayed_away_from() -> None:
    """Two looks among the frames; one is annotated already."""
    looks = torch.tensor([[1.0, 0], [1, 0.1], [1, 0], [0, 1], [0.1, 1]])
    pool = Pool(list("abcde"), torch.zeros(6, dtype=torch.int64), frame_embeddings=looks)
    labeled = Pool(["z"], torch.zeros(2, dtype=torch.int64), frame_embeddings=looks[:1])
    for strategy in ("clustering", "hierarchical"):
        one = stage(strategy, 1, num_of_clusters=1 if strategy == "clustering" else 2)
        assert LocalBackend().select(pool, one).frame_ids[0] in "abc"
        assert LocalBackend(labeled=labeled).select(pool, one).frame_ids[0] in "de"


class TestCallables:
    def test_a_strategy(self, pool: Pool) -> None:
        chosen = select(pool, stage(lambda pool: pool.counts, 3))
        assert chosen.frame_ids == ("c", "f", "a")
        assert chosen.scores.tolist() == [3, 2, 1]

    def test_a_strategy_in_the_other_direction_and_as_a_list(self, pool: Pool) -> None:
        chosen = select(pool, stage(lambda pool: pool.counts.tolist(), 3, sort_strategy="ascending"))
        assert chosen.frame_ids == ("b", "e", "a")

    def test_a_policy_sees_each_frame_without_boxes_as_one_box(self, pool: Pool) -> None:
        seen: list[tuple[Tensor, Tensor]] = []

        def second_moment(scores: Tensor, offsets: Tensor) -> Tensor:
            seen.append((scores, offsets))
            frames = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())
            return torch.zeros(len(offsets) - 1, dtype=scores.dtype).index_add_(0, frames, scores.square())

        chosen = select(pool, stage("least", 6, bbox_selection_policy=second_moment))
        assert seen[0][1].tolist() == [0, 2, 3, 4, 7, 8, 9]
        uncertain = {"f": [0.2, 0.8], "e": [1], "d": [1], "c": [0.02, 0.6, 0.4], "b": [1], "a": [0.1]}
        expected = {key: sum(u * u for u in values) for key, values in uncertain.items()}
        assert chosen.frame_ids == tuple(sorted(expected, key=lambda key: (-round(expected[key], 5), key)))
        assert chosen.scores.tolist() == pytest.approx([expected[key] for key in chosen.frame_ids], abs=1e-6)

    def test_of_probability_such_a_box_has_0(self, pool: Pool) -> None:
        got: list[Tensor] = []
        select(pool, stage("probability", bbox_selection_policy=lambda s, o: got.append(s) or torch.zeros(len(o) - 1)))
        assert [round(value, 2) for value in got[0].tolist()] == [0.9, 0.6, 0, 0.5, 0.99, 0.7, 0.8, 0, 0.95]

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            (torch.zeros(5), r"F=6 frames; got \(5,\)"),
            (torch.zeros(6, 1), r"got \(6, 1\)"),
            (0.5, r"got \(\)"),
            (None, "got NoneType"),
            ("high", "got str"),
            (torch.tensor([0, 0, torch.nan, 0, 0, 0]), "finite.*nan for 'd'"),
            (torch.tensor([0, 0, 0, 0, 0, -torch.inf]), "finite.*-inf for 'a'"),
        ],
    )
    def test_what_they_return_is_checked_and_they_are_named(self, pool: Pool, result: object, message: str) -> None:
        def my_own(*_: object) -> object:
            return result

        for options in ({"strategy": my_own}, {"bbox_selection_policy": my_own}):
            field = "selection_strategy" if "strategy" in options else "bbox_selection_policy"
            with pytest.raises(InvalidInputError, match=f"{field} .*my_own.*{message}"):
                select(pool, stage(**options))

    def test_an_object_without_a_name(self, pool: Pool) -> None:
        class Scorer:
            def __call__(self, pool: Pool) -> Tensor:
                return torch.zeros(1)

        with pytest.raises(InvalidInputError, match=r"Scorer' must return"):
            select(pool, stage(Scorer()))


class TestNullPolicies:
    """Frames `b` and `e` have no boxes."""

    @pytest.mark.parametrize("strategy", ["least", "margin", "ratio", "entropy"])
    def test_protocol_takes_them_for_the_most_uncertain(self, pool: Pool, strategy: str) -> None:
        chosen = select(pool, stage(strategy, 4))
        assert chosen.frame_ids == ("b", "d", "e", "f")
        assert chosen.scores[:3].tolist() == [1, 1, 1]

    def test_protocol_gives_them_probability_0(self, pool: Pool) -> None:
        assert select(pool, stage("probability", 3)).frame_ids == ("b", "e", "d")
        assert select(pool, stage("probability", 2, sort_strategy="descending")).frame_ids == ("c", "a")

    def test_skip(self, pool: Pool) -> None:
        with pytest.warns(UserWarning, match="all 4 frames with boxes, .*'skip'.*num_of_samples=5"):
            chosen = select(pool, stage("entropy", 5, null_policy="skip"))
        assert chosen.frame_ids == ("d", "f", "c", "a")

    def test_skip_of_everything_is_refused(self, pool: Pool) -> None:
        with pytest.raises(InvalidInputError, match=r"'skip'.*none of the 2 frames"):
            select(pool.take([1, 4]), stage(n=1, null_policy="skip"))

    @pytest.mark.parametrize("strategy", ["entropy", "random", "clustering", lambda pool: pool.counts * 0])
    def test_last(self, pool: Pool, strategy: str | Callable[[Pool], Tensor]) -> None:
        chosen = select(pool, stage(strategy, 6, null_policy="last"))
        assert chosen.frame_ids[4:] == ("b", "e")
        assert chosen.scores[4:].isnan().all()
        assert not {"b", "e"} & set(select(pool, stage(strategy, 4, null_policy="last")).frame_ids)

    @pytest.mark.parametrize("strategy", ["entropy", "random", "hierarchical"])
    def test_sample_gives_them_their_share_at_random(self, pool: Pool, strategy: str) -> None:
        third = Counter[str]()
        for seed in range(60):
            chosen = select(pool, stage(strategy, 3, null_policy="sample", seed=seed))
            assert not {"b", "e"} & set(chosen.frame_ids[:2])
            assert math.isnan(chosen.scores[2])
            third[chosen.frame_ids[2]] += 1
        assert set(third) == {"b", "e"}
        assert min(third.values()) > 10

    @pytest.mark.parametrize("n", range(1, 11))
    @pytest.mark.parametrize("nulls", range(11))
    def test_sample_rounds_the_share_and_never_runs_out(self, n: int, nulls: int) -> None:
        counts = torch.tensor([0] * nulls + [1] * (10 - nulls))
        pool = Pool([f"{row}" for row in range(10)], torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
                    scores=torch.rand(10 - nulls))  # fmt: skip
        chosen = select(pool, stage(n=n, null_policy="sample"))
        assert len(set(chosen.frame_ids)) == n
        assert abs(sum(row < nulls for row in chosen.rows.tolist()) - n * nulls / 10) <= 0.5

    def test_a_pool_that_has_none_is_the_same_under_all(self, pool: Pool) -> None:
        seen = pool.take([0, 2, 3, 5])
        chosen = {select(seen, stage(n=3, null_policy=policy)).frame_ids  # type: ignore[arg-type]
                  for policy in ("protocol", "skip", "last", "sample")}  # fmt: skip
        assert len(chosen) == 1
