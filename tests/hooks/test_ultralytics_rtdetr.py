"""The adapter of Ultralytics' RT-DETR against the host's own predictor, and against the network's own answers."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest

pytest.importorskip("tiny_yolo")

import torch
from tiny_yolo import as_tensor, noise, predicted, ultralytics
from torch import Tensor, nn

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.ultralytics import UltralyticsAdapter
from cval_torch.hooks.ultralytics_rtdetr import UltralyticsRTDETRAdapter
from cval_torch.pool.pool import Pool


@functools.cache
def built() -> Any:
    """With scores and boxes spread over classes and queries; never changed by a test."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = ultralytics.RTDETR("yolov8n-rtdetr.yaml")
        head = model.model.model[-1]
        for layer in (*head.dec_score_head, head.enc_score_head):
            nn.init.normal_(layer.weight, std=0.08)
            layer.bias.fill_(-1.0)
        for layer in (*head.dec_bbox_head, head.enc_bbox_head):
            nn.init.normal_(layer.layers[-1].weight, std=0.05)
    return model


def read(model: Any, images: list[Any], autocast: Any = None, **options: Any) -> Pool:
    adapter = UltralyticsRTDETRAdapter(imgsz=64, **options)
    given = [image if isinstance(image, Tensor) else as_tensor(image) for image in images]
    return extract(model, [given], adapter=adapter, autocast=autocast, progress=False)


def of_frame(pool: Pool, row: int) -> dict[str, Tensor]:
    mine = slice(*pool.offsets[row : row + 2].tolist())
    return {
        name: getattr(pool, name)[mine] for name in ("boxes", "labels", "scores", "probabilities", "box_embeddings")
    }


@pytest.mark.parametrize("conf", [0.05, 0.7, 0.999999])
def test_detections_are_those_of_the_hosts_predict(conf: float) -> None:
    images = noise([(64, 64), (64, 64), (40, 64), (100, 80)])
    pool = read(built(), images, conf=conf, every_class=True, max_det=40)
    alone = read(built(), images[1:2], conf=conf, every_class=True, max_det=40)
    for row, image in enumerate(images):
        truth, found = predicted(built(), image, conf=conf, max_det=40, imgsz=64), of_frame(pool, row)
        resized = row > 1  # the host resizes to whole grey levels, so a score may cross the threshold, or another
        missed = 0
        for each in (found, of_frame(alone, 0)) if row == 1 else (found,):
            assert abs(len(truth) - len(each["scores"])) <= resized
            height, width = image.shape[:2]
            boxes = truth.xyxy.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
            for score, label, box in zip(truth.conf, truth.cls, boxes, strict=True):
                close = ((each["scores"] - score).abs() < (5e-3 if resized else 1e-5)) & (each["labels"] == label)
                close &= (each["boxes"] - box).abs().amax(1) < (1.5 if resized else 1e-3)
                missed += not bool(close.any())
        assert missed <= 4 * resized
    assert bool(pool.num_boxes) == (conf < 0.9)


def test_every_row_is_its_querys() -> None:
    model = copy.deepcopy(built().model)
    head = model.model[-1]
    states: list[Tensor] = []
    head.dec_score_head[head.decoder.eval_idx].register_forward_pre_hook(lambda _, args: states.append(args[0]))
    images = [as_tensor(image) for image in noise([(64, 64), (64, 64)])]
    raw: list[Tensor] = []
    model.register_forward_hook(lambda _, __, output: raw.append(output[1][1].squeeze(0)))
    pool = read(model, images, conf=0.3, max_det=15)
    assert pool.counts.tolist() == [15, 15]
    for row in range(2):
        found = of_frame(pool, row)
        for vector, state in zip(found["probabilities"], found["box_embeddings"], strict=True):
            query = (raw[0][row].sigmoid() - vector).abs().amax(1).argmin()
            assert torch.equal(states[0][row, query], state)
        assert len({tuple(state.tolist()) for state in found["box_embeddings"]}) == 15
        assert torch.equal(found["probabilities"].max(1).values, found["scores"])
    assert pool.frame_embeddings is not None
    assert not torch.equal(pool.frame_embeddings[0], pool.frame_embeddings[1])


def test_the_object_its_network_and_an_averaged_copy_are_found() -> None:
    image = as_tensor(noise([(64, 64)])[0])
    from ultralytics.utils.torch_utils import ModelEMA

    model = built()
    model.model.args = {**dict(getattr(model.model, "args", None) or {}), "imgsz": 64}
    plain = extract(model, [[image]], progress=False)
    assert plain.num_boxes > 0
    for held in (model.model, ModelEMA(model.model), nn.ModuleDict({"net": model.model})):
        found = extract(held, [[image]], progress=False)
        assert torch.equal(found.boxes, plain.boxes)


def test_half_precision_and_an_output_that_changed() -> None:
    image = noise([(64, 64)])[0]
    assert read(built(), [image], autocast=torch.bfloat16).num_boxes > 0
    model = copy.deepcopy(built().model)
    model.register_forward_hook(lambda _, __, output: output[0])
    with pytest.raises(HookError, match="must return its answer and beside it the raw boxes and logits"):
        read(model, [image])
    del model.model[-1].input_proj
    with pytest.raises(HookError, match=r"not built as Ultralytics' are: .*input_proj"):
        read(model, [image])
    with pytest.raises(InvalidInputError, match="`threshold` must be"):
        UltralyticsRTDETRAdapter(conf=1.0)


def test_a_rotated_detector_is_refused_with_the_reason_whoever_is_asked() -> None:
    from cval_torch.errors import UnsupportedModelError
    from cval_torch.hooks import TiledAdapter

    rotated = ultralytics.YOLO("yolov8n-obb.yaml")
    for held in (rotated, rotated.model):
        for adapter in (None, UltralyticsAdapter(), TiledAdapter(), TiledAdapter(UltralyticsAdapter())):
            with pytest.raises(UnsupportedModelError, match="its boxes are rotated, and those of a Pool are upright"):
                extract(held, [[torch.rand(3, 64, 64)]], adapter=adapter, progress=False)
