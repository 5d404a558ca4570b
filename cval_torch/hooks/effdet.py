"""EfficientDet, by the package `effdet`: every detection with the class probabilities of the very anchor it came from.

Of the package, the anchors and soft-NMS are called, where a network comes without its bench, and where it was built
with soft-NMS. Leaned on besides are the network's `config`, `class_net` and `box_net`, and a bench's `anchors`,
`max_detection_points`, `max_det_per_image` and `soft_nms`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.base import FrameBatch, Later, LaterRows, Recording, sizes_of
from cval_torch.hooks.finite import check_rows
from cval_torch.hooks.hosts import classes_of, parts_of_network
from cval_torch.hooks.regions import FrameSizes, box_means, deepest_level, frame_means
from cval_torch.hooks.regrouping import MEAN, STD, normalized, unit_range
from cval_torch.hooks.rows import spread

NMS_IOU, SOFT_IOU, SOFT_FLOOR = 0.5, 0.3, 0.001  # as in the package
FRAME_STRIDE = 32


@dataclass(frozen=True)
class _Bench:
    """What a bench says of detections.

    Attributes:
        anchors: (A, 4) as y1, x1, y2, x2 in pixels of the padded image.
        points: how many pairs of an anchor and a class NMS is given.
        max_det: how many detections a frame has at most.
        soft: whether overlapping boxes lower a score rather than remove it.
    """

    anchors: Tensor
    points: int
    max_det: int
    soft: bool


@dataclass(frozen=True)
class _Found:
    """The detections of one image, in pixels of its padded square."""

    rows: Tensor
    classes: Tensor
    boxes: Tensor
    scores: Tensor
    probabilities: Tensor


class EffDetAdapter:
    """EfficientDet and its relatives of `effdet`: a bench for training or prediction, or the network in it.

    Detections are those of `DetBenchPredict`, without the rows of zeros that it appends. Labels are the package's own,
    which begin with 1. `probabilities` are the independent sigmoids of the detection's anchor, one column a label, so
    column 0 is always 0. Soft-NMS lowers scores; there the columns of a row are lowered by as much. `box_embeddings`
    are the mean of four samples within the box, of the map of its anchor; `frame_embeddings` the mean of a map over the
    image without padding.

    Images (C, H, W) are RGB in [0, 1]. As in the package's loader they are scaled to fit `image_size` of the network's
    configuration, normalized, and padded on the right and below.

    Args:
        threshold: keep detections that score above this, in [0, 1). The package itself has no threshold.
        mean: of each channel, for the normalization; ImageNet's.
        std: the same.

    Raises:
        InvalidInputError: an option out of its range.
    """

    name = "EfficientDet"

    def __init__(self, *, threshold: float = 0.05, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        if not 0 <= threshold < 1:
            raise InvalidInputError(f"`threshold` must be in [0, 1); got {threshold}")
        self.threshold, self.mean, self.std = threshold, tuple(mean), tuple(std)
        self._bench: _Bench | None = None

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is the network of an EfficientDet."""
        return "EfficientDet" in classes_of(model, "effdet")

    def open(self, holder: Any) -> tuple[nn.Module, EffDetAdapter] | None:
        """The network in a bench, and an adapter with what the bench says of detections."""
        if not {"DetBenchPredict", "DetBenchTrain"}.intersection(classes_of(holder, "effdet")):
            return None
        adapter = EffDetAdapter(threshold=self.threshold, mean=self.mean, std=self.std)
        adapter._bench = _Bench(
            holder.anchors.boxes, holder.max_detection_points, holder.max_det_per_image, bool(holder.soft_nms)
        )
        return holder.model, adapter

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The class head, which is given the maps, and the box head.

        Raises:
            HookError: the network does not have them.
        """
        return parts_of_network(model, {name: name for name in ("class_net", "box_net")}, built_as="EfficientDet is")

    def forward(self, model: nn.Module, images: Sequence[Tensor]) -> FrameSizes:
        """Scale, normalize and pad the images, and run the network once."""
        network: Any = model
        height, width = (int(side) for side in network.config.image_size)
        original = sizes_of(list(images)) or []
        resized = [_fitted(size, (height, width)) for size in original]
        padded = []
        for image, size, (rows, columns) in zip(images, original, resized, strict=True):
            plain = unit_range(image)
            if size != (rows, columns):
                plain = functional.interpolate(
                    plain[None], (rows, columns), mode="bilinear", align_corners=False, antialias=True
                )[0]
            padded.append(
                functional.pad(normalized(plain, self.mean, self.std), (0, width - columns, 0, height - rows))
            )
        model(torch.stack(padded).to(next(model.parameters()).dtype))
        return FrameSizes(original, resized, (height, width))

    def read(self, model: nn.Module, recording: Recording, output: FrameSizes) -> FrameBatch:
        """Detections in pixels of the loader's images, each with the columns and the map of its anchor."""
        bench = self._bench or _bench_of(model)
        heads = recording["class_net"][-1]
        maps: list[Tensor] = list(heads.args[0])
        count = len(maps[0])
        logits = _by_anchor(heads.output, len(bench.anchors))
        codes = _by_anchor(recording["box_net"][-1].output, len(bench.anchors))
        frames_of_all = torch.arange(count)
        for what, values in (("the class logits", logits), ("the box codes", codes)):
            check_rows(values, frames_of_all, what)
        scales = [1 / _scale(size, output.padded) for size in output.original]
        limits = [(size[1] / scale, size[0] / scale) for size, scale in zip(output.original, scales, strict=True)]
        found = [self._of_frame(logits[row], codes[row], bench, limits[row]) for row in range(count)]
        counts = [len(each.scores) for each in found]
        frames = spread(counts, logits.device)
        inside, rows = torch.cat([each.boxes for each in found]), torch.cat([each.rows for each in found])
        ends = torch.tensor([level.shape[-2] * level.shape[-1] for level in maps]).cumsum(0)
        ends = (ends * (len(bench.anchors) // int(ends[-1]))).to(rows.device)
        levels = torch.bucketize(rows, ends, right=True)
        frame_map = maps[deepest_level(maps, output.padded, stride=FRAME_STRIDE)]
        return FrameBatch(
            counts=torch.tensor(counts),
            boxes=inside * torch.tensor(scales, device=inside.device)[frames][:, None],
            labels=torch.cat([each.classes for each in found]) + 1,
            scores=torch.cat([each.scores for each in found]),
            probabilities=functional.pad(torch.cat([each.probabilities for each in found]), (1, 0)),
            activation="sigmoid",
            box_embeddings=LaterRows(
                lambda picked: box_means(maps, levels[picked], frames[picked], inside[picked], output.padded)
            ).column,
            frame_embeddings=Later(lambda: frame_means(frame_map, output)).column,
        )

    def _of_frame(self, logits: Tensor, codes: Tensor, bench: _Bench, limits: tuple[float, float]) -> _Found:
        """One image: the best pairs of an anchor and a class, decoded, clipped, and those that NMS keeps."""
        classes = logits.shape[1]
        best = logits.flatten().topk(min(bench.points, logits.numel())).indices
        rows, columns = best // classes, best % classes
        boxes = _decoded(codes[rows].float(), bench.anchors.to(codes.device)[rows])
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor(limits).repeat(2))
        scores = logits[rows, columns].sigmoid().float()
        before = scores
        if bench.soft:
            kept, softened = importlib.import_module("effdet.soft_nms").batched_soft_nms(
                boxes, scores, columns, method_gaussian=True, iou_threshold=SOFT_IOU, score_threshold=SOFT_FLOOR
            )
            scores = scores.clone()
            scores[kept] = softened
        else:
            kept = batched_nms(boxes, scores, columns, NMS_IOU)
        kept = kept[: bench.max_det]
        kept = kept[scores[kept] > self.threshold]
        share = (scores[kept] / before[kept])[:, None]
        probabilities = logits[rows[kept]].sigmoid().float() * share
        return _Found(rows[kept], columns[kept], boxes[kept], scores[kept], probabilities)


def _bench_of(model: Any) -> _Bench:
    """What a bench around the network would say."""
    config = model.config
    anchors = importlib.import_module("effdet.anchors").Anchors.from_config(config).boxes
    return _Bench(anchors, config.max_detection_points, config.max_det_per_image, bool(config.soft_nms))


def _scale(size: tuple[int, int], target: tuple[int, int]) -> float:
    """By how much an image is scaled to fit the target."""
    return min(target[0] / size[0], target[1] / size[1])


def _fitted(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image that is scaled to fit the target, rounded down as in the package."""
    scale = _scale(size, target)
    return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def _by_anchor(levels: Sequence[Tensor], anchors: int) -> Tensor:
    """(N, A, K) of maps (N, anchors of a cell * K, h, w), level by level, cell by cell, anchor by anchor."""
    count = len(levels[0])
    cells = sum(level.shape[-2] * level.shape[-1] for level in levels)
    each, rest = divmod(anchors, cells)
    if rest:
        raise HookError(f"the heads have {cells} cells, and there are {anchors} anchors: these are of other images")
    flat = [level.permute(0, 2, 3, 1).reshape(count, -1, level.shape[1] // each) for level in levels]
    return torch.cat(flat, dim=1)


def _decoded(codes: Tensor, anchors: Tensor) -> Tensor:
    """(K, 4) xyxy of codes y, x, h, w relative to anchors y1, x1, y2, x2."""
    size = anchors[:, 2:] - anchors[:, :2]
    centre = codes[:, :2] * size + (anchors[:, :2] + anchors[:, 2:]) / 2
    half = codes[:, 2:].exp() * size / 2
    return torch.cat([(centre - half).flip(1), (centre + half).flip(1)], dim=1)
