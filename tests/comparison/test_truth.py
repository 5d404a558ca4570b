"""What is truly in each frame, from targets of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quick_comparison import Known, loader_of, quick, same
from shades import OneBox, Tiny
from torch.utils.data import DataLoader
from torchvision.tv_tensors import BoundingBoxes

from cval_torch import PassOptions, compare
from cval_torch.comparison.truth import TruthReader
from cval_torch.errors import InvalidInputError, NoSubsetError
from cval_torch.extraction.inference_pass import InferencePass


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
        (
            lambda row, target: {"labels": [0.5]},
            r"`labels` of the target of frame '0' must be \(n,\) integers; got \(1,\) of torch.fl",
        ),
        (lambda row, target: {"labels": "cat"}, "`labels` of the target of frame '0' must be .*; got str 'cat'"),
        (
            lambda row, target: [{"category_id": 1}] * (row == 2),
            r"target of frame '2' must be a dict with `labels`.*; got a list of dicts with \['category_id'\]. Pass `t",
        ),
        (
            lambda row, target: [{"category_id": 1, "bbox": [0, 0, 1, 1]}],
            r"got a list of dicts with \['bbox', 'category_id'\]. Wrap .* by `torchvision.datasets.wrap_dataset",
        ),
        (lambda row, target: {"image_id": row}, "every target holds an `image_id` and nothing else.*Pass `targets=`"),
        (
            lambda row, target: {"labels": [1], "boxes": []},
            r"`boxes` of the target of frame '0' must be \(n, 4\) xyxy with n=1 labels",
        ),
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


@pytest.mark.parametrize(
    ("form", "box"), [("XYXY", [0.0, 0, 1, 2]), ("XYWH", [0.0, 0, 1, 2]), ("CXCYWH", [0.5, 1, 1, 2])]
)
def test_boxes_of_every_upright_format_are_understood(form: str, box: list[float]) -> None:
    def target(row: int, target: Any) -> Any:
        return {"labels": [1 + row % 2], "boxes": BoundingBoxes([box], format=form, canvas_size=(2, 2))}

    same(quick(Known(target=target)), quick(Known(target=lambda row, _: {"labels": [1 + row % 2], "boxes": CORNERS})))


CORNERS = [[0.0, 0.0, 1.0, 2.0]]


def test_frames_whose_target_holds_an_image_id_alone_are_empty() -> None:
    def target(row: int, target: Any) -> Any:
        return target if len(target["labels"]) else {"image_id": row}

    dataset = Known()
    run = InferencePass(Tiny(), loader_of(dataset), PassOptions(adapter=OneBox(), progress=False))
    reader = TruthReader(lambda row: target(row, dataset[row][1]))
    truth = reader.truth(run.pool(), run)  # a pass without `watch`, as one that was found in its folder
    assert truth.counts.tolist() == [row % 3 for row in range(30)]
    assert truth.labels is not None
    assert truth.labels.tolist() == [label for row in range(30) for label in dataset.labels(row)]
