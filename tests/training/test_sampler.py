"""`SamplerCallback`: what it chooses and when, what waits, and that a run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shades import OneBox, Shades, Tiny, make, make_loader, naive_choice, train_epoch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler

from cval_torch.errors import CvalError, ExtractionError, InvalidInputError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import FrameBatch
from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.pool import Pool
from cval_torch.selection.class_weights import class_counts
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training import SamplerCallback
from cval_torch.training.labels import LabelPool
from cval_torch.training.schedules import WhenStalled


def test_a_training_script_grows_its_labels() -> None:
    dataset = Shades(20)
    callback = make(dataset=dataset)
    labels, model = callback.labels, Tiny()
    torch.manual_seed(0)
    for epoch in range(4):
        train_epoch(model, labels.labeled)
        expected, scores = naive_choice(model, dataset, labels.unlabeled_indices, 3)
        chosen = callback.on_epoch_end(model, epoch)
        assert chosen is not None
        assert list(chosen.frame_ids) == expected
        assert chosen.scores.tolist() == pytest.approx(scores, rel=1e-5)
        assert chosen.dataset is dataset
        assert [str(row) for row in chosen.indices] == expected
        assert [float(image.mean()) for image, _ in chosen] == [float(dataset.shades[row]) for row in chosen.indices]
        assert chosen.predictions.frame_ids == chosen.frame_ids
        round_ = labels.rounds[-1]
        assert list(round_.frame_ids) == expected
        assert round_.scores == tuple(chosen.scores.tolist())
        assert (round_.epoch, round_.strategy) == (epoch, "least")
        assert round_.model_fingerprint == model_fingerprint(model)
        assert labels.labeled_ids[-3:] == chosen.frame_ids
        assert callback.pending == ()
    assert len(labels.labeled) == 3 + 4 * 3
    assert len({round_.model_fingerprint for round_ in labels.rounds}) == 5


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_training_is_bit_for_bit_the_same_as_without(noise: float) -> None:
    """Neither the model, nor its flags, nor the random numbers notice, even if the dataset draws some of its own."""
    fingerprints = []
    for chooses in (False, True):
        dataset = Shades(20, noise=noise)
        callback = make(dataset=dataset)
        torch.manual_seed(3)
        model = Tiny()
        model.drop.eval()
        for epoch in range(3):
            train_epoch(model, Subset(dataset, range(12)))
            if chooses:
                assert callback.on_epoch_end(model, epoch) is not None
            assert [module.training for module in model.modules()] == [True, True, False, True]
        fingerprints.append((model_fingerprint(model), float(torch.rand(()))))
    assert fingerprints[0] == fingerprints[1]


def test_the_model_may_be_wrapped() -> None:
    plain, wrapped = make(), make()
    model = Tiny()
    first, second = plain.on_epoch_end(model, 0), wrapped.on_epoch_end(nn.DataParallel(model), 0)
    assert first is not None
    assert second is not None
    assert first.frame_ids == second.frame_ids


class View(Dataset[Any]):
    """The same rows, seen otherwise: no `Subset` of the pool's dataset."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> Any:
        return self.dataset[row]


@pytest.mark.parametrize("image_ids", [False, True])
@pytest.mark.parametrize(
    "way",
    [
        make_loader,
        lambda subset: make_loader(subset, shuffle=True),
        lambda subset: make_loader(View(subset)),
        lambda subset: make_loader(Subset(subset, range(len(subset)))),
        lambda subset: make_loader(subset.dataset, sampler=SubsetRandomSampler(subset.indices)),
    ],
    ids=["plain", "shuffled", "view", "nested", "sampler"],
)
def test_any_loader_of_them_gives_the_same_frames(way: Callable[..., Any], image_ids: bool) -> None:
    """Frames are told by row: an `image_id` that is another frame's id does not confuse them."""
    dataset = Shades(20, image_ids=image_ids)
    callback = make(dataset=dataset, make_loader=way)
    model = Tiny()
    expected, _ = naive_choice(model, dataset, range(3, 20), 3)
    chosen = callback.choose(model)
    assert chosen is not None
    assert list(chosen.frame_ids) == expected
    assert list(callback.labels.labeled_ids[3:]) == expected
    assert chosen.indices == [int(name) for name in expected]


def test_a_sample_of_the_unlabelled_part() -> None:
    dataset = Shades(20)
    callback = make(dataset=dataset, make_loader=lambda subset: make_loader(Subset(subset, [1, 4, 6, 9])))
    expected, _ = naive_choice(Tiny(), dataset, [4, 7, 9, 12], 3)
    chosen = callback.choose(Tiny())
    assert chosen is not None
    assert list(chosen.frame_ids) == expected


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (lambda subset: make_loader(Shades(5)), "of 17 frames, or over as many rows .*; got DataLoader over 5 rows"),
        (lambda subset: [next(iter(make_loader(subset)))], "got list over None rows"),
        (
            lambda subset: make_loader(subset.dataset),
            "batch 0.*must give frames of the Subset.*here unlabelled.*got '0', which is labelled",
        ),
    ],
)
def test_a_loader_of_other_frames_is_refused(way: Callable[..., Any], message: str) -> None:
    callback = make(make_loader=way)
    with pytest.raises((InvalidInputError, ExtractionError), match=message):
        callback.choose(Tiny())
    assert len(callback.labels.rounds) == 1
    assert callback.pending == ()


class BoxesToo(OneBox):
    """As `OneBox`, with the shade as the embedding of the box too."""

    def read(self, *recorded: Any) -> FrameBatch:
        batch = super().read(*recorded)
        return replace(batch, box_embeddings=batch.frame_embeddings)


@pytest.mark.parametrize("strategy", ["k_center", "ppal"])
def test_diversity_stays_away_from_what_is_labelled(strategy: str) -> None:
    """As by hand, with a pool of the labelled frames; and otherwise without one."""
    dataset, stage = Shades(20), DetectionSampling(selection_strategy=strategy, num_of_samples=3)
    labels = LabelPool(dataset, labeled=["0", "1", "2"])
    model = Tiny()

    def pool_of(part: Dataset[Any]) -> Pool:
        return extract(model, make_loader(part), adapter=BoxesToo(), progress=False)

    free = LocalBackend().select(pool_of(labels.unlabeled), stage).frame_ids
    away = LocalBackend(labeled=pool_of(labels.labeled)).select(pool_of(labels.unlabeled), stage).frame_ids
    assert free != away
    for options, expected in (({}, away), ({"avoid_labeled": False}, free), ({"backend": LocalBackend()}, free)):
        chosen = make(dataset=dataset, stages=stage, adapter=BoxesToo(), **options).choose(model)
        assert chosen is not None
        assert chosen.frame_ids == expected
    none_labeled = SamplerCallback(
        LabelPool(dataset), make_loader, stage, options=PassOptions(adapter=BoxesToo(), progress=False)
    )
    assert none_labeled.choose(model) is not None


@pytest.mark.parametrize("labeled", [["0", "1", "2"], []])
def test_balanced_classes_are_counted_in_what_is_labelled(labeled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With `avoid_labeled` or without, and with nothing labelled."""
    dataset, model = Shades(20), Tiny()
    stages = [
        DetectionSampling(selection_strategy="entropy", num_of_samples=9, class_weights="balanced"),
        DetectionSampling(selection_strategy="k_center", num_of_samples=3),
    ]
    labels = LabelPool(dataset, labeled=labeled)

    def pool_of(part: Dataset[Any]) -> Pool:
        return extract(model, make_loader(part), adapter=OneBox(), progress=False)

    counts = class_counts(pool_of(labels.labeled)) if labeled else {}
    assert bool(counts) == bool(labeled)
    seen: list[Any] = []
    init = LocalBackend.__init__

    def told(self: LocalBackend, **options: Any) -> None:
        seen.append(options.get("labeled_counts"))
        init(self, **options)

    monkeypatch.setattr(LocalBackend, "__init__", told)
    for avoid in (True, False):
        away = pool_of(labels.labeled) if avoid and labeled else None
        backend = LocalBackend(labeled=away, labeled_counts=counts)
        expected = backend.select(pool_of(labels.unlabeled), stages).frame_ids
        seen.clear()
        callback = SamplerCallback(
            LabelPool(dataset, labeled=labeled),
            make_loader,
            stages,
            avoid_labeled=avoid,
            options=PassOptions(adapter=OneBox(), progress=False),
        )
        chosen = callback.choose(model)
        assert chosen is not None
        assert chosen.frame_ids == expected
        assert seen == [counts]


def test_a_budget_in_boxes_goes_through_the_training_loop(tmp_path: Path) -> None:
    stages = DetectionSampling(selection_strategy="least", num_of_boxes=2.5, min_distance=0.01)
    callback = make(dataset=Shades(20), stages=stages, save_to=tmp_path / "sampler.json")
    chosen = callback.choose(Tiny())
    assert chosen is not None
    assert 0 < chosen.num_of_boxes <= 2.5 * (1 + 1e-6)
    assert chosen.num_of_boxes == pytest.approx(chosen.predictions.scores.double().sum().item())  # type: ignore[union-attr]
    again = make(dataset=Shades(20), stages=stages)
    again.load(tmp_path / "sampler.json")
    assert again.labels.rounds == callback.labels.rounds


def test_the_labelled_frames_must_be_those_asked_for() -> None:
    stage = DetectionSampling(selection_strategy="k_center", num_of_samples=3)
    callback = make(stages=stage, make_loader=lambda subset: make_loader(Subset(Shades(20), range(3, 20))))
    with pytest.raises(InvalidInputError, match="of 3 frames, or over as many rows"):
        callback.choose(Tiny())
    dataset = Shades(20)
    callback = make(
        dataset=dataset, stages=stage, make_loader=lambda subset: make_loader(Subset(dataset, range(3, 20)))
    )
    with pytest.raises(InvalidInputError, match="here labelled ones; got '3', which is not labelled"):
        callback.choose(Tiny())


def test_chosen_frames_wait_for_a_human() -> None:
    callback = make(annotate=None)
    labels, model = callback.labels, Tiny()
    chosen = callback.on_epoch_end(model, 0)
    assert chosen is not None
    assert callback.pending == chosen.frame_ids
    assert len(labels.labeled) == 3
    with pytest.warns(UserWarning, match="while 3 wait for labels"):
        assert callback.on_epoch_end(model, 1) is None
    assert callback.on_epoch_end(model, 2) is None  # said once
    first, second, third = chosen.frame_ids
    round_ = callback.confirm([third, first])
    assert round_.frame_ids == (first, third)
    assert round_.scores == (float(chosen.scores[0]), float(chosen.scores[2]))
    assert (round_.epoch, round_.strategy, round_.model_fingerprint) == (0, "least", model_fingerprint(model))
    assert callback.pending == (second,)
    labels.label([second])
    assert callback.pending == ()
    again = callback.on_epoch_end(model, 3)
    assert again is not None
    assert callback.discard() == again.frame_ids
    assert callback.pending == ()
    assert len(labels.labeled) == 6
    once_more = callback.on_epoch_end(model, 4)
    assert once_more is not None
    assert once_more.frame_ids == again.frame_ids
    assert callback.confirm().frame_ids == again.frame_ids


def test_an_annotator_may_do_some_now() -> None:
    seen = []

    def annotate(selected: SelectedFrames) -> list[str]:
        seen.append(selected.frame_ids)
        return [selected.frame_ids[1]]

    callback = make(annotate=annotate)
    chosen = callback.on_epoch_end(Tiny(), 0)
    assert chosen is not None
    assert seen == [chosen.frame_ids]
    assert callback.labels.labeled_ids[3:] == (chosen.frame_ids[1],)
    assert callback.pending == (chosen.frame_ids[0], chosen.frame_ids[2])


@pytest.mark.parametrize(
    ("annotate", "message"),
    [
        (lambda selected: ["0"], "returned '0', which is not among the chosen"),
        (lambda selected: True, "must return frame ids, or None for later; got True"),
        (lambda selected: selected.frame_ids[0], "must return frame ids, or None for later; got '"),
    ],
)
def test_wrong_answers_of_an_annotator(annotate: Callable[..., Any], message: str) -> None:
    callback = make(annotate=annotate)
    with pytest.raises(InvalidInputError, match=message):
        callback.choose(Tiny())
    assert len(callback.pending) == 3  # the choice is not lost


def test_an_annotator_that_fails_leaves_the_choice_pending() -> None:
    def annotate(selected: SelectedFrames) -> None:
        raise ConnectionError("the tool is down")

    callback = make(annotate=annotate)
    with pytest.raises(ConnectionError):
        callback.choose(Tiny())
    assert len(callback.confirm().frame_ids) == 3


def test_what_cannot_be_confirmed() -> None:
    callback = make(annotate=None)
    with pytest.raises(InvalidInputError, match="must be frames to confirm"):
        callback.confirm()
    chosen = callback.choose(Tiny())
    assert chosen is not None
    with pytest.raises(InvalidInputError, match="frame '0' is not pending"):
        callback.confirm([chosen.frame_ids[0], "0"])
    with pytest.raises(InvalidInputError, match="must be frames to confirm"):
        callback.confirm([])
    assert callback.pending == chosen.frame_ids


def test_a_rehearsal_changes_nothing() -> None:
    seen: list[int] = []

    def few(subset: Subset[Any]) -> DataLoader[Any]:
        seen.append(len(subset))
        return make_loader(subset)

    callback = make(make_loader=few)
    before = callback.state_dict()
    callback.rehearse(Tiny())
    assert seen == [2]
    assert callback.state_dict() == before
    with pytest.raises(CvalError):
        make(adapter=None).rehearse(Tiny())


def test_what_a_choice_will_gain_is_forecast_from_the_rounds_before(tmp_path: Path) -> None:
    callback = make(metric="map", random_share=0.4, save_to=tmp_path / "state.json")
    labels, model = callback.labels, Tiny()
    for epoch, value in enumerate((0.30, 0.40, 0.45)):
        callback.on_evaluation({"map": value / 2, "loss": 1.0})
        chosen = callback.on_epoch_end(model, epoch, {"map": value})
        assert chosen is not None
        assert labels.learning_curve.points("map")[-1] == (3 + 3 * epoch, value), "the newest evaluation counts"
        assert len(labels.rounds[-1].random_ids) >= 1
        if epoch == 0:
            assert callback.forecast is None
        else:
            assert callback.forecast == labels.learning_curve.forecast("map", 3)
    assert callback.forecast is not None
    assert 0 < callback.forecast.gain < 0.05
    assert callback.on_epoch_end(model, 3) is not None
    assert labels.learning_curve.points("map")[-1] == (9, 0.45), "nothing was measured since"
    again = make(metric="map")
    again.load(tmp_path / "state.json")
    assert again.labels.learning_curve.state() == labels.learning_curve.state()
    assert again.labels.rounds == labels.rounds


def test_the_metric_that_a_schedule_watches_is_forecast() -> None:
    assert make(schedule=WhenStalled("loss")).metric == "loss"
    assert make().metric is None
