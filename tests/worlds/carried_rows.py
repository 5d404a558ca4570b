"""torchvision's postprocessing, written again from its published steps with the row of every box carried along.

`carry_rows(model)` puts it in the place of the model's own, so that a forward also says which proposal or anchor each
detection came from. It runs the method that it replaces, too, and fails unless both agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import batched_nms, clip_boxes_to_image


@dataclass
class Truth:
    """Of one forward: per frame the rows of its detections, counted within the frame; and of all R rows of the frame
    their probabilities as the model takes them, and the decoded, clipped box of each row and label."""

    rows: list[Tensor] = field(default_factory=list)
    probabilities: list[Tensor] = field(default_factory=list)  # (R, C)
    boxes: list[Tensor] = field(default_factory=list)  # (R, C, 4)


def carry_rows(model: Any, monkeypatch: Any) -> Truth:
    truth = Truth()
    if isinstance(model, GeneralizedRCNN):
        owner, method = model.roi_heads, _two_stage(model.roi_heads, truth)
    elif isinstance(model, (RetinaNet, FCOS)):
        owner, method = model, _by_levels(model, truth)
    else:
        owner, method = model, _ssd(model, truth)
    original = owner.postprocess_detections

    def both(*inputs: Any) -> Any:
        theirs, mine = original(*inputs), method(*inputs)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        return mine

    monkeypatch.setattr(owner, "postprocess_detections", both)
    return truth


def _two_stage(heads: Any, truth: Truth) -> Any:
    def postprocess(logits, deltas, proposals, image_shapes):
        decoded = heads.box_coder.decode(deltas, proposals)
        probabilities = torch.softmax(logits, -1)
        results, start = [], 0
        for own, shape in zip(proposals, image_shapes, strict=True):
            of_frame = slice(start, start + len(own))
            start += len(own)
            boxes = clip_boxes_to_image(decoded[of_frame], shape)
            scores = probabilities[of_frame]
            rows, labels = torch.meshgrid(torch.arange(len(own)), torch.arange(1, scores.shape[1]), indexing="ij")
            rows, labels = rows.flatten(), labels.flatten()
            passes = scores[rows, labels] > heads.score_thresh
            rows, labels = rows[passes], labels[passes]
            sides = boxes[rows, labels][:, 2:] - boxes[rows, labels][:, :2]
            large = (sides >= 1e-2).all(1)
            rows, labels = rows[large], labels[large]
            kept = batched_nms(boxes[rows, labels], scores[rows, labels], labels, heads.nms_thresh)
            kept = kept[: heads.detections_per_img]
            rows, labels = rows[kept], labels[kept]
            results.append((boxes[rows, labels], scores[rows, labels], labels))
            truth.rows.append(rows)
            truth.probabilities.append(scores)
            truth.boxes.append(boxes)
        return tuple([result[part] for result in results] for part in range(3))

    return postprocess


def _by_levels(model: Any, truth: Truth) -> Any:
    """RetinaNet and FCOS: the best of every level, then suppression over all."""

    def postprocess(outputs, anchors, image_shapes):
        detections = []
        for frame, shape in enumerate(image_shapes):
            boxes, scores, labels, rows, everything, all_boxes = [], [], [], [], [], []
            start = 0
            for level, own in enumerate(anchors[frame]):
                logits, codes = outputs["cls_logits"][level][frame], outputs["bbox_regression"][level][frame]
                grades = torch.sigmoid(logits)
                if "bbox_ctrness" in outputs:
                    grades = torch.sqrt(grades * torch.sigmoid(outputs["bbox_ctrness"][level][frame]))
                decode = model.box_coder.decode if isinstance(model, FCOS) else model.box_coder.decode_single
                flat = grades.flatten()
                places = (flat > model.score_thresh).nonzero()[:, 0]
                best = flat[places].topk(min(len(places), model.topk_candidates))
                places = places[best.indices]
                own_rows, own_labels = places // logits.shape[1], places % logits.shape[1]
                boxes.append(clip_boxes_to_image(decode(codes[own_rows], own[own_rows]), shape))
                scores.append(best.values)
                labels.append(own_labels)
                rows.append(own_rows + start)
                everything.append(grades)
                all_boxes.append(clip_boxes_to_image(decode(codes, own), shape))
                start += len(own)
            detections.append(_suppressed(model, truth, boxes, scores, labels, rows))
            truth.probabilities.append(torch.cat(everything))
            truth.boxes.append(torch.cat(all_boxes)[:, None].expand(-1, logits.shape[1], 4))
        return detections

    return postprocess


def _ssd(model: Any, truth: Truth) -> Any:
    """SSD: the best of every class, then suppression over all."""

    def postprocess(outputs, anchors, image_shapes):
        grades = torch.softmax(outputs["cls_logits"], -1)
        detections = []
        for frame, shape in enumerate(image_shapes):
            decoded = model.box_coder.decode_single(outputs["bbox_regression"][frame], anchors[frame])
            decoded = clip_boxes_to_image(decoded, shape)
            boxes, scores, labels, rows = [], [], [], []
            for label in range(1, grades.shape[-1]):
                places = (grades[frame, :, label] > model.score_thresh).nonzero()[:, 0]
                best = grades[frame, places, label].topk(min(len(places), model.topk_candidates))
                places = places[best.indices]
                boxes.append(decoded[places])
                scores.append(best.values)
                labels.append(torch.full_like(places, label))
                rows.append(places)
            detections.append(_suppressed(model, truth, boxes, scores, labels, rows))
            truth.probabilities.append(grades[frame])
            truth.boxes.append(decoded[:, None].expand(-1, grades.shape[-1], 4))
        return detections

    return postprocess


def _suppressed(model: Any, truth: Truth, *columns: list[Tensor]) -> dict[str, Tensor]:
    boxes, scores, labels, rows = (torch.cat(column) for column in columns)
    kept = batched_nms(boxes, scores, labels, model.nms_thresh)[: model.detections_per_img]
    truth.rows.append(rows[kept])
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
