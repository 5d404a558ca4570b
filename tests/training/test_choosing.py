"""`Chooser`: what is chosen, told by the labels' ids, and what it is told of labelled frames."""

from __future__ import annotations

import pytest
import torch
from shades import STAGE, OneBox, Shades, Tiny, make_loader, naive_choice
from torch import nn

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.passes import extract
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.choosing import Chooser, checked_share
from cval_torch.training.labels import LabelPool


def chooser(
    dataset: Shades, *stages: DetectionSampling, labeled: tuple[str, ...] = ("0", "1", "2"), **given: object
) -> Chooser:
    labels = LabelPool(dataset, labeled=labeled)
    return Chooser(labels, make_loader, stages or (STAGE,), PassOptions(adapter=OneBox(), progress=False), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_choice(wrapped: bool) -> None:
    dataset, model = Shades(20), Tiny()
    expected, scores = naive_choice(model, dataset, range(3, 20), 3)
    state = torch.get_rng_state()
    choice = chooser(dataset).choose(nn.DataParallel(model) if wrapped else model, 5, Ranks(distributed=False))
    assert torch.equal(torch.get_rng_state(), state)
    assert list(choice.round.frame_ids) == expected
    assert choice.scores.tolist() == pytest.approx(scores, rel=1e-5)
    assert (choice.round.epoch, choice.round.model_fingerprint) == (5, model_fingerprint(model))
    assert choice.predictions.indices is not None
    assert [str(row) for row in choice.predictions.indices.tolist()] == expected


def test_labelled_frames_are_avoided_unless_told_otherwise() -> None:
    dataset, model, ranks = Shades(20), Tiny(), Ranks(distributed=False)
    stage = DetectionSampling(selection_strategy="k_center", num_of_samples=1)
    [first] = chooser(dataset, stage, avoid_labeled=False).choose(model, None, ranks).round.frame_ids
    distances = (dataset.shades - dataset.shades[int(first)]).abs()
    near = tuple(str(row) for row in distances.argsort().tolist()[1:4])  # not the frame itself
    [unaware] = chooser(dataset, stage, labeled=near, avoid_labeled=False).choose(model, None, ranks).round.frame_ids
    [aware] = chooser(dataset, stage, labeled=near).choose(model, None, ranks).round.frame_ids
    given = dataset.shades[[int(name) for name in near]]
    others = [row for row in range(20) if str(row) not in near]
    assert aware == str(max(others, key=lambda row: float((dataset.shades[row] - given).abs().min())))
    assert aware != unaware


def test_a_backend_of_the_user_is_asked_alone() -> None:
    asked = []

    class Own(LocalBackend):
        def select(self, pool, stages):  # type: ignore[no-untyped-def]
            asked.append(len(pool))
            return super().select(pool, stages)

    stage = DetectionSampling(selection_strategy="k_center", num_of_samples=2)
    choice = chooser(Shades(20), stage, backend=Own()).choose(Tiny(), None, Ranks(distributed=False))
    assert len(choice.round.frame_ids) == 2
    assert asked == [17]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_share_is_drawn_at_random_from_all_that_are_unlabelled(share: float) -> None:
    """The others are what the stages choose of so many fewer; what both have counts once, and nothing comes twice."""
    dataset, model, ranks = Shades(20), Tiny(), Ranks(distributed=False)
    random = {0.1: 1, 0.5: 4, 0.99: 7}[share]
    drawn_by_seed = []
    for seed in range(8):
        stage = DetectionSampling(selection_strategy="least", num_of_samples=8, seed=seed)
        choice = chooser(dataset, stage, random_share=share).choose(model, 1, ranks)
        expected, scores = naive_choice(model, dataset, range(3, 20), 8 - random)
        ids, drawn = choice.round.frame_ids, choice.round.random_ids
        assert list(ids[: 8 - random]) == expected
        assert len(set(ids)) == len(ids) == 8
        assert set(ids[8 - random :]) <= set(drawn)
        assert len(drawn) == random + len(set(drawn) & set(expected))
        assert choice.round.scores == (*map(pytest.approx, scores), *[None] * random)
        assert choice.round.stages[-1]["num_of_samples"] == 8, "as it was asked for"
        assert choice.frames(dataset, [stage]).predictions.frame_ids == ids
        said = choice.predictions
        assert said.scores is not None
        truth = extract(model, make_loader(dataset), adapter=OneBox(), progress=False)
        assert truth.scores is not None
        assert torch.equal(said.scores, truth.scores[[int(name) for name in ids]])
        drawn_by_seed.append(drawn)
    assert len(set(drawn_by_seed)) > 4, "another seed, another sample"
    assert not set("012") & {name for drawn in drawn_by_seed for name in drawn}


def test_a_share_of_the_last_frames_is_all_of_them() -> None:
    stage = DetectionSampling(selection_strategy="least", num_of_samples=17)
    choice = chooser(Shades(20), stage, random_share=0.3).choose(Tiny(), None, Ranks(distributed=False))
    assert (len(choice.round.frame_ids), choice.round.random_ids) == (17, ())


@pytest.mark.parametrize(
    ("share", "amount", "message"),
    [
        (1.0, {"num_of_samples": 5}, r"`random_share` must be in \[0, 1\); got 1.0"),
        (float("nan"), {"num_of_samples": 5}, r"`random_share` must be in \[0, 1\); got nan"),
        (0.1, {"num_of_samples": 1}, "its `num_of_samples` must be at least 2; got 1"),
        (0.1, {"num_of_boxes": 9}, "its `num_of_samples` must be at least 2; got None"),
    ],
)
def test_a_share_that_cannot_be_kept(share: float, amount: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        checked_share(share, [DetectionSampling(selection_strategy="least", **amount)])  # type: ignore[arg-type]


@pytest.mark.parametrize("avoid", [True, False])
def test_annotated_objects_are_counted_by_who_knows_them(avoid: bool) -> None:
    """`balanced` then needs no pass over the labelled frames, and what the detector counts says nothing."""
    dataset, asked, ranks = Shades(20), list[dict[int, int]](), Ranks(distributed=False)

    def counted() -> dict[int, int]:
        asked.append({0: 7, 1: 1})
        return asked[-1]

    balanced = DetectionSampling(selection_strategy="entropy", num_of_samples=9, class_weights="balanced")
    one = chooser(dataset, balanced, STAGE, labeled_counts=counted, avoid_labeled=avoid)
    backend = one._backend(Tiny(), ranks)
    assert isinstance(backend, LocalBackend)
    assert (backend.labeled, backend.labeled_counts, len(asked)) == (None, {0: 7, 1: 1}, 1)
    two = chooser(
        dataset,
        DetectionSampling(selection_strategy="auto", num_of_samples=3),
        labeled_counts=counted,
        avoid_labeled=avoid,
    )
    backend = two._backend(Tiny(), ranks)
    if not avoid:
        assert backend is None
    else:
        assert isinstance(backend, LocalBackend)
        assert backend.labeled is not None
        assert backend.labeled_counts == {0: 7, 1: 1}
