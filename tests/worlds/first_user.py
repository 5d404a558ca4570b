"""A first user's folder: photographs, one of them broken, and the weights of a detector."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from skimage import data
from torch import nn
from torchvision.models import get_model
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype

BUILDER = "ssdlite320_mobilenet_v3_large"
DETECTOR = ("--model", BUILDER, "--checkpoint", "detector.pt", "--num-classes", "3", "--workers", "0", "--batch", "4")
"""Flags of the commands that need a detector."""


def make_place(folder: Path) -> Path:
    """`photos/`, with 24 crops of photographs, eight of them in `cats/`, and `detector.pt`."""
    photos = folder / "photos"
    (photos / "cats").mkdir(parents=True)
    for name, picture in (("astronaut", data.astronaut()), ("coffee", data.coffee()), ("cats/chelsea", data.chelsea())):
        image = Image.fromarray(picture)
        for number in range(8):
            left, top = 20 * number, 10 * number
            image.crop((left, top, left + 200, top + 160)).save(photos / f"{name} {number}.jpg")
    (photos / "broken.jpg").write_bytes(b"no image")
    torch.save(_weights([Image.open(path) for path in sorted(photos.rglob("*[036].jpg"))]), folder / "detector.pt")
    return folder


def _weights(images: list[Image.Image]) -> dict[str, torch.Tensor]:
    """Of a detector that nobody trained, and that yet sees other boxes, of other scores, in each image.

    Random weights alone let nothing through to the last layers: all boxes of all images have one score then, and each
    may come from any row. Here the layers are normalised over some images, and the background is likelier.
    """
    torch.manual_seed(0)
    model = get_model(BUILDER, weights=None, weights_backbone=None, num_classes=3)
    pixels = torch.stack([to_dtype(pil_to_tensor(image.resize((320, 320))), scale=True) for image in images]) * 2 - 1
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        features = list(model.train().backbone(pixels).values())
        for head in (model.head.classification_head, model.head.regression_head):
            head(features)
        for layers in model.head.classification_head.module_list:
            layers[1].weight *= 4
            layers[1].bias.view(-1, 3)[:, 0] += 10
    return model.state_dict()
