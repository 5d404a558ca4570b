"""Embeddings of the best boxes only, by the adapters of transformers and Ultralytics, are those of all boxes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from best_boxes import embedding_best
from torch import nn

from cval_torch.extraction.passes import extract


def assert_rows_are_those_of_all(model: nn.Module, adapter: Any, batch: Any, k: int) -> None:
    options: dict[str, Any] = {"adapter": adapter, "progress": False, "frame_id": lambda row, _: str(row)}
    full, some = extract(model, [batch], **options), extract(model, [batch], top_boxes=k, **options)
    assert int(full.counts.max()) > k
    for (name, column), (other_name, other) in zip(some.columns(), embedding_best(full, k).columns(), strict=True):
        assert name == other_name
        assert torch.equal(column, other), name


@pytest.mark.parametrize("name", ["DETR", "YOLOS"])
def test_transformers(name: str) -> None:
    """YOLOS runs once for each size of an image."""
    detr = pytest.importorskip("tiny_detr")
    images = [torch.rand(3, 64, 96), torch.rand(3, 96, 64), torch.rand(3, 64, 96), torch.rand(3, 32, 32)]
    adapter = detr.TransformersAdapter(processor=detr.processor_of(name, do_resize=False), threshold=0.01)
    assert_rows_are_those_of_all(detr.built(name), adapter, images, 2)


@pytest.mark.parametrize("end2end", [False, True])
def test_ultralytics(end2end: bool) -> None:
    """Letterboxes of two shapes run in two passes."""
    yolo = pytest.importorskip("tiny_yolo")
    model = yolo.built("yolov10n" if end2end else "yolov8n", end2end).model
    images = [yolo.as_tensor(image) for image in yolo.noise([(96, 128), (128, 96), (96, 128)])]
    assert_rows_are_those_of_all(model, yolo.UltralyticsAdapter(conf=0.1, iou=0.5, imgsz=128), images, 3)
