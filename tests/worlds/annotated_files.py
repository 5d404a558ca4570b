"""Folders of torchvision's detection datasets as they stand on a disk: COCO's instances file, and VOC's XML files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CocoDetection, VOCDetection
from torchvision.transforms import v2

COCO_OBJECTS: dict[int, list[tuple[int, tuple[int, int, int, int], int]]] = {
    10: [],  # the first image that `CocoDetection` gives
    20: [(1, (4, 6, 20, 10), 0), (3, (30, 8, 16, 24), 0)],
    35: [(2, (8, 8, 24, 16), 0)],
    40: [],
    51: [(4, (0, 0, 60, 40), 1), (1, (10, 12, 14, 18), 0)],
    60: [(3, (16, 4, 12, 12), 0), (3, (36, 20, 20, 16), 0), (2, (2, 30, 30, 12), 0)],
}
"""By `image_id`: category, COCO's `x, y, width, height`, and whether the box is a crowd."""

VOC_OBJECTS: dict[str, list[tuple[str, tuple[int, int, int, int]]]] = {
    "2008_000002": [("aeroplane", (4, 6, 24, 16)), ("bird", (30, 8, 46, 32))],
    "2008_000007": [("bicycle", (18, 14, 46, 46))],
    "2009_000001": [("boat", (0, 0, 60, 40)), ("bird", (10, 12, 24, 30)), ("bird", (38, 6, 54, 24))],
    "2009_000004": [("aeroplane", (16, 4, 28, 16))],
}
"""By the stem of the file: class, and VOC's corners."""

IMAGE = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def with_boxes(form: str) -> v2.Transform:
    """Images as floats in [0, 1], and `BoundingBoxes` in this format."""
    return v2.Compose([IMAGE, v2.ConvertBoundingBoxFormat(form)])


def coco(folder: Path, **options: Any) -> CocoDetection:
    """The images of `COCO_OBJECTS` as JPEGs, and their instances file. The images are listed in reverse."""
    images, annotations = [], []
    for image_id, objects in reversed(COCO_OBJECTS.items()):
        _write_noise(folder / "images" / f"{image_id:012d}.jpg", seed=image_id)
        images.append({"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": 64, "height": 48})
        for category, (x, y, width, height), crowd in objects:
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": crowd,
                    "segmentation": {"counts": [0, 48 * 64], "size": [48, 64]} if crowd else [outline],
                }
            )
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 5)]
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return CocoDetection(str(folder / "images"), str(file), **options)


def voc(folder: Path, *, empty: tuple[str, ...] = (), **options: Any) -> VOCDetection:
    """The images of `VOC_OBJECTS`, and after them those without objects, in VOC's folders of 2012."""
    root = folder / "VOCdevkit" / "VOC2012"
    for name in ("Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    stems = [*VOC_OBJECTS, *empty]
    (root / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for number, stem in enumerate(stems):
        _write_noise(root / "JPEGImages" / f"{stem}.jpg", seed=number)
        objects = "".join(_voc_object(name, box) for name, box in VOC_OBJECTS.get(stem, ()))
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        text = f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    return VOCDetection(str(folder), year="2012", image_set="train", **options)


def _voc_object(name: str, box: tuple[int, int, int, int]) -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>"


def _write_noise(path: Path, *, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
