"""A `cache_dir` refuses every other model, and says by name what differs."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_variants import (
    Doubling,
    Holder,
    ScriptedGain,
    Slotted,
    cached_pass,
    closing_over,
    hidden,
    hooked,
    int8,
    low_rank,
    parametrized,
    partial_of,
    rcnn,
    scripted,
    traced,
    with_part,
)
from one_box import OneBox
from refusals import refused, unfinish
from tiny_rcnn import make_faster_rcnn
from tiny_torchvision import tiny
from torch import nn
from torch.nn import functional
from torchvision.models.detection.rpn import AnchorGenerator

from cval_torch.errors import InvalidInputError

Change = Callable[[Any], object]


def leaky(model: Any) -> None:
    model.backbone[2], model.backbone[5] = nn.LeakyReLU(0.1), nn.LeakyReLU(0.1)


CHANGES: list[tuple[str, Change, str]] = [
    (
        "proposals before NMS",
        lambda model: model.rpn._pre_nms_top_n.update(testing=7),
        "the model's rpn._pre_nms_top_n was {'testing': 60, 'training': 2000} and is {'testing': 7, 'training': 2000} "
        "now",
    ),
    (
        "proposals after NMS",
        lambda model: model.rpn._post_nms_top_n.update(testing=7),
        "the model's rpn._post_nms_top_n was {'testing': 40, 'training': 2000} and is {'testing': 7, 'training': 2000} "
        "now",
    ),
    (
        "box coder",
        lambda model: setattr(model.roi_heads.box_coder, "weights", (1.0, 1.0, 1.0, 1.0)),
        "the model's roi_heads.box_coder.weights was (10.0, 10.0, 5.0, 5.0) and is (1.0, 1.0, 1.0, 1.0) now",
    ),
    (
        "clip of the box coder",
        lambda model: setattr(model.roi_heads.box_coder, "bbox_xform_clip", 1.0),
        "the model's roi_heads.box_coder.bbox_xform_clip was 4.135166556742356 and is 1.0 now",
    ),
    (
        "anchors",
        lambda model: setattr(model.rpn, "anchor_generator", AnchorGenerator(((12, 32),), ((0.5, 1.0, 2.0),))),
        "the model's rpn.anchor_generator.cell_anchors[0] was float32 (6, 4) db3131e2112d5db2 and is float32 (6, 4) "
        "cd4f768d542ba2e4 now; the model's rpn.anchor_generator.sizes was ((12, 24),) and is ((12, 32),) now",
    ),
    (
        "activations",
        leaky,
        "the model's backbone.2 was torch.nn.modules.activation.ReLU and is torch.nn.modules.activation.LeakyReLU "
        "now; the model's backbone.5 was torch.nn.modules.activation.ReLU and is "
        "torch.nn.modules.activation.LeakyReLU now",
    ),
    (
        "epsilon of a norm",
        lambda model: setattr(model.backbone[1], "eps", 0.01),
        "the model's backbone.1.eps was 1e-05 and is 0.01 now",
    ),
    (
        "image mean",
        lambda model: setattr(model.transform, "image_mean", [0.0, 0.0, 0.0]),
        "the model's transform.image_mean was (0.485, 0.456, 0.406) and is (0.0, 0.0, 0.0) now",
    ),
    (
        "image size",
        lambda model: setattr(model.transform, "min_size", (64,)),
        "the model's transform.min_size was (48,) and is (64,) now",
    ),
    (
        "statistics",
        lambda model: model.backbone[1].running_mean.add_(1),
        "the model's weights: backbone.1.running_mean was float32 (8,) ",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_one_setting_of_a_known_detector(change: Change, message: str, tmp_path: Path) -> None:
    with torch.no_grad():
        assert refused(tmp_path, rcnn, lambda: rcnn(change)).startswith(message)


PARTS: list[tuple[str, Callable[[], nn.Module], Callable[[], nn.Module], str]] = [
    (
        "8-bit weights",
        int8,
        lambda: int8(lambda head: head.fc6.weight[0, 0].add_(1)),
        "the model's weights: roi_heads.box_head.fc6._packed_params._packed_params[0] was qint8 (32, 144)",
    ),
    (
        "active low-rank adapter",
        low_rank,
        lambda: low_rank(active="other"),
        "the model's roi_heads.box_head.fc6._active was ('default',) and is ('other',) now",
    ),
    (
        "scale of a low-rank adapter",
        low_rank,
        lambda: low_rank(scaling=3.0),
        "the model's roi_heads.box_head.fc6.scaling was {'default': 2.0, 'other': 1.0} and is {'default': 3.0",
    ),
    (
        "parametrization",
        lambda: parametrized(2.0),
        lambda: parametrized(3.0),
        "the model's roi_heads.box_head.fc6.parametrizations.weight.0.gain was 2.0 and is 3.0 now",
    ),
    ("hidden module", lambda: hidden(0), lambda: hidden(1), "the model's weights: backbone.2.parts[0].bias was"),
    (
        "partial function",
        lambda: partial_of(0.1),
        lambda: partial_of(0.2),
        "the model's backbone.2.function.negative_slope was 0.1 and is 0.2 now",
    ),
    (
        "function",
        lambda: with_part(Holder(functional.relu)),
        lambda: with_part(Holder(functional.gelu)),
        "the model's backbone.2.function was torch.nn.functional.relu and is torch._C._nn.gelu now",
    ),
    (
        "code of a lambda",
        lambda: with_part(Holder(lambda x: x * 2)),
        lambda: with_part(Holder(lambda x: x * 3)),
        " of tests.extraction.test_another_model.<lambda>.<locals>.<lambda> was ",
    ),
    (
        "closed over",
        lambda: with_part(Holder(closing_over(torch.tensor(2.0)))),
        lambda: with_part(Holder(closing_over(torch.tensor(3.0)))),
        "the model's backbone.2.function.value was float32 2.0 and is float32 3.0 now",
    ),
    (
        "tensor",
        lambda: with_part(Holder(anchors=[torch.ones(3, 3)])),
        lambda: with_part(Holder(anchors=[torch.zeros(3, 3)])),
        "the model's backbone.2.anchors[0] was float32 (3, 3) ",
    ),
    (
        "object with slots",
        lambda: with_part(Holder(scale=Slotted(1.0))),
        lambda: with_part(Holder(scale=Slotted(2.0))),
        "the model's backbone.2.scale._gain was 1.0 and is 2.0 now",
    ),
    (
        "subclass",
        lambda: with_part(Holder()),
        lambda: with_part(Doubling()),
        "the model's backbone.2 was model_variants.Holder and is model_variants.Doubling now",
    ),
    (
        "hook",
        rcnn,
        lambda: hooked(2.0),
        "the model's backbone forward hook model_variants.hooked.<locals>.scale was not there and is there now",
    ),
    (
        "factor of a hook",
        lambda: hooked(2.0),
        lambda: hooked(3.0),
        "the model's backbone forward hook model_variants.hooked.<locals>.scale.factor was 2.0 and is 3.0 now",
    ),
    (
        "traced code",
        lambda: traced(Holder(functional.relu)),
        lambda: traced(Holder(functional.gelu)),
        "the model's backbone.2.code was ",
    ),
    ("scripted code", lambda: scripted(2.0), lambda: with_part(ScriptedGain(2.0)), "the model's backbone.2 was torch."),
    (
        "value within scripted code",
        lambda: scripted(2.0),
        lambda: scripted(-3.0),
        "the model's answer to a test image of 64 x 192 pixels was 10 boxes, mean score ",
    ),
]


@pytest.mark.parametrize(("then", "now", "message"), [case[1:] for case in PARTS], ids=[case[0] for case in PARTS])
def test_one_part_of_a_users_detector(then: Any, now: Any, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, then, now)


def test_the_default_boxes_of_ssd(tmp_path: Path) -> None:
    def other() -> Any:
        model: Any = tiny("ssd")
        model.anchor_generator.scales = [0.1, 0.2, 0.3]
        return model

    assert refused(tmp_path, lambda: tiny("ssd"), other) == (
        "the model's anchor_generator.scales was (0.15, 0.9, 1.0) and is (0.1, 0.2, 0.3) now"
    )


def test_what_differs_is_told_with_a_few_names_and_a_number(tmp_path: Path) -> None:
    def shifted() -> Any:
        model = rcnn()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        return model

    told = refused(tmp_path, rcnn, shifted).split("; ")
    assert [change.split()[3] for change in told[:3]] == ["backbone.0.bias", "backbone.0.weight", "backbone.1.bias"]
    assert told[3:] == [f"{len(list(rcnn().parameters())) - 3} more of the model's weights differ"]


def test_the_precision_of_the_weights(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    rounded = copy.deepcopy(model).bfloat16()
    told = refused(tmp_path, lambda: model, lambda: rounded, adapters=(OneBox(), OneBox()))
    assert re.match(r"the model's weights: bias was float32 \(.*,\) and is bfloat16 \(.*,\) now;", told)


def test_a_library_function_that_was_replaced_stops_a_pass_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that the model holds differs; what it answers does."""
    cached_pass(tmp_path, make_faster_rcnn())
    unfinish(tmp_path)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: 9 * x)
    with pytest.raises(InvalidInputError, match="the model's answer to a test image of 64 x 192 pixels was 10 boxes"):
        cached_pass(tmp_path, make_faster_rcnn())
    monkeypatch.undo()
    cached_pass(tmp_path, make_faster_rcnn())
