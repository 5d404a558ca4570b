"""Small EfficientDets with random weights, scores spread over classes and anchors, and what their benches report."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    effdet = pytest.importorskip("effdet")

CLASSES, SIDE = 4, 128


@functools.cache
def built(soft: bool = False) -> Any:
    """A bench for prediction; never changed by a test."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        bench = effdet.create_model(
            "tf_efficientdet_lite0", bench_task="predict", num_classes=CLASSES, pretrained_backbone=False,
            image_size=(SIDE, SIDE), max_det_per_image=30, soft_nms=soft,
        )  # fmt: skip
        for module in bench.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for head, deviation, mean in ((bench.model.class_net, 1.5, -2.0), (bench.model.box_net, 0.3, 0.0)):
            layer = head.predict.conv_pw
            spread_out(bench, layer, deviation, mean)
    if soft:  # which takes a step for each detection that is left
        bench.max_detection_points = 120
    return bench.eval()


def spread_out(bench: Any, layer: nn.Conv2d, deviation: float, mean: float) -> None:
    """Give a head's last layer weights by which its outputs over noise have this mean and standard deviation."""
    seen: list[Tensor] = []
    watch = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(2)))
    bench.eval().model(torch.randn(2, 3, SIDE, SIDE))
    watch.remove()
    nn.init.normal_(layer.weight)
    outputs = torch.einsum("oi,nix->nox", layer.weight[:, :, 0, 0], torch.cat(seen, dim=2))
    layer.weight.mul_((deviation / (outputs.std((0, 2)) + 1e-6))[:, None, None, None])
    layer.bias.copy_(mean - outputs.mean((0, 2)) * deviation / (outputs.std((0, 2)) + 1e-6))


def pictures() -> list[Tensor]:
    """None of them is resized: the longer side is what the network takes."""
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, *size, generator=generator) for size in [(128, 128), (96, 128), (128, 70)]]


def host_detections(bench: Any, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """What the bench reports of images as the package's loader prepares them, without the rows of zeros."""
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    batch = torch.zeros(len(images), 3, SIDE, SIDE)
    scales = []
    for row, image in enumerate(images):
        height, width = image.shape[1:]
        scale = min(SIDE / height, SIDE / width)
        small = image
        if scale != 1:
            small = torch.nn.functional.interpolate(
                image[None], (int(height * scale), int(width * scale)), mode="bilinear", antialias=True
            )[0]
        batch[row, :, : small.shape[1], : small.shape[2]] = (small - mean) / std
        scales.append(1 / scale)
    info = {
        "img_scale": torch.tensor(scales),
        "img_size": torch.tensor([[float(image.shape[2]), float(image.shape[1])] for image in images]),
    }
    with torch.no_grad():
        found = bench(batch, info)
    return [
        {"boxes": rows[rows[:, 4] > 0, :4], "scores": rows[rows[:, 4] > 0, 4], "labels": rows[rows[:, 4] > 0, 5].long()}
        for rows in found
    ]
