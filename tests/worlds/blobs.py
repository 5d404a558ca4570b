"""A detector that finds bright regions wherever they lie, so what it says of a part of an image is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy import ndimage
from torch import Tensor, nn

from cval_torch.hooks.base import FrameBatch, Recording

CLASSES = 3  # one a color


class BlobNet(nn.Module):
    """Returns, of each image, a map that the adapter reads."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        return [self.maps(image) for image in images]


class BlobAdapter:
    """A box around each region of one color; its score grows with its area, so part of a region scores lower.

    Attributes:
        seen: the shapes of the images of each forward pass.
    """

    name = "blobs"

    def __init__(self, *, least: int = 4) -> None:
        self.least = least
        self.seen: list[list[tuple[int, ...]]] = []

    def matches(self, model: nn.Module) -> bool:
        return isinstance(model, BlobNet)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"maps": model.maps}

    def forward(self, model: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
        self.seen.append([tuple(image.shape) for image in images])
        return model(images)

    def read(self, model: nn.Module, recording: Recording, output: Any) -> FrameBatch:
        maps = [call.output for call in recording["maps"]]
        assert len(maps) == len(output)
        rows: list[tuple[list[float], int, float, list[float]]] = []
        counts = []
        for image in maps:
            found = [each for color in range(CLASSES) for each in self._regions(image, color)]
            found.sort(key=lambda row: -row[2])
            rows += found
            counts.append(len(found))
        scores = torch.tensor([row[2] for row in rows], dtype=torch.float32)
        labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
        probabilities = (0.1 * (1 - scores))[:, None].repeat(1, CLASSES)
        probabilities[torch.arange(len(rows)), labels] = scores
        return FrameBatch(
            counts=torch.tensor(counts),
            boxes=torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
            labels=labels,
            scores=scores,
            probabilities=probabilities,
            activation="sigmoid",
            box_embeddings=torch.tensor([row[3] for row in rows], dtype=torch.float32).reshape(-1, 3),
            frame_embeddings=torch.stack([image.mean(dim=(1, 2)) for image in maps]),
        )

    def _regions(self, image: Tensor, color: int) -> list[tuple[list[float], int, float, list[float]]]:
        found = []
        marks, _ = ndimage.label((image[color] > 0.5).numpy())
        for number, (down, across) in enumerate(ndimage.find_objects(marks), start=1):
            inside = torch.from_numpy(marks == number)
            area = int(inside.sum())
            if area >= self.least:
                box = [float(across.start), float(down.start), float(across.stop), float(down.stop)]
                shown = image[:, inside].mean(1).tolist()
                found.append((box, color, 1 - 1 / (1 + area**0.5), shown))
        return found


def painted(height: int, width: int, *regions: tuple[int, int, int, int, int]) -> Tensor:
    """(3, H, W), dark with regions (x1, y1, x2, y2, color), each of a brightness of its own."""
    image = torch.full((3, height, width), 0.1)
    for number, (x1, y1, x2, y2, color) in enumerate(regions):
        image[color, y1:y2, x1:x2] = 0.6 + 0.4 * (number + 1) / (len(regions) + 1)
    return image
