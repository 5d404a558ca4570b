"""A `cache_dir` refuses another adapter, other code, transforms and functions, and says by name what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_variants import Graded, cached_pass, rcnn, with_part
from refusals import refused
from tiny_rcnn import Frames, loader_of
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Subset

from cval_torch import extract
from cval_torch.errors import InvalidInputError
from cval_torch.extraction import split_batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_mean": [0.0, 0.0, 0.0]}, "processor.image_mean was (0.485, 0.456, 0.406) and is (0.0, 0.0, 0.0) now"),
        ({"size": {"shortest_edge": 48, "longest_edge": 96}}, "processor.size.shortest_edge was 64 and is 48 now"),
        ({"resample": 0}, "processor.resample was Resampling.BILINEAR and is 0 now"),
    ],
)
def test_another_image_processor(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    detr = pytest.importorskip("tiny_detr")
    small = {"size": {"shortest_edge": 64, "longest_edge": 96}}
    adapters = tuple(
        detr.TransformersAdapter(processor=detr.processor_of("YOLOS", **{**small, **each})) for each in ({}, options)
    )
    model = detr.fresh("YOLOS")
    assert refused(tmp_path, lambda: model, lambda: model, adapters=adapters) == f"the adapter's {message}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 0.2}, "conf was 0.05 and is 0.2"),
        ({"iou": 0.5}, "iou was 0.7 and is 0.5"),
        ({"max_det": 5}, "max_det was 300 and is 5"),
        ({"rect": False}, "rect was True and is False"),
        ({"imgsz": 96}, "imgsz was (64, 64) and is (96, 96)"),
    ],
)
def test_other_options_of_an_ultralytics_adapter(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    yolo = pytest.importorskip("tiny_yolo")
    model = yolo.fresh("yolov8n")
    adapters = yolo.UltralyticsAdapter(imgsz=64), yolo.UltralyticsAdapter(**{"imgsz": 64, **options})
    assert refused(tmp_path, lambda: model, lambda: model, adapters=adapters) == f"the adapter's {message} now"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 0.5}, "the adapter's conf was 0.25 and is 0.5 now"),
        ({"classes": (1, 3)}, "the adapter's classes was (1, 2) and is (1, 3) now"),
        ({"table": {"a": torch.ones(2)}}, "the adapter's _held.table['a'] was not there and is float32 (1.0, 1.0) now"),
        ({"scores": lambda output: output.relu()}, "the adapter's columns['scores'] was not there and is"),
    ],
)
def test_other_settings_of_an_adapter_of_ones_own(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    columns = {"scores": options.pop("scores")} if "scores" in options else {}
    now = Graded(**options)
    now.columns |= columns
    assert refused(tmp_path, lambda: model, lambda: model, adapters=(Graded(), now)).startswith(message)


def test_code_of_ones_own_that_was_edited(tmp_path: Path) -> None:
    """Code that runs in a forward pass counts, with the functions and constants that it names; other code does not."""
    source = """
from torch import nn
FACTOR = 2.0
def scaled(x):
    '''Scale.'''
    return x * FACTOR
class Part(nn.Module):
    def forward(self, x):
        return self._inner(x)
    def _inner(self, x):
        return scaled(x).relu()
    def training_step(self, batch):
        return 1
"""
    edits = {
        "FACTOR = 2.0": ("FACTOR = 3.0", "edited.FACTOR was 2.0 and is 3.0 now"),
        "x * FACTOR": ("x + FACTOR", "edited.scaled was "),
        ".relu()": (".sigmoid()", "edited.Part._inner was "),
        "'''Scale.'''": ("'''Scale it.'''  # a note", ""),
        "return 1": ("return 2", ""),
        "def training_step(self, batch):": ("def plot(self): ...\n    def training_step(self, batches):", ""),
    }

    def made(text: str) -> nn.Module:
        space: dict[str, Any] = {"__name__": "edited"}
        exec(text, space)
        return with_part(space["Part"]())

    for number, (old, (new, message)) in enumerate(edits.items()):
        assert old in source
        edited = source.replace(old, new)
        if message:
            told = refused(tmp_path / str(number), lambda: made(source), lambda edited=edited: made(edited))
            assert told.startswith("the compiled code (")
            assert message in told
        else:
            cached_pass(tmp_path / str(number), made(source))
            cached_pass(tmp_path / str(number), made(edited))


class Transformed(Frames):
    def __init__(self, transform: Any) -> None:
        super().__init__(4)
        self.transform = transform

    def __getitem__(self, row: int) -> Any:
        image, target = super().__getitem__(row)
        return self.transform(image), target


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, image: Tensor) -> Tensor:
        return image * self.factor


def test_other_transforms_of_a_dataset_at_any_depth(tmp_path: Path) -> None:
    def over(transform: Any) -> Any:
        return Subset(Transformed(transform), range(4))

    model = rcnn()
    for number, (then, now, message) in enumerate(
        [
            (Scale(0.5), Scale(0.25), "the dataset's transform.factor was 0.5 and is 0.25 now"),
            (Scale(0.5), torch.relu, "the dataset's transform was "),
            (lambda image: image / 2, lambda image: image / 4, ".<lambda> was "),
        ]
    ):
        folder = tmp_path / str(number)
        cached_pass(folder, model, frames=over(then))
        cached_pass(folder, model, frames=over(then))
        with pytest.raises(InvalidInputError, match="holds another pass") as caught:
            cached_pass(folder, model, frames=over(now))
        assert message in str(caught.value)


def test_transforms_of_joined_datasets_and_of_one_that_refers_to_itself(tmp_path: Path) -> None:
    def joined(factor: float) -> Any:
        parts = [Transformed(Scale(0.5)), Transformed(Scale(factor))]
        parts[0].me = parts[0]  # type: ignore[attr-defined]
        return ConcatDataset(parts)

    model = rcnn()
    cached_pass(tmp_path, model, frames=joined(0.5))
    cached_pass(tmp_path, model, frames=joined(0.5))
    with pytest.raises(
        InvalidInputError, match=r"the dataset's datasets\[1\].transform.factor was 0.5 and is 0.25 now"
    ):
        cached_pass(tmp_path, model, frames=joined(0.25))


def pairs_scaled(factor: float) -> Callable[[list[Any]], Any]:
    def collate(samples: list[Any]) -> Any:
        images, targets = zip(*samples, strict=True)
        return [image * factor for image in images], targets

    return collate


def test_functions_of_the_loader_and_of_the_call(tmp_path: Path) -> None:
    def going(folder: str, *, collate: Any = None, **options: Any) -> None:
        loader = loader_of(Frames(4), collate_fn=collate or pairs_scaled(1.0))
        extract(rcnn(), loader, cache_dir=tmp_path / folder, progress=False, **options)

    def named(prefix: str) -> Callable[[int, Any], str]:
        return lambda row, target: f"{prefix}{row}"

    going("collate")
    with pytest.raises(InvalidInputError, match=r"the loader's collate_fn.factor was 1.0 and is 0.5 now"):
        going("collate", collate=pairs_scaled(0.5))
    going("ids", frame_id=named("a"))
    with pytest.raises(InvalidInputError, match=r"the functions' `frame_id`.prefix was 'a' and is 'b' now"):
        going("ids", frame_id=named("b"))
    going("split", split=lambda batch: split_batch(list(batch)))
    with pytest.raises(InvalidInputError, match=r"the compiled code \(.*\) of tests.extraction.*<lambda> was"):
        going("split", split=lambda batch: split_batch(tuple(batch)))
