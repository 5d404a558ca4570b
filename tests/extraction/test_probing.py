"""What a model answers to test images, and what it changes of itself meanwhile."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from model_variants import Holder, Remembering, Resisting, rcnn, with_part
from one_box import OneBox
from torch import Tensor, nn

from cval_torch.extraction.identity import SETTINGS, WEIGHTS, without_parameters
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.probing import Probe, answer_changes, around, ask_model
from cval_torch.hooks.torchvision import RCNNAdapter

CPU = torch.device("cpu")


def asked(model: nn.Module, adapter: Any = None, **options: Any) -> Probe:
    probe = ask_model(model, adapter or RCNNAdapter(), PassOptions(**options), CPU, without_parameters)
    assert probe is not None
    return probe


def test_the_answer_is_that_of_the_adapter_to_fixed_noise() -> None:
    model, other = rcnn(), rcnn().eval()
    answers = asked(model.train()).answers
    assert model.training
    for number, (answer, size) in enumerate(zip(answers, ((64, 192), (192, 64)), strict=True)):
        image = torch.rand(3, *size, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            (found,) = other([image])
        assert (answer["height"], answer["width"], answer["boxes"]) == (*size, len(found["boxes"]))
        assert answer["mean score"] == pytest.approx(found["scores"].mean().item(), rel=1e-4)


def test_what_a_forward_pass_changes_is_found_and_the_model_left_alone() -> None:
    model = with_part(Remembering())
    before = without_parameters(model, None)
    probe = asked(model)
    assert without_parameters(model, None) == before
    assert probe.changed[WEIGHTS] == ["backbone.2.grid"]
    part = {name.removeprefix("backbone.2.") for name in probe.changed[SETTINGS] if name.startswith("backbone.2")}
    assert part == {"first", "by_size", "last", "calls", "note"}
    assert "roi_heads.box_roi_pool.scales" in probe.changed[SETTINGS]
    for parameter in model.parameters():
        assert parameter.grad is None
    assert asked(model).changed == probe.changed


def test_a_model_that_draws_numbers_answers_the_same_and_the_states_are_left_alone() -> None:
    def drawing(x: Tensor) -> Tensor:
        return x * (torch.rand(()) + random.random() + np.random.rand())

    answers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        answers.append(asked(with_part(Holder(drawing))).answers)
        numbers = torch.rand(3), random.random(), np.random.rand()
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        assert (torch.rand(3) == numbers[0]).all()
        assert (random.random(), np.random.rand()) == numbers[1:]
    assert answers[0] == answers[1]


def test_parts_that_cannot_be_copied_are_shared() -> None:
    model = with_part(Resisting())
    model.remembers = Remembering()
    assert asked(model).answers == asked(rcnn()).answers
    leaf = torch.ones(2, requires_grad=True)
    assert asked(with_part(Holder(of_a_graph=leaf * 2))).answers == asked(rcnn()).answers


def test_images_have_the_channels_that_the_first_convolution_takes() -> None:
    class Averaging(OneBox):
        def forward(self, model: nn.Module, images: Any) -> Tensor:
            assert images[0].shape == (5, *images[0].shape[1:])
            return torch.stack([model[1](image.mean().reshape(1)) for image in images])

        def modules(self, model: Any) -> dict[str, nn.Module]:
            return {"layer": model[1]}

    probe = asked(nn.Sequential(nn.Conv2d(5, 2, 1), nn.Linear(1, 1)), Averaging())
    assert [answer["boxes"] for answer in probe.answers] == [1, 1]


def test_a_model_that_takes_no_images_is_not_asked() -> None:
    class Worded(OneBox):
        def forward(self, model: nn.Module, images: Any) -> Tensor:
            return super().forward(model, images["words"])

    assert ask_model(nn.Linear(1, 1), Worded(), PassOptions(), CPU, without_parameters) is None


def test_numbers_that_are_none_are_left_out() -> None:
    broken = OneBox(frame_embeddings=lambda output: torch.full((len(output), 2), torch.nan))
    assert asked(nn.Linear(1, 1), broken).answers[0].keys() == {"height", "width", "boxes", "mean score"}
    empty = OneBox(
        counts=lambda output: torch.zeros(len(output), dtype=torch.int64), scores=lambda output: torch.zeros(0)
    )
    assert asked(nn.Linear(1, 1), empty).answers[0] == {"height": 64, "width": 192, "boxes": 0}


SIZE = {"height": 64, "width": 192}


@pytest.mark.parametrize(
    ("then", "now", "differs"),
    [
        ({"boxes": 100}, {"boxes": 81}, False),
        ({"boxes": 100}, {"boxes": 79}, True),
        ({"boxes": 3}, {"boxes": 1}, False),
        ({"boxes": 3}, {"boxes": 0}, True),
        ({"boxes": 2, "mean score": 0.4}, {"boxes": 2, "mean score": 0.49}, False),
        ({"boxes": 2, "mean score": 0.4}, {"boxes": 2, "mean score": 0.51}, True),
        ({"boxes": 1, "mean score": 0.4}, {"boxes": 0}, False),
        ({"boxes": 0, "embedding's mean": 0.0, "embedding's size": 1.0},
         {"boxes": 0, "embedding's mean": 0.09, "embedding's size": 1.05}, False),
        ({"boxes": 0, "embedding's mean": 0.0, "embedding's size": 1.0},
         {"boxes": 0, "embedding's mean": 0.2, "embedding's size": 1.05}, True),
        ({"boxes": 0, "embedding's mean": 0.0, "embedding's size": 1.0},
         {"boxes": 0, "embedding's mean": 0.0, "embedding's size": 1.2}, True),
        ({"boxes": 0, "embedding's mean": 0.0, "embedding's size": 1.0}, {"boxes": 0}, True),
    ],
)  # fmt: skip
def test_answers_are_compared_as_coarsely_as_machines_differ(then: Any, now: Any, differs: bool) -> None:
    for old, new in ((then, now), (now, then)):
        found = answer_changes([SIZE | old, SIZE | {"boxes": 0}], [SIZE | new, SIZE | {"boxes": 0}])
        assert len(found) == differs


def test_rounding_of_another_precision_is_no_difference() -> None:
    answers = asked(rcnn()).answers
    rounded = asked(rcnn(), autocast=torch.bfloat16).answers
    assert rounded != answers
    assert answer_changes(answers, rounded) == []


def test_what_a_name_is_within() -> None:
    assert around("a.b[0]['c']") == ["a", "a.b", "a.b[0]"]
    assert around("a forward hook b") == ["a", "a forward", "a forward hook"]
    assert around("a") == []
