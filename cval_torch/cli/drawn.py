"""What `cval-torch quickstart` works on: drawn pictures, and a small detector that learns them within seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cval_torch.formats.annotations import Annotations
from cval_torch.formats.coco import coco_document
from cval_torch.formats.images import read_image
from cval_torch.pool.files import write_json
from cval_torch.pool.offsets import offsets_of

CLASSES = {1: "disc", 2: "square"}
_SIDE = 240  # pixels of a picture
_STEPS, _BATCH = 120, 4


def small_detector(checkpoint: str | None = None) -> nn.Module:
    """A detector that learns discs and squares within seconds: FCOS on three convolutions, on one map.

    Args:
        checkpoint: a file with its state dict; None: random weights.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 48), (48, 64)):
        layers += [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.GroupNorm(8, outputs), nn.ReLU()]
    backbone: Any = nn.Sequential(*layers)
    backbone.out_channels = 64
    anchors = AnchorGenerator(sizes=((32,),), aspect_ratios=((1.0,),))
    model: nn.Module = FCOS(
        backbone,
        num_classes=len(CLASSES) + 1,
        anchor_generator=anchors,
        min_size=_SIDE,
        max_size=_SIDE,
        score_thresh=0.05,
    )
    if checkpoint is not None:
        model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return model.eval()


def draw_picture(path: Path, number: int) -> dict[str, Tensor]:
    """A noisy picture with some discs and squares, and where they are."""
    random = torch.Generator().manual_seed(number)
    noise = torch.randint(90, 140, (_SIDE, _SIDE, 3), generator=random, dtype=torch.uint8)
    image = Image.fromarray(noise.numpy())
    pen = ImageDraw.Draw(image)
    boxes, labels = [], []
    for _ in range(int(torch.randint(0, 4, (1,), generator=random))):
        left, top = torch.randint(0, _SIDE - 70, (2,), generator=random).tolist()
        side = int(torch.randint(30, 70, (1,), generator=random))
        label = 1 + int(torch.rand(1, generator=random) < 0.3)
        color = tuple(torch.randint(0, 256, (3,), generator=random).tolist())
        box = (left, top, left + side, top + side)
        (pen.ellipse if label == 1 else pen.rectangle)(box, fill=color)
        boxes.append(box)
        labels.append(label)
    image.save(path)
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.tensor(labels).long()}


def write_annotations(path: Path, targets: list[dict[str, Tensor]]) -> None:
    """Write the targets of the first pictures as a COCO file, the pictures as annotated."""
    annotations = Annotations(
        [f"{number:03d}.png" for number in range(len(targets))],
        offsets_of(torch.tensor([len(target["labels"]) for target in targets])),
        boxes=torch.cat([target["boxes"] for target in targets]),
        labels=torch.cat([target["labels"] for target in targets]),
        class_names=CLASSES,
    )
    write_json(path, coco_document(annotations))


def train_detector(folder: Path, targets: list[dict[str, Tensor]]) -> None:
    """Train `small_detector` on the first pictures in `folder`, and write its weights there as `detector.pt`."""
    torch.manual_seed(0)
    model = small_detector().train()
    images = [read_image(folder / "images" / f"{number:03d}.png") for number in range(len(targets))]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(_STEPS):
        rows = [(step * _BATCH + number) % len(images) for number in range(_BATCH)]
        loss = sum(model([images[row] for row in rows], [targets[row] for row in rows]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "detector.pt")
