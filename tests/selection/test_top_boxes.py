"""Choosing from pools that have embeddings of the best boxes only: what is compared, and that nothing else changes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from best_boxes import embedding_best, of_best
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategy_names import DIVERSITIES, KNOWN_STRATEGIES, ON_OBJECTS
from threads_as_ranks import as_ranks
from tied_frames import make_tied_pool

from cval_torch.errors import CvalError
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.backend import Selection
from cval_torch.selection.labeled_look import LabeledLook
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.together import begin_look, choose_from, choose_from_parts, choose_together
from cval_torch.strategies.class_gain import Contents, class_gain
from cval_torch.strategies.columns import COLUMNS, needs
from cval_torch.strategies.descriptor import frame_descriptors

Stages = list[DetectionSampling]


def one(strategy: Any, n: int | None = 4, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


@needs("box_embeddings", "scores")
def spread(pool: Pool) -> torch.Tensor:
    """A callable that looks at embeddings, of whichever boxes have one."""
    pool = pool.embedded_boxes()
    assert pool.box_embeddings is not None
    assert pool.scores is not None
    total = torch.zeros(len(pool), dtype=torch.float64)
    return total.index_add_(0, pool.frame_rows, pool.box_embeddings.double().square().sum(1) * pool.scores.double())


PLANS: dict[str, Stages] = {
    **{name: [one(name)] for name in KNOWN_STRATEGIES},
    "a callable": [one(spread)],
    "a distance": [one("entropy", min_distance=0.9)],
    "a diverse distance": [one("k_center", min_distance=0.7)],
    "boxes and a distance": [one("ppal", min_distance=0.7)],
    "a budget": [one("auto", None, num_of_boxes=6.0)],
    "a budget, a quota and a distance": [one("entropy", None, num_of_boxes=6.0, class_quotas={1: 2}, min_distance=0.9)],
    "scores, then vectors": [one("entropy", 9), one("weighted_kmeans", seed=2)],
    "scores, then contents": [one("margin", 9), one("class_gain")],
    "scores, then boxes": [one("least", 9), one("ppal")],
    "vectors, then boxes": [one("k_center", 9), one("diverse_prototypes")],
}


def outcome_of(choose: Callable[[], Selection]) -> Any:
    """The choice to the last bit, or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            chosen = choose()
        except CvalError as error:
            return f"{type(error).__name__}: {error}".replace("pool 0 is", "")
    assert chosen.estimated_boxes is not None
    return chosen.frame_ids, chosen.scores.nan_to_num(-1).tolist(), chosen.estimated_boxes.tolist(), chosen.remarks


def from_batches(pool: Pool, stages: Stages, backend: LocalBackend, sizes: list[int], predictions: int) -> Selection:
    ranks = Ranks(distributed=False)
    look, begin = begin_look(stages, backend, ranks, predictions=predictions), 0
    for size in [*sizes, len(pool)]:
        end = min(begin + size, len(pool))
        if begin < end:
            look.add(pool.part(begin, end))
        begin = end
    return choose_from(look, range(len(pool)), backend, ranks, again=pool.take)[0]


def from_ranks(pool: Pool, stages: Stages, backend: LocalBackend, size: int) -> list[Any]:
    def choose(ranks: Ranks) -> Selection:
        places = list(range(ranks.rank, len(pool), size))
        return choose_together(pool.take(places), places, stages, backend, ranks)[0]

    return as_ranks(size, choose)


COUNTS = st.lists(st.sampled_from([0, 1, 2, 3, 5]), min_size=1, max_size=16)


@pytest.mark.parametrize("plan", PLANS)
@given(counts=COUNTS, seed=st.integers(0, 99), away=st.booleans(), sizes=st.lists(st.integers(0, 5), max_size=4))
@example(counts=[2, 0, 3, 1, 5, 0, 2, 4, 1, 2, 3], seed=0, away=True, sizes=[3, 0, 1])
@settings(deadline=None, max_examples=8)
def test_as_many_as_any_frame_has_changes_nothing(
    plan: str, counts: list[int], seed: int, away: bool, sizes: list[int]
) -> None:
    """To the last bit, from a pool, and from frames that come batch by batch; with annotated frames and without."""
    full, stages = make_tied_pool(counts, seed=seed), PLANS[plan]
    known = make_tied_pool([2, 0, 4, 1], seed=seed + 1)
    known = known.replace(frame_ids=[f"known {row}" for row in range(4)])
    most = max(*counts, 1)
    before, after = (
        LocalBackend(labeled=known if away else None),
        LocalBackend(labeled=embedding_best(known, 9) if away else None),
    )
    pool = embedding_best(full, most)
    expected = outcome_of(lambda: before.select(full, stages))
    assert outcome_of(lambda: after.select(pool, stages)) == expected
    assert outcome_of(lambda: before.select(pool, stages)) == expected, "one of the two may have marks alone"
    for predictions in (0, 10**9):
        assert outcome_of(lambda kept=predictions: from_batches(pool, stages, after, sizes, kept)) == expected


@pytest.mark.parametrize("plan", PLANS)
@given(
    counts=COUNTS,
    seed=st.integers(0, 99),
    k=st.integers(1, 3),
    away=st.booleans(),
    sizes=st.lists(st.integers(0, 5), max_size=4),
)
@example(counts=[2, 0, 3, 1, 5, 0, 2, 4, 1, 2, 3], seed=0, k=1, away=True, sizes=[3, 0, 1])
@settings(deadline=None, max_examples=8)
def test_however_frames_come_the_choice_is_that_of_the_whole_pool(
    plan: str, counts: list[int], seed: int, k: int, away: bool, sizes: list[int]
) -> None:
    pool, stages = embedding_best(make_tied_pool(counts, seed=seed), k), PLANS[plan]
    known = embedding_best(make_tied_pool([2, 0, 4, 1], seed=seed + 1), k)
    known = known.replace(frame_ids=[f"known {row}" for row in range(4)])
    backend = LocalBackend(labeled=known if away else None)
    expected = outcome_of(lambda: backend.select(pool, stages))
    assert outcome_of(lambda: from_batches(pool, stages, backend, sizes, 0)) == expected
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, part in enumerate(pool.parts(frames=5)):
            paths.append(Path(folder) / f"{number}")
            part.save(paths[-1])
        parts = [Pool.load(path) for path in paths]
        assert outcome_of(lambda: choose_from_parts(parts, stages, backend=backend, scratch_dir=folder)) == expected
    if away and not isinstance(expected, str):
        look = LabeledLook(stages)
        for place in range(4):
            look.add(known.part(place, place + 1))
        labeled = look.labeled(range(4), Ranks(distributed=False)) if look.columns else known
        assert outcome_of(lambda: LocalBackend(labeled=labeled).select(pool, stages)) == expected


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_choose_as_one(plan: str, size: int) -> None:
    pool = embedding_best(make_tied_pool([2, 0, 3, 1, 5, 0, 2, 4, 1, 2, 3]), 2)
    backend, stages = LocalBackend(), PLANS[plan]
    expected = outcome_of(lambda: backend.select(pool, stages))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = from_ranks(pool, stages, backend, size)
    for selection in found:
        assert isinstance(selection, Selection), selection
        assert outcome_of(lambda chosen=selection: chosen) == expected


@pytest.mark.parametrize("name", sorted({*DIVERSITIES, *ON_OBJECTS}))
@given(counts=COUNTS, seed=st.integers(0, 99), k=st.integers(1, 3), away=st.booleans())
@settings(deadline=None, max_examples=15)
def test_frames_are_compared_by_the_boxes_that_have_an_embedding(
    name: str, counts: list[int], seed: int, k: int, away: bool
) -> None:
    """As in a pool that has no other boxes."""
    full, known = make_tied_pool(counts, seed=seed), make_tied_pool([2, 0, 4, 1], seed=seed + 1)
    known = known.replace(frame_ids=[f"known {row}" for row in range(4)])

    def choose(change: Callable[[Pool, int], Pool]) -> Any:
        outcome = outcome_of(
            lambda: LocalBackend(labeled=change(known, k) if away else None).select(change(full, k), one(name))
        )
        return outcome if isinstance(outcome, str) else outcome[0]

    assert choose(embedding_best) == choose(of_best)


@pytest.mark.parametrize("name", ["least", "margin", "ratio", "entropy", "probability", "random"])
@given(counts=COUNTS, seed=st.integers(0, 99), k=st.integers(1, 3))
@settings(deadline=None, max_examples=10)
def test_scores_of_frames_are_of_all_boxes(name: str, counts: list[int], seed: int, k: int) -> None:
    full = make_tied_pool(counts, seed=seed)
    stage = one(name, bbox_selection_policy="sum") if name != "random" else one(name)
    expected = outcome_of(lambda: LocalBackend().select(full, stage))
    assert outcome_of(lambda: LocalBackend().select(embedding_best(full, k), stage)) == expected


@given(counts=COUNTS, seed=st.integers(0, 99), k=st.integers(1, 3), away=st.booleans())
@settings(deadline=None, max_examples=40)
def test_class_gain_counts_the_objects_of_all_boxes_and_compares_the_best(
    counts: list[int], seed: int, k: int, away: bool
) -> None:
    full, known = make_tied_pool([3, *counts], seed=seed), make_tied_pool([2, 0, 4, 1], seed=seed + 1)

    def contents(pool: Pool) -> Contents:
        return replace(Contents.of(pool), descriptors=Contents.of(of_best(pool, k)).descriptors)

    n = min(4, len(full))
    expected = class_gain(contents(full), n, seed=0, labeled=contents(known) if away else None)
    labeled = embedding_best(known, k) if away else None
    assert torch.equal(class_gain(embedding_best(full, k), n, seed=0, labeled=labeled), expected)


@given(counts=COUNTS, seed=st.integers(0, 99), k=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_a_distance_is_between_the_best_boxes_and_the_order_that_of_all(counts: list[int], seed: int, k: int) -> None:
    """By a loop: the frames by their scores from all boxes, without those near one that was taken before."""
    full = make_tied_pool(counts, seed=seed)
    places = dict(zip(full.frame_ids, frame_descriptors(of_best(full, k), part=True).double(), strict=True))
    ranked = outcome_of(lambda: LocalBackend().select(full, one("entropy", len(full))))[0]
    expected: list[str] = []
    for frame_id in ranked:
        if all(float((places[frame_id] - places[other]).norm()) >= 0.9 for other in expected):
            expected.append(frame_id)
    stage = one("entropy", len(full), min_distance=0.9)
    found = outcome_of(lambda: LocalBackend().select(embedding_best(full, k), stage))
    assert list(found[0])[: len(expected)] == expected, "those that are too near fill the rest up"


def test_a_callable_is_given_the_marks_with_the_embeddings() -> None:
    seen: list[set[str]] = []

    def look(pool: Pool) -> torch.Tensor:
        seen.append({name for name, _ in pool.columns()})
        return pool.counts.double()

    pool = embedding_best(make_tied_pool([2, 1, 3]), 1)
    for columns in (("box_embeddings",), ("scores",), COLUMNS):
        function = needs(*columns)(look)
        from_batches(pool, [one(function, 2)], LocalBackend(), [1], 0)
        assert ("embedded" in seen[-1]) == ("box_embeddings" in columns)
