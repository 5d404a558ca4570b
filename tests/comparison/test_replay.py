"""`compare`: over real detectors and small ones, against plain loops; with training, and every refusal."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from quick_comparison import Known, Scenes, Trainer, loader_of, quick, same, trained
from shades import OneBox, Tiny
from strategy_names import KNOWN_STRATEGIES
from tiny_rcnn import make_faster_rcnn, pairs
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch import DetectionSampling, LocalBackend, PassOptions, compare, extract
from cval_torch.errors import ExtractionError


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
    before = [label for name in labeled for label in scenes[int(name[-2:])][1]["labels"].tolist()]
    for choice in found.strategies.values():
        have, worth = Counter(before), 0.0
        for name in choice.frame_ids:
            for label in scenes[int(name[-2:])][1]["labels"].tolist():
                have[label] += 1
                worth += 1 / have[label]
        assert choice.values["scarce_objects"] == pytest.approx(worth)
    assert found.headline("both") in found.table()
    assert (found.candidates, found.start, found.num_of_samples) == (37, 3, 8)
    assert len(found.measures) == 9
    assert found.notes == ()


def test_the_same_whatever_the_order_and_again() -> None:
    dataset = Known(30)
    whole = quick(loader_of(dataset), labeled=["2", "3"])
    same(quick(loader_of(dataset, shuffle=True, batch_size=4), labeled=["3", "2"]), whole)
    assert quick(loader_of(dataset), seed=1).random != whole.random
    state = torch.get_rng_state()
    same(quick(dataset, labeled=["2", "3"]), whole)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_finished_pass_is_not_inferred_again(tmp_path: Any) -> None:
    forwards: list[int] = []

    class Counted(OneBox):
        def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Tensor:
            forwards.append(len(images))
            return super().forward(model, images)

    first = quick(adapter=Counted(), cache_dir=tmp_path)
    asked = 30 + 2  # the frames, and two test images that tell this model from another
    assert sum(forwards) == asked
    same(quick(adapter=Counted(), cache_dir=tmp_path), first)  # targets are loaded again, without inference
    assert sum(forwards) == asked
    dataset = Known()
    same(quick(dataset, adapter=Counted(), cache_dir=tmp_path, targets=lambda row: Known()[row][1]), first)
    assert dataset.reads == 0
    assert sum(forwards) == asked


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
