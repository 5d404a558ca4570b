"""Torchvision's detectors with a backbone of a few convolutions, and how to make any of them detect something."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

SMALL = {"min_size": 48, "max_size": 64}
FEW = {"rpn_post_nms_top_n_test": 20, "box_score_thresh": 0.05, "box_detections_per_img": 8}
NUM_CLASSES = 5
FAMILIES = ["rcnn", "retinanet", "fcos", "ssd"]


def images(count: int = 3):
    generator = torch.Generator().manual_seed(1)
    shapes = [(64, 96), (150, 70), (80, 80), (33, 64)]
    return [torch.rand(3, *shapes[place % 4], generator=generator) for place in range(count)]


class Cells(nn.Module):
    """Feature maps of a few random convolutions, as any backbone may give."""

    def __init__(self, *, levels: int = 1):
        super().__init__()
        self.out_channels = 32 if levels == 1 else [32] * levels
        self.layers = nn.ModuleList(
            [nn.Conv2d(3 if level == 0 else 32, 32, 2, stride=2) for level in range(3 + levels)]
        )
        self.levels = levels

    def forward(self, pixels):
        maps = []
        for layer in self.layers:
            pixels = layer(pixels).relu()
            maps.append(pixels)
        maps = maps[-self.levels :]
        return maps[0] if self.levels == 1 else {str(level): each for level, each in enumerate(maps)}


def tiny(family: str, *, num_classes: int = NUM_CLASSES) -> nn.Module:
    """A detector of the family with a backbone of cells of 16 pixels."""
    torch.manual_seed(0)
    anchors = AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),))
    point = AnchorGenerator(((16,),), ((1.0,),))
    few = {"topk_candidates": 40, "detections_per_img": 20, "score_thresh": 0.1}
    if family == "rcnn":
        pool = MultiScaleRoIAlign(["0"], 2, 2)
        model = FasterRCNN(Cells(), num_classes, rpn_anchor_generator=anchors, box_roi_pool=pool, **SMALL, **FEW)
    elif family == "retinanet":
        model = RetinaNet(Cells(), num_classes, anchor_generator=anchors, **SMALL, **few)
    elif family == "fcos":
        model = FCOS(Cells(), num_classes, anchor_generator=point, **SMALL, **few)
    else:
        model = SSD(Cells(levels=2), DefaultBoxGenerator([[2], [2, 3]]), (64, 48), num_classes, **few)
    for layer in class_layers(model):
        nn.init.normal_(layer.weight, std=0.5)
        nn.init.zeros_(layer.bias)
    return model.eval()


def spread_logits(model: nn.Module) -> None:
    """Give the class logits a mean of about -1 and a standard deviation of about 2, whatever the features' scale."""
    deviations = []
    layers = class_layers(model)
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.05)
        nn.init.constant_(layer.bias, -1.0)
    with ExitStack() as stack:
        for layer in layers:
            handle = layer.register_forward_hook(lambda *call: deviations.append((call[0], call[2].std())))
            stack.callback(handle.remove)
        model(images(1))
    for layer in layers:
        layer.weight *= 2 / max(float(deviation) for module, deviation in deviations if module is layer)


def class_layers(model: nn.Module) -> list[nn.Module]:
    """The layers whose outputs are class logits."""
    if hasattr(model, "roi_heads"):
        return [model.roi_heads.box_predictor.cls_score]
    head = model.head.classification_head
    if hasattr(head, "cls_logits"):
        return [head.cls_logits]
    return [module[1] if isinstance(module, nn.Sequential) else module for module in head.module_list]
