"""`select` end to end: a real detector, a real loader, a `Subset` of the right rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_descriptors import naive_descriptors
from tiny_rcnn import Frames, Stream, loader_of, make_faster_rcnn
from torch.utils.data import Subset

from cval_torch import (
    DetectionSampling,
    LabelPool,
    LocalBackend,
    PassOptions,
    Pool,
    RestBackend,
    SamplerCallback,
    SelectedFrames,
    Selection,
    extract,
    select,
)
from cval_torch.errors import InvalidInputError, NoSubsetError, NotEnoughMemoryError
from cval_torch.strategies.class_gain import class_gain
from cval_torch.strategies.registry import STRATEGIES


def naive_entropy_max(pool: Pool) -> list[tuple[float, str]]:
    """(-score, id) of each frame: the highest normalised entropy of its boxes; one box of 0.5 where there is none."""
    assert pool.probabilities is not None
    frames = []
    for row, frame_id in enumerate(pool.frame_ids):
        boxes = pool.probabilities[pool.offsets[row] : pool.offsets[row + 1]].tolist()
        scores = [-sum(p * math.log2(p) for p in box if p > 0) / math.log2(len(box)) for box in boxes] or [1.0]
        frames.append((-max(scores), frame_id))
    return sorted(frames)


def test_the_one_liner_ranks_by_uncertainty_and_subsets_the_loaders_dataset() -> None:
    model, frames = make_faster_rcnn(), Frames(8, image_ids=True)
    chosen = select(model, loader_of(frames), num_of_samples=3, selection_strategy="entropy", progress=False)
    expected = naive_entropy_max(extract(model, loader_of(frames), progress=False))[:3]
    assert chosen.frame_ids == tuple(frame_id for _, frame_id in expected)
    assert chosen.scores.tolist() == pytest.approx([-score for score, _ in expected], abs=1e-5)
    assert isinstance(chosen, Subset)
    assert chosen.dataset is frames
    assert [str(1000 + row) for row in chosen.indices] == list(chosen.frame_ids)
    assert [sample[1]["image_id"] for sample in (chosen[n] for n in range(3))] == [int(i) for i in chosen.frame_ids]
    assert "3 of 8 frames by entropy" in repr(chosen)


def test_a_service_that_needs_all_embeddings_is_refused_before_anything_is_loaded() -> None:
    options: dict[str, Any] = {"backend": RestBackend(api_key="key-of-tests", url="http://127.0.0.1:9/api")}
    with pytest.raises(InvalidInputError, match=r"^`top_boxes=2` keeps the embeddings of some boxes only, and stage 0"):
        select(make_faster_rcnn(), [object()], num_of_samples=1, top_boxes=2, selection_strategy="k_center", **options)
    stages = DetectionSampling(selection_strategy="clustering", num_of_samples=1)
    with pytest.raises(InvalidInputError, match=r"^`top_boxes=2`"):
        SamplerCallback(LabelPool(Frames(4)), loader_of, stages, options=PassOptions(top_boxes=2), **options)


ENTROPY: dict[str, Any] = {"selection_strategy": "entropy"}


def test_without_a_strategy_it_is_the_one_that_is_recommended() -> None:
    frames = Frames(9)
    chosen = select(make_faster_rcnn(), loader_of(frames), num_of_samples=3, progress=False)
    pool = extract(make_faster_rcnn(), loader_of(frames), progress=False)
    assert chosen.frame_ids == tuple(pool.frame_ids[row] for row in class_gain(pool, 3, seed=0).tolist())
    assert [stage.selection_strategy for stage in chosen.stages] == ["auto"]


@pytest.mark.parametrize("options", [{"shuffle": True}, {"num_workers": 2}, {"drop_last": True, "batch_size": 3}])
def test_the_choice_does_not_depend_on_how_the_loader_goes(options: dict[str, Any]) -> None:
    frames = Frames(8, size=48)
    plain = select(make_faster_rcnn(), loader_of(frames), num_of_samples=4, progress=False)
    other = select(make_faster_rcnn(), loader_of(frames, **options), num_of_samples=4, progress=False)
    assert other.frame_ids == plain.frame_ids
    assert other.indices == plain.indices


def test_the_subset_of_a_subset_has_rows_of_the_loaders_dataset() -> None:
    unlabeled = Subset(Frames(9), [8, 3, 5, 1])
    chosen = select(make_faster_rcnn(), loader_of(unlabeled), num_of_samples=2, progress=False)
    assert chosen.dataset is unlabeled
    assert [unlabeled.indices[index] for index in chosen.indices] == [int(name) for name in chosen.frame_ids]
    assert chosen[0][1]["row"] == [8, 3, 5, 1][chosen.indices[0]]


def test_the_predictions_of_the_chosen_come_along_without_embeddings() -> None:
    model, frames = make_faster_rcnn(), Frames(6)
    chosen = select(model, loader_of(frames), num_of_samples=2, progress=False)
    pool = extract(model, loader_of(frames), progress=False)
    reference = pool.take(chosen.indices)
    assert chosen.predictions.frame_ids == chosen.frame_ids
    assert torch.equal(chosen.predictions.boxes, reference.boxes)
    assert chosen.predictions.box_embeddings is None
    assert chosen.predictions.frame_embeddings is None


def test_stages_are_the_same_in_one_step_or_two() -> None:
    stages = [
        DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=6),
        DetectionSampling(selection_strategy="clustering", num_of_samples=3),
    ]
    model, frames = make_faster_rcnn(), Frames(10)
    chosen = select(model, loader_of(frames), stages=stages, progress=False)
    pool = extract(model, loader_of(frames), progress=False)
    selection = LocalBackend().select(pool, stages)
    assert chosen.frame_ids == selection.frame_ids
    assert len(set(chosen.frame_ids)) == 3
    again = SelectedFrames(frames, selection, pool)
    assert again.indices == chosen.indices
    assert [stage.selection_strategy for stage in chosen.stages] == ["entropy", "clustering"]


LISTS: list[list[DetectionSampling]] = [
    [DetectionSampling(selection_strategy=name, num_of_samples=4)] for name in (*STRATEGIES, "probability")
]
LISTS += [
    [DetectionSampling(selection_strategy="least", num_of_samples=7, null_policy="sample"), *LISTS[number]]
    for number in range(len(STRATEGIES))
]
LISTS += [
    [DetectionSampling(selection_strategy="k_center", num_of_samples=6), *LISTS[0]],
    [DetectionSampling(selection_strategy="random", num_of_samples=6), *LISTS[0]],
    [DetectionSampling(selection_strategy="random", num_of_boxes=20.0)],
]


class Named(Frames):
    """With ids that no target tells, in another order than the rows."""

    def __init__(self, n: int) -> None:
        super().__init__(n, size=48)
        self.ids = [f"image {(71 * row) % 997:03d}" for row in range(n)]


@pytest.mark.parametrize("number", range(len(LISTS)))
@pytest.mark.parametrize("n", [11, 8])
def test_the_choice_is_that_of_two_steps(number: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit; also where predictions of the chosen frames were let go, and are inferred again."""
    monkeypatch.setattr("cval_torch.pipeline._FEW_FRAMES", 0 if n == 8 else 16)
    monkeypatch.setattr("cval_torch.selection.candidates._SPARE", 1)
    model, frames, stages = make_faster_rcnn(score_thresh=0.2), Named(n), LISTS[number]
    chosen = select(model, loader_of(frames, batch_size=3), stages=stages, progress=False)
    pool = extract(model, loader_of(frames, batch_size=3), progress=False)
    selection = LocalBackend().select(pool, stages)
    assert chosen.frame_ids == selection.frame_ids
    assert chosen.indices == selection.indices.tolist()  # type: ignore[union-attr]
    assert torch.allclose(chosen.scores.nan_to_num(-1), selection.scores.nan_to_num(-1))
    there = pool.take(selection.rows)
    assert chosen.predictions.counts.tolist() == there.counts.tolist()
    for name in ("boxes", "scores", "probabilities"):
        assert torch.allclose(getattr(chosen.predictions, name), getattr(there, name), atol=1e-3)
    assert torch.equal(chosen.predictions.labels, there.labels)


class Counting(Named):
    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.loaded: list[int] = []

    def __getitem__(self, row: int) -> Any:
        self.loaded.append(row)
        return super().__getitem__(row)


def test_after_a_draw_only_the_frames_that_were_drawn_are_inferred() -> None:
    frames = Counting(11)
    chosen = select(
        make_faster_rcnn(), loader_of(frames), num_of_samples=3, selection_strategy="random", progress=False
    )
    assert sorted(frames.loaded[1:]) == sorted(chosen.indices)  # the first shows what names frames
    with pytest.warns(UserWarning, match="keeps all 11 frames there are"):
        select(make_faster_rcnn(), loader_of(frames), num_of_samples=99, selection_strategy="random", progress=False)


@pytest.mark.parametrize("case", ["target", "frame_id", "skip", "budget"])
def test_a_draw_that_needs_to_see_the_frames_sees_all(case: str) -> None:
    frames: Any = Counting(11) if case != "target" else Frames(11, image_ids=True)
    options: dict[str, Any] = {
        "target": {},
        "frame_id": {"frame_id": lambda row, _: f"my {row}"},
        "skip": {"on_error": "skip"},
        "budget": {"num_of_boxes": 1e6},
    }[case]
    options |= {"num_of_samples": 3, "selection_strategy": "random", "progress": False}
    chosen = select(make_faster_rcnn(), loader_of(frames), **options)
    assert len(set(chosen.frame_ids)) == 3
    pool_options = {name: value for name, value in options.items() if name in ("frame_id", "on_error")}
    pool = extract(make_faster_rcnn(), loader_of(frames), progress=False, **pool_options)
    stage = DetectionSampling(selection_strategy="random", num_of_samples=3, num_of_boxes=options.get("num_of_boxes"))
    assert chosen.frame_ids == LocalBackend().select(pool, stage).frame_ids


def test_a_pass_keeps_for_a_backend_what_it_looks_at() -> None:
    seen: list[set[str]] = []

    class Noting(LocalBackend):
        def select(self, pool: Pool, stages: Any) -> Selection:
            seen.append({name for name, _ in pool.columns()})
            return super().select(pool, stages)

    class Saying(Noting):
        def columns(self, stages: Any) -> frozenset[str]:
            return frozenset(["box_embeddings"])

    for backend in (Noting(), Saying()):
        select(make_faster_rcnn(), loader_of(Frames(4)), num_of_samples=2, backend=backend, progress=False, **ENTROPY)
    always = {"offsets", "indices", "boxes", "labels", "scores", "probabilities"}
    assert seen == [{*always, "box_embeddings", "frame_embeddings"}, {*always, "box_embeddings"}]


def test_what_the_stages_read_must_fit_into_memory() -> None:
    frames = Counting(400)
    with pytest.raises(NotEnoughMemoryError, match=r"what k_center reads takes about .* KB a frame, .*`cache_dir=`"):
        select(
            make_faster_rcnn(), loader_of(frames), num_of_samples=3, selection_strategy="k_center", progress=False,
            memory_limit=30_000,
        )  # fmt: skip
    assert len(frames.loaded) < 50
    with pytest.raises(InvalidInputError, match="`memory_limit` must be at least 1"):
        select(make_faster_rcnn(), loader_of(frames), num_of_samples=3, memory_limit=0)


def test_a_callable_strategy_is_taken_as_a_name_is() -> None:
    def most_boxes(pool: Pool) -> torch.Tensor:
        return pool.counts.double()

    model, frames = make_faster_rcnn(score_thresh=0.23), Frames(8)
    chosen = select(model, loader_of(frames), num_of_samples=8, selection_strategy=most_boxes, progress=False)
    counts = chosen.predictions.counts.tolist()
    assert len(set(counts)) > 1
    assert counts == sorted(counts, reverse=True)
    assert "most_boxes" in repr(chosen)


def test_a_choice_pickles_with_its_dataset() -> None:
    """Workers of a loader over the choice get it pickled under the spawn method."""
    import pickle

    chosen = select(make_faster_rcnn(), loader_of(Frames(4)), num_of_samples=2, progress=False)
    again = pickle.loads(pickle.dumps(chosen))
    assert again.frame_ids == chosen.frame_ids
    assert torch.equal(again[0][0], chosen[0][0])


def test_a_stream_has_no_subset_and_says_so_before_the_pass() -> None:
    class Never:
        def __iter__(self) -> Any:
            raise AssertionError("the pass began")

    with pytest.raises(NoSubsetError, match=r"a Stream has no rows to index.*extract\(model, loader\)"):
        select(make_faster_rcnn(), loader_of(Stream()), num_of_samples=1)
    with pytest.raises(NoSubsetError, match=r"a Never has no rows to index"):
        select(make_faster_rcnn(), Never(), num_of_samples=1)
    pool = extract(make_faster_rcnn(), loader_of(Stream()), progress=False)
    selection = LocalBackend().select(pool, DetectionSampling(num_of_samples=2, selection_strategy="entropy"))
    assert len(selection.frame_ids) == 2
    with pytest.raises(NoSubsetError, match=r"the 2 ids are in the selection's `frame_ids`"):
        SelectedFrames(Frames(5), selection, pool)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`num_of_samples`, `num_of_boxes`, `num_of_minutes` or `stages` must be given; got none of them"),
        ({"num_of_minutes": 0}, r"`num_of_minutes`: .*greater than 0; got 0"),
        ({"num_of_samples": 1, "seconds_per_box": 3}, r"`seconds_per_box`: .*nothing without a budget in `num_of_min"),
        ({"num_of_boxes": 0}, r"`num_of_boxes`: .*greater than 0; got 0"),
        ({"num_of_samples": 2, "min_distance": 50}, r"`min_distance`: .*less than or equal to 2.12; got 50"),
        ({"num_of_samples": 2, "class_quotas": {1: 0}}, r"`class_quotas`: .*greater than or equal to 1; got 0"),
        (
            {"num_of_samples": 2, "selection_strategy": "k_center", "class_quotas": {1: 1}},
            "`class_quotas` means nothing",
        ),
        ({"num_of_samples": 0}, r"`num_of_samples`: .*greater than or equal to 1; got 0"),
        ({"num_of_samples": -3}, r"`num_of_samples`: .*got -3"),
        ({"num_of_samples": 2, "class_weights": {1: -2}}, r"`class_weights`: .*greater than or equal to 0; got -2"),
        (
            {**ENTROPY, "num_of_samples": 2, "class_weights": "balanced"},
            r"LocalBackend\(labeled_counts={label: objects}\)",
        ),
        (
            {"num_of_samples": 2, "class_weights": {1: 2}, "selection_strategy": "clustering"},
            "`class_weights` weigh least, margin, ratio, entropy of a box; got them with 'clustering'",
        ),
        ({"num_of_samples": 2, "selection_strategy": "entropi"}, r"`selection_strategy` must be .*; got 'entropi'"),
        ({"stages": []}, r"`stages` must hold at least one DetectionSampling; got none"),
        ({"num_of_samples": 2, "bbox_selection_policy": "sum"}, "`bbox_selection_policy` means nothing to 'auto'"),
        ({"num_of_samples": 2, "sort_strategy": "ascending"}, "`sort_strategy` means nothing to 'auto'"),
        ({"num_of_samples": 2, "sort_strategy": "up"}, r"`sort_strategy`: .*got 'up'"),
        ({"num_of_samples": 2, "bbox_selection_policy": "median"}, r"`bbox_selection_policy`: .*got 'median'"),
        (
            {"stages": DetectionSampling(num_of_samples=1, selection_strategy="least"), "seed": 3, "num_of_samples": 1},
            r"`stages` say everything; got `num_of_samples`, `seed` beside them",
        ),
    ],
)
def test_options_out_of_range_are_refused_before_the_pass(options: dict[str, Any], message: str) -> None:
    class Untouched(Frames):
        def __getitem__(self, row: int) -> Any:
            raise AssertionError("the pass began")

    with pytest.raises(InvalidInputError, match=message):
        select(make_faster_rcnn(), loader_of(Untouched(4)), progress=False, **options)


def test_more_frames_than_there_are_gives_all_and_warns() -> None:
    with pytest.warns(UserWarning, match=r"all 4 frames there are: fewer than num_of_samples=50"):
        chosen = select(make_faster_rcnn(), loader_of(Frames(4)), num_of_samples=50, progress=False)
    assert sorted(chosen.indices) == [0, 1, 2, 3]


def test_budgets_distances_and_quotas_of_a_real_detector() -> None:
    model, frames = make_faster_rcnn(), Frames(12)
    pool = extract(model, loader_of(frames), progress=False)
    assert pool.scores is not None
    assert pool.labels is not None
    ranked = [frame_id for _, frame_id in naive_entropy_max(pool)]
    boxes = {
        frame_id: pool.scores[pool.offsets[row] : pool.offsets[row + 1]].double().sum().item()
        for row, frame_id in enumerate(pool.frame_ids)
    }
    budget = sum(boxes[frame_id] for frame_id in ranked[:4]) + boxes[ranked[4]] / 2
    chosen = select(model, loader_of(frames), num_of_boxes=budget, progress=False, **ENTROPY)
    assert chosen.frame_ids == tuple(ranked[:4])
    assert chosen.estimated_boxes.tolist() == pytest.approx([boxes[frame_id] for frame_id in ranked[:4]])
    assert f"about {chosen.num_of_boxes:.4g} boxes" in repr(chosen)
    minutes = (4 * 30 + chosen.num_of_boxes * 12) / 60
    timed = {"num_of_minutes": minutes + 0.6, "seconds_per_frame": 30, "seconds_per_box": 12}
    again = select(model, loader_of(frames), progress=False, **timed, **ENTROPY)
    assert (again.frame_ids, again.num_of_minutes) == (chosen.frame_ids, pytest.approx(minutes))

    points = dict(zip(pool.frame_ids, naive_descriptors(pool), strict=True))
    distances = sorted(math.dist(points[a], points[b]) for a in ranked for b in ranked if a < b)
    radius = (distances[20] + distances[21]) / 2
    apart: list[str] = []
    for frame_id in ranked:
        if all(math.dist(points[frame_id], points[other]) >= radius for other in apart):
            apart.append(frame_id)
    chosen = select(model, loader_of(frames), num_of_samples=3, min_distance=radius, progress=False, **ENTROPY)
    assert chosen.frame_ids == tuple(apart[:3]) != tuple(ranked[:3])


def test_a_quota_of_a_real_detector() -> None:
    model, frames = make_faster_rcnn(score_thresh=0.23), Frames(12)
    pool = extract(model, loader_of(frames), progress=False)
    ranked = [frame_id for _, frame_id in naive_entropy_max(pool)]
    showing = [f for f in ranked if sum(score for score, label in scored(pool, f) if label == 4) >= 0.5]
    assert showing[0] not in ranked[:2]
    chosen = select(model, loader_of(frames), num_of_samples=2, class_quotas={4: 1}, progress=False, **ENTROPY)
    assert chosen.frame_ids == (ranked[0], showing[0])


def scored(pool: Pool, frame_id: str) -> list[tuple[float, int]]:
    """The score and the label of each box of a frame."""
    part = pool.take([pool.frame_ids.index(frame_id)])
    assert part.scores is not None
    assert part.labels is not None
    return list(zip(part.scores.tolist(), part.labels.tolist(), strict=True))


def test_seeds_repeat_and_differ() -> None:
    def ids(seed: int) -> tuple[str, ...]:
        options = {"num_of_samples": 5, "selection_strategy": "random", "progress": False}
        return select(make_faster_rcnn(), loader_of(Frames(20)), seed=seed, **options).frame_ids

    assert ids(1) == ids(1)
    assert len({ids(seed) for seed in range(4)}) == 4


class OfUnlabeled:
    """A pool over a part of a dataset, and a choice from it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.pool = extract(make_faster_rcnn(), loader_of(dataset), progress=False)
        stage = DetectionSampling(selection_strategy="random", num_of_samples=3, seed=2)
        self.selection = LocalBackend().select(self.pool, stage)


class Named(Frames):
    """Frames whose dataset has ids."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.ids = [f"id-{row}" for row in range(n)]


PARTS = {
    "rows": lambda: Subset(Frames(9), [8, 3, 5, 1]),
    "ids": lambda: Subset(Named(9), [8, 3, 5, 1]),
    "labels": lambda: LabelPool(Frames(9), labeled=["0", "2", "4"]).unlabeled,
}


@pytest.mark.parametrize("kind", PARTS)
def test_selected_frames_of_the_wrong_dataset_are_refused(kind: str) -> None:
    part = OfUnlabeled(PARTS[kind]())
    right = SelectedFrames(part.dataset, part.selection, part.pool)
    assert [right[place][1]["row"] for place in range(3)] == [part.dataset.indices[row] for row in right.indices]
    for wrong in (part.dataset.dataset, Subset(part.dataset.dataset, [0, 1, 2, 3, 6, 7]), Frames(40)):
        with pytest.raises(
            InvalidInputError, match=r"Pass the dataset of the loader that was extracted, `loader\.dataset`"
        ):
            SelectedFrames(wrong, part.selection, part.pool)


def test_selected_frames_of_another_pool_are_refused() -> None:
    part, other = OfUnlabeled(Subset(Frames(9), [8, 3, 5, 1])), OfUnlabeled(Subset(Frames(9), [0, 2, 4, 6]))
    with pytest.raises(InvalidInputError, match=r"the selection was made from another pool: it has frame '.' in row"):
        SelectedFrames(part.dataset, part.selection, other.pool)
    with pytest.raises(InvalidInputError, match="this pool has 1 frames"):
        SelectedFrames(part.dataset, part.selection, part.pool.take([part.selection.rows.tolist()[0]]))


def test_parts_of_one_dataset_are_told_apart_as_annotated_and_not() -> None:
    unlabeled, labeled = Subset(Frames(9), [4, 5, 6, 7, 8]), Subset(Frames(9), [0, 1, 2, 3])
    annotated = extract(make_faster_rcnn(), loader_of(labeled), progress=False)
    chosen = select(
        make_faster_rcnn(),
        loader_of(unlabeled),
        num_of_samples=2,
        backend=LocalBackend(labeled=annotated),
        progress=False,
    )
    assert set(chosen.frame_ids) <= {"4", "5", "6", "7", "8"}
