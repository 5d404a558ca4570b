"""Frames that come batch by batch: the choice is that of a pool that has all of them, and little is kept."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tied_frames import make_tied_pool

from cval_torch.errors import CvalError, InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.selection import candidates
from cval_torch.selection.backend import Selection
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.out_of_core import FirstLook, first_look, scores_each_frame
from cval_torch.selection.signals import max_zscore
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.together import begin_look, choose_from
from cval_torch.strategies.columns import COLUMNS, needs

BY_FRAME = ("least", "margin", "ratio", "entropy", "probability")
COMPARING = ("random", "k_center", "clustering", "weighted_kmeans", "kmeans_plus_plus", "typicality", "class_gain")
BACKEND = LocalBackend(labeled_counts={0: 9.0, 2: 1.0})


@needs("scores")
def most_boxes(pool: Pool) -> torch.Tensor:
    """A callable that declares what it reads, and looks at all frames."""
    assert pool.probabilities is None
    return (pool.counts - pool.counts.double().mean()).abs()


def undeclared(pool: Pool) -> torch.Tensor:
    assert pool.box_embeddings is not None
    return pool.counts.double()


def last_less_mean(box_scores: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return box_scores[offsets[1:] - 1] - box_scores.mean()


OTHERS = ("ppal", "diverse_prototypes", most_boxes, undeclared, max_zscore("entropy", ("least", "sum")))


def stage(strategy: Any, n: int | None = 5, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def batches_of(pool: Pool, sizes: Sequence[int]) -> list[Pool]:
    parts, begin = [], 0
    for size in [*sizes, len(pool)]:
        rows = list(range(begin, min(begin + size, len(pool))))
        begin += size
        if rows:
            parts.append(pool.take(rows))
    return parts


def chosen_from_batches(
    pool: Pool,
    sizes: Sequence[int],
    stages: Sequence[DetectionSampling],
    backend: LocalBackend,
    *,
    predictions: int = 0,
) -> tuple[Selection, Pool, bool]:
    """The choice, its frames, and whether predictions were asked for again."""
    look, asked = begin_look(stages, backend, Ranks(distributed=False), predictions=predictions), [False]
    for part in batches_of(pool, sizes):
        look.add(part)

    def again(rows: torch.Tensor) -> Pool:
        asked[0] = True
        return pool.take(rows)

    selection, frames = choose_from(look, range(len(pool)), backend, Ranks(distributed=False), again=again)
    return selection, frames, asked[0]


def outcome_of(choose: Callable[[], Selection]) -> Any:
    """The choice to the last bit, or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            chosen = choose()
        except CvalError as error:
            return f"{type(error).__name__}: {error}"
    assert chosen.indices is not None
    numbers = [chosen.scores.nan_to_num(-1).tolist(), chosen.estimated_boxes.tolist(), chosen.indices.tolist()]  # type: ignore[union-attr]
    return [chosen.frame_ids, numbers, chosen.remarks]


def random_stage(generator: random.Random, strategies: Sequence[Any], n: int) -> DetectionSampling:
    strategy = generator.choice(strategies)
    options: dict[str, Any] = {
        "null_policy": generator.choice(["protocol", "skip", "last", "sample"]),
        "sort_strategy": generator.choice(["ascending", "descending", None]),
        "bbox_selection_policy": generator.choice(["min", "max", "mean", "sum", None]),
        "seed": generator.randrange(5),
        "num_of_boxes": generator.choice([None, None, 2, 9]),
        "num_of_minutes": generator.choice([None, None, 1, 4]),
    }
    if strategy in ("least", "margin", "ratio", "entropy"):
        options["class_weights"] = generator.choice([None, {0: 2.5, 1: 0.3, 9: 7}, "balanced"])
    if strategy in (*BY_FRAME, "random", "auto", most_boxes):
        options["class_quotas"] = generator.choice([None, None, {0: 2, 2: 3}, {1: 50}])
    if strategy == "entropy" and generator.random() < 0.3:
        options["probs_weights"] = [1.0, 0.5, 2.0, 0.0]
    frames = None if options["num_of_boxes"] is not None and generator.random() < 0.5 else n
    return stage(strategy, frames, **options)


@given(
    counts=st.lists(st.sampled_from([0, 0, 1, 2, 3, 5]), min_size=1, max_size=40),
    sizes=st.lists(st.integers(0, 9), max_size=10),
    activation=st.sampled_from(["softmax", "sigmoid", None]),
    number=st.integers(0, 10**6),
    spare=st.sampled_from([0, 1, 7, 256]),
    kind=st.sampled_from([BY_FRAME, COMPARING, OTHERS]),
    predictions=st.sampled_from([0, 10**9]),
)
@settings(max_examples=400, deadline=None)
def test_the_choice_is_that_of_the_whole_pool(
    counts: list[int], sizes: list[int], activation: str, number: int, spare: int, kind: Any, predictions: int
) -> None:
    generator = random.Random(number)
    pool = make_tied_pool(counts, seed=number % 97, activation=activation)
    if generator.random() < 0.5:
        pool = pool.replace(box_embeddings=pool.box_embeddings.float(), frame_embeddings=pool.frame_embeddings.float())  # type: ignore[union-attr]
    stages = [random_stage(generator, kind, generator.choice([1, 4, 12]))]
    if (kind is COMPARING and generator.random() < 0.3) or generator.random() < 0.15:
        stages[0] = stages[0].model_copy(update={"min_distance": 0.4})
    if kind is OTHERS and generator.random() < 0.3:
        stages[0] = stage("entropy", 6, bbox_selection_policy=last_less_mean)
    while generator.random() < 0.5:
        stages.append(random_stage(generator, (*BY_FRAME, *COMPARING, *OTHERS), generator.choice([1, 3, 8])))
        if generator.random() < 0.3:
            stages[-1] = stages[-1].model_copy(update={"min_distance": 0.4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_SPARE", spare)
        streamed = outcome_of(lambda: chosen_from_batches(pool, sizes, stages, BACKEND, predictions=predictions)[0])
    assert streamed == outcome_of(lambda: BACKEND.select(pool, stages))


@pytest.mark.parametrize("strategy", [*BY_FRAME, *COMPARING])
def test_labeled_frames_count_for_a_stream_too(strategy: str) -> None:
    pool = make_tied_pool([1, 0, 2, 3, 1, 4, 0, 2] * 4)
    known = make_tied_pool([2, 0, 3, 1], seed=5)
    backend = LocalBackend(labeled=known.replace(frame_ids=[f"known{row}" for row in range(len(known))]))
    stages = [stage(strategy, 6)]
    streamed = outcome_of(lambda: chosen_from_batches(pool, [3, 9, 1], stages, backend)[0])
    assert streamed == outcome_of(lambda: backend.select(pool, stages))


def test_predictions_of_what_scores_frames_are_kept_with_the_best() -> None:
    pool = make_tied_pool([2, 0, 3, 1] * 30)
    for stages in ([stage("entropy", 4)], [stage("entropy", 9), stage("k_center", 4)]):
        selection, frames, asked = chosen_from_batches(pool, [7] * 20, stages, BACKEND)
        whole = pool.take([pool.frame_ids.index(frame_id) for frame_id in selection.frame_ids])
        assert not asked
        assert frames.probabilities is not None
        assert torch.equal(frames.probabilities, whole.probabilities)
        assert torch.equal(frames.boxes if frames.boxes is not None else torch.ones(0), torch.ones(0))
        assert torch.equal(frames.labels, whole.labels)


@pytest.mark.parametrize("strategy", ["k_center", "auto", most_boxes])
def test_predictions_of_others_are_asked_for_again(strategy: Any) -> None:
    pool = make_tied_pool([2, 0, 3, 1] * 5)
    selection, frames, asked = chosen_from_batches(pool, [7] * 3, [stage(strategy)], BACKEND)
    assert asked
    assert frames.frame_ids == selection.frame_ids
    assert frames.probabilities is not None


def test_up_to_a_number_of_bytes_they_are_kept_of_all() -> None:
    pool = make_tied_pool([2, 0, 3, 1] * 5)
    asked = [
        chosen_from_batches(pool, [7] * 3, [stage("k_center")], BACKEND, predictions=most)[2] for most in (10**6, 1000)
    ]
    assert asked == [False, True]


def bytes_a_frame(stages: Sequence[DetectionSampling], frames: int) -> float:
    """What a look keeps of frames of 3 boxes, each with 64 classes and 512 numbers of embedding."""
    look = first_look(stages)
    generator = torch.Generator().manual_seed(0)
    for start in range(0, frames, 10):
        look.add(
            Pool(
                [f"{row:06d}" for row in range(start, start + 10)],
                torch.arange(0, 31, 3),
                scores=torch.rand(30, generator=generator),
                labels=torch.randint(0, 64, (30,), generator=generator),
                boxes=torch.rand(30, 2, generator=generator).repeat(1, 2),
                probabilities=torch.rand(30, 64, generator=generator),
                activation="sigmoid",
                box_embeddings=torch.randn(30, 512, generator=generator),
                frame_embeddings=torch.randn(10, 128, generator=generator),
                indices=torch.arange(start, start + 10),
            )
        )
    return look.growing_bytes / frames


def test_what_is_kept_of_a_frame() -> None:
    assert bytes_a_frame([stage("entropy")], 200) < 300
    assert bytes_a_frame([stage("entropy", num_of_boxes=3, class_quotas={1: 2})], 200) < 300
    assert bytes_a_frame([stage("random")], 200) < 300
    assert bytes_a_frame([stage("k_center")], 200) < 512 * 4 + 400
    assert bytes_a_frame([stage("auto")], 200) < 512 * 2 + 128 * 4 + 500
    assert bytes_a_frame([stage(undeclared)], 200) > 3 * 512 * 4


def test_columns_that_have_to_be_given() -> None:
    predictions = {"boxes", "labels", "scores", "probabilities"}
    cases: list[tuple[list[DetectionSampling], set[str]]] = [
        ([stage("probability")], predictions),
        ([stage("entropy"), stage("k_center")], {*predictions, "box_embeddings", "frame_embeddings"}),
        ([stage("k_center")], {"labels", "scores", "box_embeddings", "frame_embeddings"}),
        ([stage("auto")], {"labels", "scores", "probabilities", "box_embeddings", "frame_embeddings"}),
        ([stage("random")], set()),
        ([stage(most_boxes)], {"scores"}),
        ([stage(undeclared)], set(COLUMNS)),
    ]
    for stages, columns in cases:
        assert first_look(stages).columns == columns


def test_vectors_are_kept_in_a_folder(tmp_path: Path) -> None:
    pool = make_tied_pool([2, 0, 3, 1] * 5)
    for strategy in ("k_center", "auto"):
        folder = tmp_path / strategy
        folder.mkdir()
        look: FirstLook = first_look([stage(strategy)], scratch=folder)
        for part in batches_of(pool, [6, 6]):
            look.add(part)
        summary = look.summary()
        assert {path.name for path in folder.iterdir()} <= {"looks", "half_looks", "frames"}
        assert list(folder.iterdir())
        ours = first_look([stage(strategy)])
        ours.add(pool)
        for name, column in ours.summary().columns().items():
            assert torch.equal(summary.columns()[name].nan_to_num(-1), column.nan_to_num(-1)), name


def test_frames_without_boxes_where_there_must_be_none_are_found_as_they_come() -> None:
    look = first_look([stage("k_center", use_null_detections=False)])
    look.add(make_tied_pool([1, 2]))
    with pytest.raises(InvalidInputError, match="use_null_detections=False, but frame"):
        look.add(make_tied_pool([1, 0]))


def test_nothing() -> None:
    for strategy in ("entropy", "k_center", most_boxes):
        with pytest.raises(InvalidInputError, match="at least one frame"):
            first_look([stage(strategy)]).summary()


def test_a_frame_twice() -> None:
    for strategy in ("entropy", "k_center", most_boxes):
        look = first_look([stage(strategy)])
        look.add(make_tied_pool([1, 2]))
        look.add(make_tied_pool([1, 2]))
        with pytest.raises(InvalidInputError, match=r"is in two of the parts|must be distinct"):
            look.summary()


def test_which_stages_score_each_frame() -> None:
    assert all(scores_each_frame(stage(name)) for name in BY_FRAME)
    assert not any(scores_each_frame(stage(name)) for name in (*COMPARING, *OTHERS))
    assert not scores_each_frame(stage("entropy", min_distance=0.1))
    assert not scores_each_frame(stage("entropy", bbox_selection_policy=last_less_mean))
