"""A Faster R-CNN of a few thousand weights, and noise images of a few sizes for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign


class Frames(Dataset[Any]):
    """`n` noise images of a few sizes, each with a target; the image is a function of its row."""

    def __init__(self, n: int, *, image_ids: bool = False, size: int | None = None) -> None:
        self.n, self.image_ids, self.size = n, image_ids, size

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        if not 0 <= row < self.n:
            raise IndexError(row)
        generator = torch.Generator().manual_seed(row)
        height, width = (self.size, self.size) if self.size else (48 + 8 * (row % 3), 56 - 8 * (row % 2))
        target: dict[str, Any] = {"row": row, "boxes": torch.tensor([[4.0, 4, 20, 20]]), "labels": torch.tensor([1])}
        if self.image_ids:
            target["image_id"] = 1000 + row
        return torch.rand(3, height, width, generator=generator), target


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return (Frames(5)[row] for row in range(5))


def pairs(samples: list[Any]) -> tuple[Any, ...]:
    """The collate function of detection training: images and targets as tuples."""
    return tuple(zip(*samples, strict=True))


def loader_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 2, "collate_fn": pairs, **options})


def make_faster_rcnn(*, num_classes: int = 5, score_thresh: float = 0.05, detections: int = 10) -> FasterRCNN:
    """A Faster R-CNN of a few thousand weights, the same at every call, in train mode as it is built."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        backbone.out_channels = 16  # type: ignore[assignment]
        return FasterRCNN(
            backbone,
            rpn_anchor_generator=AnchorGenerator(((12, 24),), ((0.5, 1.0, 2.0),)),
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
            box_head=TwoMLPHead(16 * 9, 32),
            box_predictor=FastRCNNPredictor(32, num_classes),
            min_size=48,
            max_size=64,
            box_score_thresh=score_thresh,
            box_detections_per_img=detections,
            rpn_post_nms_top_n_test=40,
            rpn_pre_nms_top_n_test=60,
        )


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )  # torch has no documented way to count them
