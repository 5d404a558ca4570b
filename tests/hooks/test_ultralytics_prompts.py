"""Ultralytics' detectors whose classes are prompts: World and YOLOE, against the host's own predictor."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest

pytest.importorskip("tiny_yolo")

import torch
from tiny_yolo import SIZES, as_tensor, frames_of, noise, predicted, run, ultralytics
from torch import nn

from cval_torch.errors import UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.ultralytics import UltralyticsAdapter

MODELS = ["yolov8n-worldv2", "yoloe-v8n", "yoloe-11n", "yoloe-26n"]
OPTIONS = {"conf": 0.1, "iou": 0.5, "max_det": 300, "imgsz": 128}


@functools.cache
def built(name: str, classes: int) -> Any:
    """With the classes set by embeddings, since the text encoder is not here, and scores spread over them."""
    kind = ultralytics.YOLOWorld if "world" in name else ultralytics.YOLOE
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yolo = kind(f"{name}.yaml")
        network = yolo.model
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        head = network.model[-1]
        head.end2end = name == "yoloe-26n"
        contrasts = [*head.cv4, *(getattr(head, "one2one_cv4", None) or [])]
        for contrast in contrasts:
            contrast.logit_scale.fill_(4.0)
            contrast.bias.fill_(-1.0)
        embeddings = torch.nn.functional.normalize(torch.randn(1, classes, 512), dim=-1)
        names = [f"class {number}" for number in range(classes)]
        if "world" in name:
            network.txt_feats, head.nc, network.names = embeddings, classes, dict(enumerate(names))
        else:
            network.set_classes(names, embeddings)
    return yolo


@pytest.mark.parametrize("name", MODELS)
def test_detections_are_those_of_the_hosts_predict(name: str) -> None:
    for classes in (7, 3) if name in MODELS[:2] else (7,):  # set twice
        yolo = built(name, classes)
        end2end = bool(yolo.model.model[-1].end2end)
        assert end2end == (name == "yoloe-26n")
        images = noise(SIZES)
        fused = copy.deepcopy(yolo.model).fuse(verbose=False)
        batch = run(UltralyticsAdapter(**OPTIONS), fused, list(map(as_tensor, images)))
        assert batch.probabilities.shape[1] == classes
        assert torch.equal(batch.probabilities.gather(1, batch.labels[:, None])[:, 0], batch.scores)
        for image, frame in zip(images, frames_of(batch), strict=True):
            truth = predicted(yolo, image, **OPTIONS, nms=False if end2end else None)
            assert len(truth) > 5
            found = torch.cat([frame["scores"][:, None], frame["labels"][:, None], frame["boxes"]], dim=1)
            expected = torch.cat([truth.conf[:, None], truth.cls[:, None], truth.xyxy], dim=1)
            assert sorted(found.tolist()) == sorted(expected.tolist())  # equal scores may come in any order
        assert batch.labels.unique().numel() > 1


def test_boxes_of_other_classes_suppress_as_the_host_would() -> None:
    """By default of YOLOE alone, whatever was asked of the head before."""
    image = noise(SIZES)[0]
    for name in ("yoloe-v8n", "yoloe-26n"):
        yolo = built(name, 7)
        for agnostic in (True, False):
            fused = copy.deepcopy(yolo.model).fuse(verbose=False)
            batch = run(UltralyticsAdapter(**OPTIONS, agnostic_nms=agnostic), fused, [as_tensor(image)])
            truth = predicted(yolo, image, **OPTIONS, agnostic_nms=agnostic, nms=False if name == "yoloe-26n" else None)
            assert len(batch.scores) == len(truth)
            assert torch.allclose(batch.scores.sort().values, truth.conf.sort().values, atol=1e-5)
            assert "agnostic_nms" not in vars(fused.model[-1])


def test_a_model_without_prompts_is_refused_with_the_reason() -> None:
    yolo = copy.deepcopy(built("yoloe-v8n", 3))
    yolo.model.model[-1].lrpc = nn.ModuleList()
    with pytest.raises(UnsupportedModelError, match=r"it has no prompts, .* Give it classes, by `set_classes`"):
        extract(yolo, [[torch.rand(3, 64, 64)]], progress=False)
