"""Stand-ins for detectors of detectron2 and MMDetection, with the same modules, arguments and forms of answers.

Neither package has wheels here. These follow their public sources (detectron2 0.6, MMDetection 3.3) as far as an
adapter looks: which module is called with what, and what the detector returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_convert, roi_align


class Instances:
    """Columns of one image, as attributes."""

    def __init__(self, count: int, **columns: Any) -> None:
        self.count = count
        vars(self).update(columns)

    def __len__(self) -> int:
        return self.count


class Boxes:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class FastRCNNOutputLayers(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(width, classes + 1), nn.Linear(width, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


class StandardROIHeads(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.box_head, self.box_predictor = nn.Linear(8 * 4, width), FastRCNNOutputLayers(width, classes)

    def forward(self, images: Any, features: Any, proposals: list[Instances], targets: Any = None) -> Any:
        boxes = [each.proposal_boxes.tensor for each in proposals]
        pooled = roi_align(features["p4"], boxes, (2, 2), spatial_scale=1 / 16, aligned=True).flatten(1)
        scores, deltas = self.box_predictor(self.box_head(pooled).relu())
        found = []
        counts = [len(each) for each in proposals]
        for each, logits, moved in zip(boxes, scores.split(counts), deltas.split(counts), strict=True):
            objects = logits.softmax(-1)[:, :-1]  # the background is last
            kept = objects > 0.05
            rows, labels = kept.nonzero().unbind(1)
            shifted = each[rows] + moved.view(len(each), -1, 4)[rows, labels]
            best = batched_nms(shifted, objects[kept], labels, 0.5)[:10]
            columns = {"pred_boxes": Boxes(shifted[best]), "scores": objects[kept][best], "pred_classes": labels[best]}
            found.append(Instances(len(best), **columns))
        return found, {}


class GeneralizedRCNN(nn.Module):
    """Takes dicts of `image` (C, H, W), BGR from 0 to 255, `height` and `width`; returns dicts of `instances`."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.backbone, self.roi_heads = nn.Conv2d(3, 8, 16, stride=16), StandardROIHeads(16, classes)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        sizes = [each["image"].shape[1:] for each in batched_inputs]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        batch = torch.zeros(len(sizes), 3, height, width)
        for row, each in zip(batch, batched_inputs, strict=True):
            row[:, : each["image"].shape[1], : each["image"].shape[2]] = each["image"] / 255
        proposals = []
        for rows, columns in sizes:
            y, x = torch.meshgrid(torch.arange(0, rows - 16, 12), torch.arange(0, columns - 16, 12), indexing="ij")
            corners = torch.stack([x, y, x + 24, y + 24], dim=-1).reshape(-1, 4).float()
            proposals.append(Instances(len(corners), proposal_boxes=Boxes(corners)))
        found, _ = self.roi_heads(batch, {"p4": self.backbone(batch)}, proposals, None)
        for each, given, (rows, columns) in zip(found, batched_inputs, sizes, strict=True):
            scale = torch.tensor([given["width"] / columns, given["height"] / rows]).repeat(2)
            each.pred_boxes = Boxes(each.pred_boxes.tensor * scale)
        return [{"instances": each} for each in found]


class DetDataSample:
    def __init__(self, metainfo: dict[str, Any]) -> None:
        self.metainfo = metainfo
        self.pred_instances: Any = None


class DINOHead(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_branches = nn.ModuleList([nn.Linear(width, classes)])
        self.reg_branches = nn.ModuleList([nn.Linear(width, 4)])

    def forward(self, hidden_states: Tensor, references: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(layers, N, Q, C) logits, and (layers, N, Q, 4) boxes in units of the image."""
        return self.cls_branches[0](hidden_states), self.reg_branches[0](hidden_states).sigmoid()


class DINO(nn.Module):
    """Takes images and data samples; returns the samples with `pred_instances`: pairs of a query and a class."""

    def __init__(self, classes: int = 4, queries: int = 15) -> None:
        super().__init__()
        self.backbone, self.queries = nn.Conv2d(3, 12, 8, stride=8), nn.Embedding(queries, 12)
        self.bbox_head = DINOHead(12, classes)
        nn.init.normal_(self.bbox_head.cls_branches[0].weight)

    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        features = torch.stack([self.backbone(image[None]).mean((0, 2, 3)) for image in data["inputs"]])
        states = (self.queries.weight + features[:, None])[None]
        logits, boxes = self.bbox_head(states, [])
        for sample, scores, corners in zip(data["data_samples"], logits[-1].sigmoid(), boxes[-1], strict=True):
            height, width = sample.metainfo["ori_shape"]
            best, places = scores.flatten().topk(20)
            found = box_convert(corners[places // scores.shape[1]], "cxcywh", "xyxy") * torch.tensor(
                [width, height] * 2
            )
            found = found.clamp(min=0).minimum(torch.tensor([width, height] * 2))
            sample.pred_instances = Instances(20, bboxes=found, scores=best, labels=places % scores.shape[1])
        return list(data["data_samples"])


def made(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def pictures() -> Sequence[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(3, *size, generator=generator) for size in [(64, 80), (90, 60)]]
