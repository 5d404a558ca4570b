"""A small detector that no adapter of `cval_torch` knows: it stands for a model of your own.

Nothing in it knows of `cval_torch`; `extend/detector.py` has an adapter for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

STRIDE = 8  # pixels from one cell to the next


class GridDetector(nn.Module):
    """Each cell of a grid is a query: a score for each class, and a box.

    With images alone it answers with `logits` (N, Q, C), independent classes, and `boxes` (N, Q, 4): centre x, centre
    y, width and height in units of the image. With images and targets it answers with the losses to train on.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in ((1, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 64, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(64, num_classes + 4, 1)  # class logits, then the box: centre in the cell, log size
        nn.init.constant_(self.head.bias[:num_classes], -2.0)  # type: ignore[index]

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """What each cell says, or the losses."""
        cells = self.head(self.body(torch.stack(list(images)))).float()
        logits, boxes = cells[:, :-4].flatten(2).transpose(1, 2), boxes_of(cells).flatten(2).transpose(1, 2)
        size = cells.new_tensor([cells.shape[3], cells.shape[2]]).repeat(2) * STRIDE
        return (
            {"logits": logits, "boxes": boxes / size} if targets is None else losses_of(logits, boxes, cells, targets)
        )


def boxes_of(cells: Tensor) -> Tensor:
    """(N, 4, h, w): centre x, centre y, width, height in pixels, from the last four channels of `cells`."""
    rows, columns = torch.meshgrid(torch.arange(cells.shape[2]), torch.arange(cells.shape[3]), indexing="ij")
    centres = (torch.stack([columns, rows]).to(cells) + cells[:, -4:-2].sigmoid()) * STRIDE
    return torch.cat([centres, cells[:, -2:].clamp(max=4).exp() * STRIDE], dim=1)


def losses_of(
    logits: Tensor, boxes: Tensor, cells: Tensor, targets: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """A focal loss of the classes, where the cell at an object's centre is positive, and an L1 of its box."""
    frames = torch.repeat_interleave(torch.tensor([len(target["boxes"]) for target in targets]))
    corners, labels = (torch.cat([target[name] for target in targets]) for name in ("boxes", "labels"))
    wanted = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
    columns, rows = (wanted[:, :2] / STRIDE).long().unbind(1)
    places = rows * cells.shape[3] + columns
    classes = torch.zeros_like(logits)
    classes[frames, places, labels] = 1
    count = max(len(frames), 1)
    found = boxes[frames, places]
    return {
        "classes": sigmoid_focal_loss(logits, classes, reduction="sum") / count,
        "boxes": functional.l1_loss(found, wanted, reduction="sum") / STRIDE / count,
    }
