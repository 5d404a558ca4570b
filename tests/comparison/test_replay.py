"""`compare`: over real detectors and small ones, against plain loops; with training, and every refusal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from shades import OneBox, Tiny
from strategy_names import KNOWN_STRATEGIES
from tiny_rcnn import make_faster_rcnn, pairs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from cval_torch import DetectionSampling, LabelPool, LocalBackend, PassOptions, compare, extract
from cval_torch.comparison import Comparison, CurvePoint
from cval_torch.comparison.truth import read_target
from cval_torch.errors import ExtractionError, InvalidInputError, NoSubsetError


class Known(Dataset[Any]):
    """Frame `row` is one shade; it has `row % 3` objects, of classes that `row` gives. It counts its reads."""

    def __init__(self, n: int = 30, *, target: Any = None) -> None:
        self.shades = torch.rand(n, generator=torch.Generator().manual_seed(3))
        self.target, self.reads = target, 0

    def __len__(self) -> int:
        return len(self.shades)

    def labels(self, row: int) -> list[int]:
        return [(row * row + k) % 5 for k in range(row % 3)]

    def __getitem__(self, row: int) -> tuple[Tensor, Any]:
        self.reads += 1
        labels = self.labels(row)
        boxes = [[0.0, 0.0, 1.0 + k, 2.0] for k in range(len(labels))]
        target = {"labels": torch.tensor(labels, dtype=torch.int64), "boxes": torch.tensor(boxes)}
        return self.shades[row].expand(1, 2, 2), target if self.target is None else self.target(row, target)


def loader_of(dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 7, "collate_fn": pairs, **options})


def quick(dataset: Any = None, strategies: Any = ("least", "k_center"), **options: Any) -> Comparison:
    loader = loader_of(Known() if dataset is None else dataset) if not isinstance(dataset, DataLoader) else dataset
    how = PassOptions(adapter=options.pop("adapter", OneBox()), progress=options.pop("progress", False))
    given = {"num_of_samples": 4, "draws": 6, "options": how, **options}
    with torch.random.fork_rng(devices=[]):
        model = Tiny()
    return compare(model, loader, strategies, **given)


def same(one: Comparison, other: Comparison) -> None:
    assert one.strategies == other.strategies
    assert one.random == other.random
    assert one.curves == other.curves
    assert one.random_curves == other.random_curves


class Scenes(Dataset[Any]):
    """Noise with light squares, some frames empty, and every true box where the square is."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(row)
        image = 0.3 * torch.rand(3, 48, 48, generator=generator)
        boxes, labels = [], []
        for number in range(row % 4):
            x, y = torch.randint(0, 30, (2,), generator=generator).tolist()
            image[:, y : y + 12, x : x + 12] += 0.6
            boxes.append([x, y, x + 12, y + 12])
            labels.append(1 + (row + number) % 4)
        target = {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": torch.tensor(labels).long()}
        return image, {**target, "image_id": f"scene-{row:02d}"}


def test_a_real_detector_beside_plain_loops() -> None:
    scenes, model = Scenes(), make_faster_rcnn()
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    labeled = ["scene-01", "scene-07", "scene-30"]
    stages = [
        DetectionSampling(selection_strategy="entropy", num_of_samples=20),
        DetectionSampling(selection_strategy="k_center", num_of_samples=8, seed=4),
    ]
    found = compare(
        model,
        DataLoader(scenes, batch_size=8, collate_fn=pairs),
        {"both": stages, "margin": "margin"},
        num_of_samples=8,
        labeled=labeled,
        draws=5,
        seed=11,
        options=PassOptions(progress=False),
    )
    assert len(forwards) == 5  # one look at each frame
    assert model.training

    everything = extract(model, DataLoader(scenes, batch_size=8, collate_fn=pairs), progress=False)
    known = [everything.frame_ids.index(name) for name in labeled]
    pool = everything.take([row for row in range(40) if row not in known])
    backend = LocalBackend(labeled=everything.take(known))
    assert found.strategies["both"].frame_ids == backend.select(pool, stages).frame_ids
    by_name = DetectionSampling(selection_strategy="margin", num_of_samples=8, seed=11)
    assert found.strategies["margin"].frame_ids == backend.select(pool, by_name).frame_ids
    for draw in range(5):
        stage = DetectionSampling(selection_strategy="random", num_of_samples=8, seed=11 + draw)
        assert found.random[draw].frame_ids == backend.select(pool, stage).frame_ids

    for choice in (*found.strategies.values(), *found.random):
        targets = [scenes[int(name[-2:])][1] for name in choice.frame_ids]
        labels = [label for target in targets for label in target["labels"].tolist()]
        assert choice.values["objects"] == len(labels)
        assert choice.values["classes"] == len(set(labels))
        assert choice.values["empty_share"] == sum(len(target["labels"]) == 0 for target in targets) / 8
    assert (found.candidates, found.start, found.num_of_samples) == (37, 3, 8)
    assert len(found.measures) == 8
    assert found.notes == ()


def test_the_same_whatever_the_order_and_again() -> None:
    dataset = Known(30)
    whole = quick(loader_of(dataset), labeled=["2", "3"])
    same(quick(loader_of(dataset, shuffle=True, batch_size=4), labeled=["3", "2"]), whole)
    assert quick(loader_of(dataset), seed=1).random != whole.random
    state = torch.get_rng_state()
    same(quick(dataset, labeled=["2", "3"]), whole)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_list_of_names_and_a_callable() -> None:
    def lightest(pool: Any) -> Tensor:
        return pool.scores

    found = quick(strategies={"lightest": lightest, "sure": "probability"})
    plain = quick(strategies=["probability"])
    assert found.strategies["sure"] == plain.strategies["probability"]
    shades = Known().shades
    best = sorted(range(30), key=lambda row: float(-shades[row]))[:4]
    assert set(found.strategies["lightest"].frame_ids) == {str(row) for row in best}


def test_balanced_classes_with_and_without_labelled_frames() -> None:
    """Where nothing is labelled, every class counts alike."""
    stages = {
        name: DetectionSampling(selection_strategy="least", num_of_samples=4, class_weights=weights)
        for name, weights in (("balanced", "balanced"), ("alike", {}))
    }
    found = quick(strategies=stages).strategies
    assert found["balanced"].frame_ids == found["alike"].frame_ids
    assert len(quick(strategies=stages, labeled=["2", "3"]).strategies["balanced"].frame_ids) == 4


def test_truth_from_a_function() -> None:
    dataset = Known()
    blind = Known(target=lambda row, target: {"annotations": "elsewhere"})
    asked = quick(blind, targets=dataset.labels)
    own = quick(dataset)
    assert asked.measures == tuple(name for name in own.measures if name != "misses")
    assert asked.notes == ("there is no 'misses found', since the targets have no boxes",)
    for one, other in zip(
        (*asked.strategies.values(), *asked.random), (*own.strategies.values(), *own.random), strict=True
    ):
        assert one.frame_ids == other.frame_ids
        assert one.values == {name: other.values[name] for name in asked.measures}
    same(quick(blind, targets=lambda row: dataset[row][1]), own)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda row, target: None, "target of frame '0' must be a dict with `labels`.*; got none"),
        (lambda row, target: {"boxes": []}, r"frame '0' must be a dict with `labels` .*a dict with \['boxes'\]"),
        (lambda row, target: {"labels": [0.5]}, r"labels of frame '0' must be \(n,\) integers; got \(1,\) of torch.fl"),
        (lambda row, target: {"labels": "cat"}, "labels of frame '0' must be .*; got str 'cat'"),
        (lambda row, target: [{"category_id": 1}] * (row == 2), "labels of frame '2' must be .*; got list"),
        (lambda row, target: {"labels": [1], "boxes": []}, r"boxes of frame '0' must be \(n, 4\) xyxy with n=1 labels"),
        (lambda row, target: {"labels": [1], "boxes": [[9, 9, 3, 3]]}, r"'0' must be xyxy.*got \[9.0, 9.0, 3.0, 3.0\]"),
        (lambda row, target: {"labels": [1], "boxes": [[0, 0, float("nan"), 3]]}, "finite; got nan .* frame '0'"),
        (
            lambda row, target: {"labels": [1], **({"boxes": [[0, 0, 1, 1]]} if row else {})},
            "either every target has `boxes` or none; that of frame '0'",
        ),
    ],
)
def test_targets_that_are_not_understood(target: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        quick(Known(target=target))


def test_a_loader_without_targets() -> None:
    images = [torch.rand(1, 2, 2) for _ in range(9)]
    with pytest.raises(InvalidInputError, match=r"frame '0' has no target, .*pass `targets=`"):
        quick(DataLoader(images, batch_size=4, collate_fn=list))  # type: ignore[arg-type]
    found = quick(DataLoader(images, batch_size=4, collate_fn=list), targets=lambda row: [row % 2])  # type: ignore[arg-type]
    assert found.random_range("objects") == (4, 4, 4)
    with pytest.raises(NoSubsetError, match="rows of a dataset"):
        compare(
            Tiny(),
            [torch.rand(4, 1, 2, 2)],
            ["least"],
            num_of_samples=1,
            options=PassOptions(adapter=OneBox(), progress=False),
        )


def test_boxes_of_another_format_are_refused() -> None:
    from torchvision.tv_tensors import BoundingBoxes

    def target(form: str) -> Any:
        box = BoundingBoxes([[0, 0, 1, 2]], format=form, canvas_size=(2, 2))
        return lambda row, target: {"labels": [1 + row % 2], "boxes": box}

    assert "misses" in quick(Known(target=target("XYXY"))).measures
    with pytest.raises(InvalidInputError, match=r"must be \(n, 4\) xyxy .*; got \(1, 4\) in XYWH"):
        quick(Known(target=target("XYWH")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_of_samples": 0}, "`num_of_samples` must be at least 1; got 0"),
        ({"num_of_samples": 2.5}, "`num_of_samples` must be an integer; got 2.5"),
        ({"num_of_samples": 30}, "less than the 30 candidates, or all choices are the same; got 30"),
        ({"draws": 1}, "`draws` must be at least 2; got 1"),
        ({"seed": -1}, "`seed` must be at least 0; got -1"),
        ({"rounds": 2}, "pass `train` and `evaluate`; got rounds=2 alone"),
        ({"train": lambda frames: Tiny()}, "`train` and `evaluate` must be given together"),
        ({"min_score": 1.5}, r"`min_score` must be in \[0, 1\]; got 1.5"),
        ({"duplicate_radius": float("nan")}, "`duplicate_radius` must be at least 0; got nan"),
        ({"labeled": ["2", "no such frame"]}, "`labeled` must be frames of the loader, which has no 'no such frame'"),
        ({"labeled": "2"}, "`labeled` must be several frame ids; got '2'"),
        ({"make_loader": loader_of}, "`make_loader` is for a LabelPool"),
        ({"strategies": []}, "`strategies` must be one or more, of different names; got none"),
        ({"strategies": ["least", "least"]}, "of different names; got 'least', 'least'"),
        ({"strategies": "least"}, "`strategies` must be a dict of stages by name, or names; got 'least'"),
        ({"strategies": ["random"]}, "'random' is always beside them"),
        ({"strategies": {"": "least"}}, "must have names that are strings; got ''"),
        ({"strategies": ["smallest"]}, "strategy 'smallest': `selection_strategy` must be a callable or one of"),
        ({"strategies": {"one": []}}, "strategy 'one': `stages` must hold at least one"),
        ({"strategies": {"one": 3}}, "strategy 'one': 'int' object is not iterable"),
        (
            {"strategies": {"one": DetectionSampling(selection_strategy="least", num_of_samples=5)}},
            "strategy 'one': its last stage must keep num_of_samples=4 frames, as the others do; got 5",
        ),
        (
            {"strategies": {"one": DetectionSampling(selection_strategy="least", num_of_samples=4, num_of_boxes=9)}},
            "strategy 'one': its last stage must not have `num_of_boxes`",
        ),
        ({"train": Tiny, "evaluate": Tiny, "trained_draws": 7}, "`trained_draws` must be at most draws=6; got 7"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        quick(**options)


def test_options_are_refused_before_the_pass() -> None:
    dataset = Known()
    with pytest.raises(InvalidInputError, match="smallest"):
        quick(dataset, ["smallest"])
    assert dataset.reads == 0


def test_a_label_pool_is_replayed() -> None:
    dataset = Known()
    labels = LabelPool(dataset, labeled=["4", "1"])
    labels.label([str(row) for row in range(6, 20)])
    labels.label(["25", "26"], stages=[DetectionSampling(selection_strategy="entropy", num_of_samples=2)])
    how = PassOptions(adapter=OneBox(), progress=False)
    options: dict[str, Any] = {"num_of_samples": 4, "draws": 6, "options": how}
    found = compare(Tiny(), labels, ["least", "k_center"], make_loader=loader_of, **options)
    assert (found.start, found.candidates) == (2, 16)
    assert len(found.notes) == 1
    assert "some were chosen by entropy" in found.notes[0]
    part = loader_of(labels.labeled)
    same(quick(part, labeled=["1", "4"]), found)
    asked = compare(Tiny(), labels, ["least"], make_loader=loader_of, targets=lambda row: dataset[row][1], **options)
    assert asked.strategies["least"] == found.strategies["least"]

    none_before = compare(Tiny(), labels, ["least"], make_loader=loader_of, labeled=[], **options)
    assert (none_before.start, none_before.candidates) == (0, 18)
    once = LabelPool(dataset, labeled=[str(row) for row in range(9)])
    whole = compare(Tiny(), once, ["least"], make_loader=loader_of, **options)
    assert (whole.start, whole.candidates, whole.notes) == (0, 9, ())
    with pytest.raises(InvalidInputError, match="a LabelPool needs `make_loader=`"):
        compare(Tiny(), once, ["least"], **options)
    with pytest.raises(InvalidInputError, match="no labelled frames to replay"):
        compare(Tiny(), LabelPool(dataset), ["least"], make_loader=loader_of, **options)


class Trainer:
    """Trains a `Tiny` whose bias hangs on the frames and on torch's random numbers; measures that bias."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.trained: list[tuple[str, ...]] = []

    def __call__(self, frames: Subset[Any]) -> nn.Module:
        if len(self.trained) == self.fail_at:
            raise KeyboardInterrupt
        self.trained.append(tuple(frames.frame_ids))  # type: ignore[attr-defined]
        model = Tiny()
        shades = torch.stack([frames[row][0].mean() for row in range(len(frames))])
        with torch.no_grad():
            model.linear.bias.fill_(-float(shades.mean()) - 0.01 * float(torch.rand(())))
        return model

    @staticmethod
    def evaluate(model: nn.Module) -> float:
        return float(model.linear.bias.detach())  # type: ignore[union-attr, operator]


def trained(trainer: Trainer, **options: Any) -> Comparison:
    given = {"labeled": ["1", "2"], "rounds": 3, "trained_draws": 2, **options}
    return quick(train=trainer, evaluate=trainer.evaluate, **given)


def naive_curve(stage: DetectionSampling, *, rounds: int, seed: int) -> list[CurvePoint]:
    """One arm, written out: look, choose, train, measure."""
    dataset, model, labelled = Known(), Tiny(), ["1", "2"]
    points = [CurvePoint(2, 1 + 2, Trainer.evaluate(model))]
    for number in range(rounds):
        everything = extract(model, loader_of(dataset), adapter=OneBox(), progress=False)
        rows = [int(name) for name in labelled]
        rest = everything.take([row for row in range(30) if row not in rows])
        again = stage.model_copy(update={"seed": stage.seed + number * 1_000_003})
        labelled += LocalBackend(labeled=everything.take(rows)).select(rest, again).frame_ids
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Tiny()
            bias = -sum(float(dataset.shades[int(name)]) for name in labelled) / len(labelled)
            bias -= 0.01 * float(torch.rand(()))
        with torch.no_grad():
            model.linear.bias.fill_(bias)
        points.append(CurvePoint(len(labelled), sum(int(name) % 3 for name in labelled), bias))
    return points


def test_learning_curves_beside_a_plain_loop() -> None:
    trainer = Trainer()
    state = torch.get_rng_state()
    found = trained(trainer, labeled=["2", "1", "2"])
    assert torch.equal(torch.get_rng_state(), state)
    assert len(trainer.trained) == 3 * (2 + 2)
    assert all(names[:2] == ("1", "2") and len(set(names)) == len(names) for names in trainer.trained)
    arms = {name: DetectionSampling(selection_strategy=name, num_of_samples=4) for name in ("least", "k_center")}
    drawn = [DetectionSampling(selection_strategy="random", num_of_samples=4, seed=draw) for draw in range(2)]
    curves = [*found.curves.items(), *zip(("random 0", "random 1"), found.random_curves, strict=True)]
    for (name, curve), stage in zip(curves, [*arms.values(), *drawn], strict=True):
        for point, expected in zip(curve, naive_curve(stage, rounds=3, seed=0), strict=True):
            assert (point.frames, point.boxes) == (expected.frames, expected.boxes), name
            assert point.metric == pytest.approx(expected.metric, abs=1e-5)


@pytest.mark.parametrize("fail_at", [0, 1, 5, 11])
def test_a_comparison_goes_on_where_it_stopped(tmp_path: Any, fail_at: int) -> None:
    whole = trained(Trainer())
    broken = Trainer(fail_at)
    with pytest.raises(KeyboardInterrupt):
        trained(broken, cache_dir=tmp_path)
    trainer, dataset = Trainer(), Known()
    same(trained(trainer, cache_dir=tmp_path, dataset=dataset), whole)
    assert len(broken.trained) + len(trainer.trained) == 12
    again = Trainer()
    same(trained(again, cache_dir=tmp_path), whole)
    assert again.trained == []


def test_a_finished_pass_is_not_inferred_again(tmp_path: Any) -> None:
    forwards: list[int] = []

    class Counted(OneBox):
        def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Tensor:
            forwards.append(len(images))
            return super().forward(model, images)

    first = quick(adapter=Counted(), cache_dir=tmp_path)
    assert sum(forwards) == 30
    same(quick(adapter=Counted(), cache_dir=tmp_path), first)  # targets are loaded again, without inference
    assert sum(forwards) == 30
    dataset = Known()
    same(quick(dataset, adapter=Counted(), cache_dir=tmp_path, targets=lambda row: Known()[row][1]), first)
    assert dataset.reads == 0
    assert sum(forwards) == 30


def test_another_comparison_is_not_mixed_in(tmp_path: Any) -> None:
    trained(Trainer(), cache_dir=tmp_path)
    for options, what in (
        ({"rounds": 2}, "`rounds` was 3 and is 2 now"),
        ({"labeled": ["1"]}, "the frames labelled before was"),
        ({"strategies": {"k_center": "least"}}, r"the strategy k_center was \[.*k_center.*\] and is \[.*least.*\] now"),
        ({"seed": 3}, "`seed` was 0 and is 3 now"),
    ):
        with pytest.raises(InvalidInputError, match=f"is the record of another comparison: .*{what}"):
            trained(Trainer(), cache_dir=tmp_path, **options)
    (tmp_path / "trainings.json").write_text('{"format": "other"}')
    with pytest.raises(InvalidInputError, match="is not the record of a comparison"):
        trained(Trainer(), cache_dir=tmp_path)


def test_a_strategy_may_be_added_later(tmp_path: Any) -> None:
    trained(Trainer(), cache_dir=tmp_path)
    more: dict[str, Any] = {"strategies": ["least", "margin"], "trained_draws": 4}
    trainer = Trainer()
    same(trained(trainer, cache_dir=tmp_path, **more), trained(Trainer(), **more))
    assert len(trainer.trained) == 3 * (1 + 2)
    with pytest.raises(InvalidInputError, match="the strategy k_center was"):  # not forgotten
        trained(Trainer(), cache_dir=tmp_path, strategies={"k_center": "margin"})


def test_every_strategy_can_be_compared_by_its_name() -> None:
    names = [name for name in KNOWN_STRATEGIES if name != "random"]
    options: dict[str, Any] = {"num_of_samples": 4, "draws": 2, "labeled": ["scene-01", "scene-07"]}
    loader = DataLoader(Scenes(), batch_size=8, collate_fn=pairs)
    found = compare(make_faster_rcnn(), loader, names, options=PassOptions(progress=False), **options)
    assert list(found.strategies) == names
    assert all(len(set(choice.frame_ids)) == 4 for choice in found.strategies.values())


def test_the_model_keeps_its_flags() -> None:
    model = Tiny()
    model.drop.eval()

    def evaluate(trained: nn.Module) -> float:
        assert not trained.training
        return 0.5

    options: dict[str, Any] = {"num_of_samples": 4, "draws": 2, "trained_draws": 2}
    compare(
        model,
        loader_of(Known()),
        ["least"],
        train=lambda _: Tiny(),
        evaluate=evaluate,
        options=PassOptions(adapter=OneBox(), progress=False),
        **options,
    )
    assert (model.training, model.norm.training, model.drop.training) == (True, True, False)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda values: torch.tensor(values).int()])
@given(labels=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5))
@settings(deadline=None, max_examples=20)
def test_labels_of_any_kind(kind: Any, labels: list[int]) -> None:
    boxes = [[float(k), 0.0, k + 1.0, 2.0] for k in range(len(labels))]
    made = kind(labels) if labels else []
    assert read_target(made, "a")[0].tolist() == labels
    found, corners = read_target({"labels": made, "boxes": np.array(boxes)}, "a")
    assert found.dtype == torch.int64
    assert found.tolist() == labels
    assert corners is not None
    assert corners.reshape(-1, 4).tolist() == boxes


def test_what_train_and_evaluate_return_is_checked() -> None:
    def nothing(frames: Any) -> None:
        return None

    with pytest.raises(InvalidInputError, match="`train` must return a detector; got NoneType for 'strategy least', r"):
        quick(train=nothing, evaluate=lambda model: 0.5, trained_draws=2)
    for value in (float("nan"), "high"):
        with pytest.raises(InvalidInputError, match=f"`evaluate` must return a finite number; got {value!r} for the s"):
            quick(train=lambda frames: Tiny(), evaluate=lambda model, value=value: value, trained_draws=2)


def test_errors_of_the_pass_are_those_of_extract() -> None:
    def broken(row: int, target: Any) -> Any:
        raise OSError("gone")

    with pytest.raises(ExtractionError, match="gone"):
        quick(Known(target=broken))


def test_bars_count_every_choice_and_training(capsys: pytest.CaptureFixture[str]) -> None:
    trained(Trainer(), progress=True)
    bars = [list(group)[-1] for _, group in itertools.groupby(capsys.readouterr().err.split("\r"), lambda s: s[:6])]
    assert any("8/8" in bar for bar in bars if bar.startswith("compar"))
    assert any("12/12" in bar for bar in bars if bar.startswith("train:"))
