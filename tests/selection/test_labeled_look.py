"""Annotated frames that come batch by batch: the choice beside them is that beside a pool of them, to the bit."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_names import DIVERSITIES, POOL_DIVERSITIES
from threads_as_ranks import as_ranks
from tied_frames import make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.labeled import Labeled
from cval_torch.selection.labeled_look import LabeledLook
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling

ALONE = Ranks(distributed=False)


def one(strategy: str, n: int = 4, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


STAGES = {
    **{name: [one(name)] for name in (*DIVERSITIES, *POOL_DIVERSITIES)},
    "a distance": [one("entropy", min_distance=1.0)],
    "contents and a distance": [one("auto", min_distance=0.4)],
    "boxes and a distance": [one("ppal", min_distance=0.4)],
    "vectors after scores": [one("least", 7), one("k_center")],
    "boxes after vectors": [one("weighted_kmeans", 7), one("ppal")],
    "contents after vectors": [one("kmeans_plus_plus", 7), one("class_gain")],
}


def looked_at(pool: Pool, stages: list[DetectionSampling], size: int) -> Labeled:
    look = LabeledLook(stages)
    for part in pool.parts(frames=size):
        look.add(part)
    return look.labeled(range(len(pool)), ALONE)


def chosen(pool: Pool, labeled: Pool | Labeled, stages: list[DetectionSampling]) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are fewer frames than asked for
        selection = LocalBackend(labeled=labeled).select(pool, stages)
    return selection.frame_ids, selection.scores.nan_to_num(-1).tolist()


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("width", [6, 3])
def test_the_choice_is_that_beside_a_pool(name: str, width: int) -> None:
    stages, matters = STAGES[name], False
    for seed in range(3):
        pool = make_tied_pool([2, 0, 1, 3, 0, 5, 1, 0, 2, 2, 7, 1, 0, 3, 1, 1, 4, 0, 2], seed=seed)
        pool = pool.replace(frame_embeddings=torch.randn(len(pool), width))
        known, rest = pool.part(0, 8), pool.part(8, len(pool))
        expected = chosen(rest, known, stages)
        matters |= expected != chosen(rest, known.take([]), stages)
        for size in (1, 3, 8):
            assert chosen(rest, looked_at(known, stages, size), stages) == expected
    assert matters or name in ("kmeans_plus_plus", "diverse_prototypes")


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 4), min_size=2, max_size=14),
    known=st.integers(1, 13),
    size=st.integers(1, 5),
    seed=st.integers(0, 9),
    name=st.sampled_from(sorted(STAGES)),
    columns=st.sampled_from(["all", "no frame embeddings", "no scores", "frames alone"]),
)
def test_whatever_the_frames_are(counts: list[int], known: int, size: int, seed: int, name: str, columns: str) -> None:
    """The same choice, or the same error."""
    pool = make_tied_pool(counts, seed=seed)
    dropped = {
        "no frame embeddings": ["frame_embeddings"],
        "no scores": ["scores"],
        "frames alone": ["box_embeddings", "labels"],
    }
    pool = pool.replace(**dict.fromkeys(dropped.get(columns, [])))
    known = min(known, len(pool) - 1)
    labeled, rest, stages = pool.part(0, known), pool.part(known, len(pool)), STAGES[name]

    def outcome(beside: Any) -> tuple[Any, ...]:
        try:
            return chosen(rest, beside(), stages)
        except InvalidInputError:
            return ("refused",)

    assert outcome(lambda: looked_at(labeled, stages, size)) == outcome(lambda: labeled)


@pytest.mark.parametrize("name", [*STAGES, "counted"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_frames_of_several_processes_are_those_of_one(name: str, size: int) -> None:
    """Dealt in turn, the last process with none where there are three."""
    stages, counted = STAGES.get(name, []), name == "counted"
    pool = make_tied_pool([2, 0, 1, 3, 0, 5, 1, 0, 2, 2, 7])
    known, rest = pool.part(0, 5), pool.part(5, len(pool))

    def look_at(ranks: Ranks) -> Labeled:
        look, places = LabeledLook(stages, counted=counted), list(range(ranks.rank, 5, min(ranks.size, 2)))
        places = places if ranks.rank < 2 else []
        for place in places:
            look.add(known.take([place]))
        return look.labeled(places, ranks)

    found = as_ranks(size, look_at) if size > 1 else [look_at(ALONE)]
    for labeled in found:
        assert isinstance(labeled, Labeled), labeled
        assert list(labeled.frame_ids) == list(known.frame_ids)
        if counted:
            assert labeled.pool is not None
            assert torch.equal(labeled.pool.labels, known.labels)
        else:
            assert chosen(rest, labeled, stages) == chosen(rest, known, stages)


def test_a_frame_in_two_processes_is_refused() -> None:
    known = make_tied_pool([2, 1])

    def look_at(ranks: Ranks) -> Labeled:
        look = LabeledLook([one("k_center")])
        look.add(known.take([0]))
        return look.labeled([ranks.rank], ranks)

    assert all("is in two of the parts" in str(error) for error in as_ranks(2, look_at))


@pytest.mark.parametrize(
    ("stages", "counted", "columns"),
    [
        ([], True, {"labels", "scores"}),
        ([one("entropy"), one("k_center")], False, {"labels", "scores", "box_embeddings", "frame_embeddings"}),
        ([one("least", min_distance=0.1)], False, {"labels", "scores", "box_embeddings", "frame_embeddings"}),
        ([one("entropy", class_quotas={1: 2})], False, set()),
        (
            [one("auto")],
            True,
            {"labels", "scores", "probabilities", "box_embeddings", "frame_embeddings"},
        ),
        ([one("diverse_prototypes")], False, {"labels", "scores", "probabilities", "box_embeddings"}),
    ],
)
def test_the_columns_that_are_asked_for(stages: list[DetectionSampling], counted: bool, columns: set[str]) -> None:
    assert set(LabeledLook(stages, counted=counted).columns) == columns


@pytest.mark.parametrize("name", STAGES)
def test_embeddings_of_boxes_are_kept_only_where_boxes_are_compared(name: str) -> None:
    """100 boxes of a frame take 100 vectors, and a frame takes one, or one and a half."""
    pool = make_tied_pool([100] * 3, width=64)
    pool = pool.replace(box_embeddings=pool.box_embeddings.float(), frame_embeddings=None)  # type: ignore[union-attr]
    look = LabeledLook(STAGES[name])
    look.add(pool)
    one_by_one = 4 * 64 * pool.num_boxes
    if any(stage.selection_strategy in ("ppal", "diverse_prototypes") for stage in STAGES[name]):
        assert look.nbytes > one_by_one
    else:
        assert look.nbytes < 3 * 4 * 64 * 2 + 1000
        assert look.labeled(range(3), ALONE).pool is None


def test_other_widths_than_before_are_refused() -> None:
    look = LabeledLook([one("k_center")])
    look.add(make_tied_pool([2]))
    with pytest.raises(InvalidInputError, match="`frame_embeddings` had 6 numbers a row"):
        look.add(make_tied_pool([2], width=7))


def test_no_frames_at_all_are_refused() -> None:
    for stages in ([one("ppal")], [one("k_center")]):
        with pytest.raises(InvalidInputError, match="at least one frame"):
            LabeledLook(stages).labeled([], ALONE)
