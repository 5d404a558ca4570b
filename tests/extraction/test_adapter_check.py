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


class Painted(nn.Module):
    """A detector with an embedding a box: one box an image, at a place that the image's mean tells."""

    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([image.mean() for image in images])


class PaintedAdapter:
    """Right, unless told otherwise: two boxes an image."""

    name = "painted"

    def __init__(self, change: Change = lambda frames: None) -> None:
        self.change = change

    def matches(self, model: nn.Module) -> bool:
        return isinstance(model, Painted)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"all": model}

    def forward(self, model: nn.Module, images: Any) -> torch.Tensor:
        return model(images)  # type: ignore[no-any-return]

    def read(self, model: nn.Module, recording: Any, output: torch.Tensor) -> FrameBatch:
        assert recording.sizes == [tuple(image.shape[1:]) for image in recording.images]
        means = output.repeat_interleave(2)
        corners = torch.stack([means * 4, means * 4, means * 4 + 5, means * 4 + 5], dim=1)
        corners[1::2] += 1
        frames = FrameBatch(
            torch.full((len(output),), 2), corners, torch.zeros(len(means)).long(), means,
            means[:, None], "sigmoid", torch.stack([means, torch.arange(len(means)) % 2], dim=1).float(),
        )  # fmt: skip
        self.change(frames)
        return frames


PICTURES = [torch.full((3, 12, 10), 0.2), torch.full((3, 10, 12), 0.6)]


def truths(pool: Any) -> list[dict[str, torch.Tensor]]:
    return [
        {name: getattr(pool, name)[2 * row : 2 * row + 2].flip(0) for name in ("boxes", "labels", "scores")}
        for row in range(2)
    ]


def test_what_the_detectors_own_code_reports_is_compared_in_any_order() -> None:
    expected = truths(check_adapter(Painted(), PaintedAdapter(), PICTURES))
    check_adapter(Painted(), PaintedAdapter(), PICTURES, expected=expected)
    expected[1]["labels"] = expected[1]["labels"] + 1
    with pytest.raises(
        HookError, match=r"image 1 has \(2\.4, 2\.4, 7\.4, 7\.4\) with label 0 and score 0\.600, which the"
    ):
        check_adapter(Painted(), PaintedAdapter(), PICTURES, expected=expected)
    expected[0] = {name: column[:1] for name, column in expected[0].items()}
    with pytest.raises(HookError, match="image 0 has 2 boxes; the detector's own code gives 1"):
        check_adapter(Painted(), PaintedAdapter(), PICTURES, expected=expected)
    with pytest.raises(HookError, match="one entry an image; got 1 for 2 images"):
        check_adapter(Painted(), PaintedAdapter(), PICTURES, expected=expected[:1])


def test_embeddings_that_are_one_for_all_boxes_are_told() -> None:
    adapter = PaintedAdapter(setting("box_embeddings", lambda column: column[:, :1]))
    with pytest.raises(HookError, match="`box_embeddings` of the 2 boxes of one image are all equal, though the boxes"):
        check_adapter(Painted(), adapter, PICTURES)


@pytest.mark.parametrize("name", ["boxes", "box_embeddings"])
def test_columns_of_another_image_are_told(name: str) -> None:
    """Those of the first image, for all."""
    adapter = PaintedAdapter(setting(name, lambda column: column[:2].repeat(len(column) // 2, 1)))
    with pytest.raises(HookError, match=f"`{name}` of an image change when the batch is read in reverse order"):
        check_adapter(Painted(), adapter, PICTURES)


def test_counts_of_another_image_are_told() -> None:
    def move(frames: FrameBatch) -> None:
        frames.counts = torch.tensor([1, 3])

    with pytest.raises(HookError, match=r"the images have \[1, 3\] boxes, and \[3, 1\] when the batch"):
        check_adapter(Painted(), PaintedAdapter(move), PICTURES)


def test_one_call_tells_all_that_is_wrong() -> None:
    class Wrong(PaintedAdapter):
        name = "wrong"

        def matches(self, model: nn.Module) -> bool:
            return False

    adapter = Wrong(setting("box_embeddings", lambda column: column[:, :1] * 0))
    expected = [{}, {}, {}]  # type: ignore[var-annotated]
    with pytest.raises(
        HookError, match=r"(?s)3 things are wrong with wrong:\n1\. `matches` of.*\n2\. .*\n3\. `expected`"
    ):
        check_adapter(Painted(), adapter, PICTURES, expected=expected)


def test_modules_of_another_model_are_told() -> None:
    class Elsewhere(PaintedAdapter):
        def modules(self, model: nn.Module) -> dict[str, nn.Module]:
            return {"head": nn.Identity()}

    with pytest.raises(HookError, match=r"(?s)'head', which is no module of the model.*`head` did not run"):
        check_adapter(Painted(), Elsewhere(), PICTURES)
