"""A YOLO that is built from its yaml, images for it in files, and a short training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import ultralytics
from squares import Squares
from torchvision.utils import save_image


def make_yolo() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ultralytics.YOLO("yolov8n.yaml", verbose=False)


def write_images(folder: Path) -> Path:
    """Squares as the host reads them: images, one text file of boxes each, and a yaml; returns that."""
    for split, rows in (("train", range(4)), ("val", range(20, 22))):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for row in rows:
            image, target = Squares(24)[row]
            save_image(image, folder / "images" / split / f"{row}.png")
            x1, y1, x2, y2 = (target["boxes"][0] / 48).tolist()
            box = f"{int(target['labels'][0]) - 1} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}\n"
            (folder / "labels" / split / f"{row}.txt").write_text(box)
    path = folder / "data.yaml"
    path.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: {{0: small, 1: large}}\n")
    return path


def train(yolo: Any, data: Path, *, epochs: int, val: bool = True) -> None:
    yolo.train(
        data=str(data),
        epochs=epochs,
        val=val,
        imgsz=64,
        batch=4,
        nbs=4,  # a step a batch: the host gathers gradients for 64 images
        workers=0,
        device="cpu",
        amp=False,
        plots=False,
        verbose=False,
        deterministic=False,
        project=str(data.parent / "runs"),
    )
