"""`cval-torch quickstart`: the main job without any data, in half a minute."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.models import get_model

from cval_torch.cli.select import run_selection
from cval_torch.config.loading import load_config
from cval_torch.errors import InvalidInputError

_BUILDER = "ssdlite320_mobilenet_v3_large"
_CLASSES = {1: "disc", 2: "square"}
_IMAGES, _LABELED, _CHOSEN, _STEPS, _BATCH = 60, 12, 8, 60, 4


def add_quickstart(commands: Any) -> None:
    """Add the subcommand to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "quickstart",
        help="try it without data",
        description="Draw some pictures, train a small detector on a few of them, and choose which of the others to "
        "annotate: everything that `select` does, without data of yours. It takes about a minute.",
        epilog="example: cval-torch quickstart --output quickstart/",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("cval_torch_quickstart"))
    parser.set_defaults(run=run_quickstart)


def run_quickstart(options: argparse.Namespace) -> int:
    """Draw, train, choose, and print what was written."""
    folder: Path = options.output
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInputError(f"the folder {str(folder)!r} is not empty; give another --output")
    (folder / "images").mkdir(parents=True)
    targets = [_draw(folder / "images" / f"{number:03d}.png", number) for number in range(_IMAGES)]
    _write_annotations(folder / "labeled.json", targets[:_LABELED])
    if not options.quiet:
        print(f"{_IMAGES} pictures drawn, {_LABELED} of them annotated; a small detector is trained", flush=True)
    _train(folder, targets[:_LABELED])
    config = load_config(
        None,
        values={
            "source": str(folder / "images"),
            "labeled": str(folder / "labeled.json"),
            "model.builder": _BUILDER,
            "model.checkpoint": str(folder / "detector.pt"),
            "model.num_classes": len(_CLASSES) + 1,
            "class_names": _CLASSES,
            "stages.0.num_of_samples": _CHOSEN,
            "workers": 0,
            "output.folder": str(folder / "selection"),
            "output.export": ["coco"],
            "output.images": "copy",
        },
    )
    return run_selection(config, progress=not options.quiet)


def _draw(path: Path, number: int) -> dict[str, Tensor]:
    """A noisy picture with some discs and squares, and where they are."""
    random = torch.Generator().manual_seed(number)
    noise = torch.randint(90, 140, (320, 320, 3), generator=random, dtype=torch.uint8)
    image = Image.fromarray(noise.numpy())
    pen = ImageDraw.Draw(image)
    boxes, labels = [], []
    for _ in range(int(torch.randint(0, 4, (1,), generator=random))):
        left, top = torch.randint(0, 240, (2,), generator=random).tolist()
        side = int(torch.randint(40, 80, (1,), generator=random))
        label = 1 + int(torch.rand(1, generator=random) < 0.3)
        color = tuple(torch.randint(0, 256, (3,), generator=random).tolist())
        box = (left, top, left + side, top + side)
        (pen.ellipse if label == 1 else pen.rectangle)(box, fill=color)
        boxes.append(box)
        labels.append(label)
    image.save(path)
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.tensor(labels).long()}


def _write_annotations(path: Path, targets: list[dict[str, Tensor]]) -> None:
    images = [{"id": number, "file_name": f"{number:03d}.png", "annotated": True} for number in range(len(targets))]
    rows = [
        {"image_id": number, "category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for number, target in enumerate(targets)
        for (x0, y0, x1, y1), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
    ]
    categories = [{"id": label, "name": name} for label, name in _CLASSES.items()]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))


def _train(folder: Path, targets: list[dict[str, Tensor]]) -> None:
    from cval_torch.formats.images import read_image  # noqa: PLC0415

    torch.manual_seed(0)
    model = get_model(_BUILDER, weights=None, weights_backbone=None, num_classes=len(_CLASSES) + 1).train()
    images = [read_image(folder / "images" / f"{number:03d}.png") for number in range(len(targets))]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(_STEPS):
        rows = [(step * _BATCH + number) % len(images) for number in range(_BATCH)]
        loss = sum(model([images[row] for row in rows], [targets[row] for row in rows]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "detector.pt")
