"""`cval-torch quickstart`: the main job without any data, in half a minute."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cval_torch.cli.select import can_report, run_selection
from cval_torch.config.loading import load_config
from cval_torch.errors import InvalidInputError

_CLASSES = {1: "disc", 2: "square"}
_SIDE = 240  # pixels of a picture
_IMAGES, _LABELED, _CHOSEN, _STEPS, _BATCH = 80, 20, 8, 120, 4


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
            "model.factory": f"{__name__}:small_detector",
            "model.args": {"checkpoint": str(folder / "detector.pt")},
            "class_names": _CLASSES,
            "stages.0.num_of_samples": _CHOSEN,
            "workers": 0,
            "output.report": can_report(),
            "output.folder": str(folder / "selection"),
            "output.export": ["coco"],
            "output.images": "copy",
        },
    )
    return run_selection(config, progress=not options.quiet)


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
        num_classes=len(_CLASSES) + 1,
        anchor_generator=anchors,
        min_size=_SIDE,
        max_size=_SIDE,
        score_thresh=0.05,
    )
    if checkpoint is not None:
        model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return model.eval()


def _draw(path: Path, number: int) -> dict[str, Tensor]:
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
