"""`check_adapter`, over an adapter for a real detector that goes wrong in one way at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_torchvision import images, tiny
from torch import nn

from cval_torch.errors import ExtractionError, HookError, InvalidInputError
from cval_torch.extraction import check_adapter
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import FrameBatch
from cval_torch.hooks.torchvision import RCNNAdapter

Change = Callable[[FrameBatch], Any]


class Own(RCNNAdapter):
    """Reads a Faster R-CNN, and changes what was read."""

    name = "my detector"

    def __init__(self, change: Change = lambda frames: None) -> None:
        self.change = change

    def read(self, model: nn.Module, recording: Any, output: Any) -> FrameBatch:
        frames = super().read(model, recording, output)
        self.change(frames)
        return frames


def setting(name: str, change: Callable[[Any], Any]) -> Change:
    return lambda frames: setattr(frames, name, change(getattr(frames, name)))


def test_an_adapter_that_is_right_gives_the_rows() -> None:
    model = tiny("rcnn").train()
    pool = check_adapter(nn.DataParallel(model), Own(), (images(2), [{}, {}]))
    assert model.training
    assert len(pool) == 2
    assert pool.boxes is not None
    assert torch.equal(pool.boxes, extract(model, [images(2)], progress=False).boxes)


WRONG = [
    ("labels", lambda labels: labels + 4, "`labels` must be columns of `probabilities`, in \\[0, 5\\); got"),
    ("scores", lambda scores: scores / 2, "`scores` must be `probabilities\\[label\\]`"),
    ("activation", lambda _: None, "must say the `activation`"),
    (
        "probabilities",
        lambda columns: columns[:, :-1],
        "`probabilities` of a softmax must sum to 1|`scores` must be|`labels`",
    ),
    ("boxes", lambda boxes: boxes.flip(1), "with x1 <= x2 and y1 <= y2; row 0 is"),
    ("boxes", lambda boxes: boxes / 150, "all are in \\[0, 1\\]"),
    ("boxes", lambda boxes: boxes * 4, "is outside its image of"),
    ("counts", lambda counts: counts.tolist(), "`counts` of my detector must be a tensor \\(N,\\); got list"),
]


@pytest.mark.parametrize(("name", "change", "message"), WRONG)
def test_what_is_wrong_is_named_by_the_check_and_by_the_pass(
    name: str, change: Callable[[Any], Any], message: str
) -> None:
    adapter = Own(setting(name, change))
    with pytest.raises(HookError, match=message):
        check_adapter(tiny("rcnn"), adapter, images(2))
    with pytest.raises(HookError, match=message):
        extract(tiny("rcnn"), [images(1), images(2)], adapter=adapter, progress=False)


def test_a_batch_without_boxes_checks_too_little() -> None:
    model = tiny("rcnn")
    model.roi_heads.score_thresh = 1.0  # type: ignore[union-attr]
    with pytest.raises(HookError, match="my detector read no boxes in this batch: pass one in which"):
        check_adapter(model, Own(), images(2))


def test_an_adapter_that_does_not_know_its_own_model_is_wrong() -> None:
    class Shy(Own):
        def matches(self, model: nn.Module) -> bool:
            return False

    with pytest.raises(HookError, match="`matches` of my detector says no to FasterRCNN"):
        check_adapter(tiny("rcnn"), Shy(), images(2))


def test_errors_of_the_adapter_and_wrong_arguments() -> None:
    def fail(frames: FrameBatch) -> None:
        raise KeyError("cells")

    with pytest.raises(ExtractionError, match="KeyError: 'cells'"):
        check_adapter(tiny("rcnn"), Own(fail), images(2))
    with pytest.raises(InvalidInputError, match="object lacks"):
        check_adapter(tiny("rcnn"), object(), images(2))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="a batch must be images"):
        check_adapter(tiny("rcnn"), Own(), "images")
