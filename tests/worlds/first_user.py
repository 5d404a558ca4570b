"""A first user's folder: photographs, one of them broken, and the weights of a detector."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from skimage import data
from torchvision.models import get_model

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
    torch.manual_seed(0)
    model = get_model(BUILDER, weights=None, weights_backbone=None, num_classes=3)
    torch.save(model.state_dict(), folder / "detector.pt")
    return folder
