"""Small real detectors and small real datasets, for the tests of what runs over them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes run tests, here and in what they start: a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())  # Ultralytics reads it when it is imported


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


def pairs(samples: list[Any]) -> tuple[Any, ...]:
    """The collate function of detection training: images and targets as tuples."""
    return tuple(zip(*samples, strict=True))


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


@pytest.fixture
def faster_rcnn() -> FasterRCNN:
    return make_faster_rcnn()


@pytest.fixture
def make_frames() -> Callable[..., Frames]:
    return Frames


@pytest.fixture(scope="session")
def transformers_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small RT-DETR and its image processor, as `save_pretrained` writes them."""
    transformers = pytest.importorskip("transformers")
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[16, 16, 16],
        encoder_hidden_dim=16,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_in_channels=[16, 16, 16],
        d_model=16,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=1,
        num_queries=20,
        num_denoising=0,
        num_labels=4,
    )
    transformers.RTDetrForObjectDetection(config).save_pretrained(folder)
    transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def readme_names(faster_rcnn: FasterRCNN, transformers_checkpoint: str) -> dict[str, Any]:
    """What the README's snippets take for granted: a detector, frames, and a training step."""

    def train_one_epoch(model: nn.Module, loader: DataLoader[Any]) -> None:
        assert len(loader) > 0
        model.train()

    def train_step(model: nn.Module, batch: Any) -> float:
        model.train()
        return float(len(batch))

    dataset = Frames(12)
    return {
        "model": faster_rcnn,
        "unlabeled_loader": DataLoader(dataset, batch_size=4, collate_fn=pairs),
        "labeled_loader": DataLoader(Frames(6, image_ids=True), batch_size=4, collate_fn=pairs),
        "checkpoint": transformers_checkpoint,
        "dataset": dataset,
        "first_ids": ["0", "1"],
        "collate": pairs,
        "train_one_epoch": train_one_epoch,
        "train_step": train_step,
    }
