"""Adapters for every detection family of torchvision, with any backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.base import Call, FrameBatch, Later, LaterRows, Recording
from cval_torch.hooks.finite import FiniteChecks
from cval_torch.hooks.regions import FrameSizes, box_means, deepest_level, frame_means
from cval_torch.hooks.rows import CLOSE_ULPS, Candidates, Detections, pairs_above, recover_rows, spread
from cval_torch.pool.pool import Activation

# Cells of 32 pixels have seen enough to say what a frame shows; deeper maps have too few cells left to tell image from
# padding. A box is smaller than its frame: where one map must serve all boxes, its cells are half that.
FRAME_STRIDE = 32
BOX_STRIDE = 16


class RCNNAdapter:
    """Faster, Mask and Keypoint R-CNN.

    A row is a proposal; its probabilities are a softmax with a background column 0, and its embedding is what the box
    head made of it, the very features that were classified.
    """

    name = "Faster, Mask or Keypoint R-CNN"

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is a `GeneralizedRCNN` with torchvision's `RoIHeads`."""
        return isinstance(model, GeneralizedRCNN) and isinstance(model.roi_heads, RoIHeads)

    def modules(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """The transform, the RoI heads and their box predictor; the head of torchvision's region proposal network."""
        heads: Any = model.roi_heads
        modules = {"transform": _child(model, "transform"), "roi_heads": heads, "box_predictor": heads.box_predictor}
        proposing = _child(model, "rpn")
        if isinstance(proposing, RegionProposalNetwork) and type(proposing).forward is RegionProposalNetwork.forward:
            modules["rpn_head"] = _child(proposing, "head")
        return modules

    def forward(self, model: nn.Module, images: Any) -> Any:
        """`model(images)`."""
        return _run(model, images)

    def read(self, model: nn.Module, recording: Recording, output: Any) -> FrameBatch:
        """Find each detection's proposal by its score, to the bit, and by its box."""
        heads: Any = model.roi_heads
        sizes = _sizes(_only(recording, "transform"))
        call, predictor = _only(recording, "roi_heads"), _only(recording, "box_predictor")
        maps, proposals = list(call.args[0].values()), list(call.args[1])
        counts = [len(boxes) for boxes in proposals]
        logits, deltas = _checked_prediction(predictor.output, sum(counts))
        row_frames = spread(counts, logits.device)
        checks = FiniteChecks().maps(maps, "the feature maps")
        for objectness_or_deltas in recording["rpn_head"][-1].output if "rpn_head" in recording else ():
            checks.maps(objectness_or_deltas, "the output of the region proposal network's head")
        checks.rows(logits, row_frames, "the class logits").rows(deltas, row_frames, "the box deltas").check()
        detections = Detections.of(output, logits.dtype)

        def decode(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            codes = deltas.view(len(deltas), -1, 4)[rows, labels]
            boxes = heads.box_coder.decode_single(codes, torch.cat(proposals)[rows])
            return _in_original(boxes, row_frames[rows], sizes)

        features = predictor.args[0].flatten(1)

        @cache
        def rows() -> Tensor:
            candidates = _softmax_candidates(logits, row_frames, detections, ulps=0)
            return recover_rows(detections, candidates, decode, ulps=0)

        return _frame_batch(
            detections,
            probabilities=lambda: logits[rows()].softmax(1, dtype=torch.float32),
            activation="softmax",
            box_embeddings=lambda picked: features[rows()[picked]].to(torch.float32),
            frame_embeddings=lambda: _frame_embeddings(maps, sizes),
        )


@dataclass(frozen=True)
class _Anchors:
    """What the head of a single-stage detector said of its R = N * A anchors, one frame after another."""

    outputs: dict[str, Tensor]  # each (R, ...)
    boxes: Tensor  # (R, 4) in resized pixels
    frames: Tensor  # (R,)
    per_frame: int  # A


class _SingleStageAdapter(ABC):
    """What RetinaNet, FCOS and SSD share: a row is an anchor of one head that looks at all maps."""

    name: str
    kind: type[nn.Module]
    activation: Activation

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is of this family."""
        return isinstance(model, self.kind)

    def modules(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """The transform, the head, and the anchor generator."""
        return {name: _child(model, name) for name in ("transform", "head", "anchor_generator")}

    def forward(self, model: nn.Module, images: Any) -> Any:
        """`model(images)`."""
        return _run(model, images)

    def read(self, model: nn.Module, recording: Recording, output: Any) -> FrameBatch:
        """Find each detection's anchor by its score, to a few units in the last place, and by its box."""
        sizes = _sizes(_only(recording, "transform"))
        head = _only(recording, "head")
        anchors = _anchors(head.output, _only(recording, "anchor_generator").output)
        maps = list(head.args[0])
        checks = FiniteChecks().maps(maps, "the feature maps")
        for name, values in anchors.outputs.items():
            checks.rows(values, anchors.frames, f"`{name}`, an output of the head,")
        checks.check()
        detections = Detections.of(output, anchors.outputs["cls_logits"].dtype)

        def decode(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            boxes = self.decoded(model, anchors.outputs["bbox_regression"][rows], anchors.boxes[rows])
            return _in_original(boxes, anchors.frames[rows], sizes)

        @cache
        def rows() -> Tensor:
            return recover_rows(detections, self.candidates(anchors, detections), decode, ulps=CLOSE_ULPS)

        def probabilities() -> Tensor:
            return self.probabilities({name: values[rows()].float() for name, values in anchors.outputs.items()})

        def box_embeddings(picked: Tensor | slice) -> Tensor:
            frames = detections.frames[picked]
            boxes = sizes.in_padded(detections.boxes[picked], frames)
            pooled, levels = self.pooled_maps(maps, rows()[picked] % anchors.per_frame, anchors.per_frame, sizes)
            return box_means(pooled, levels, frames, boxes, sizes.padded).float()

        return _frame_batch(
            detections,
            probabilities=probabilities,
            activation=self.activation,
            box_embeddings=box_embeddings,
            frame_embeddings=lambda: _frame_embeddings(maps, sizes),
        )

    @abstractmethod
    def candidates(self, anchors: _Anchors, detections: Detections) -> Candidates:
        """The (anchor, label) pairs whose score could be that of a detection of their frame."""

    @abstractmethod
    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """(B, C) of the head's outputs (B, ...) for the rows of the detections."""

    def decoded(self, model: Any, codes: Tensor, anchors: Tensor) -> Tensor:
        """(K, 4) boxes in resized pixels, not clipped, of K regressions and anchors."""
        boxes: Tensor = model.box_coder.decode_single(codes, anchors)
        return boxes

    def pooled_maps(
        self, maps: list[Tensor], anchor_rows: Tensor, per_frame: int, sizes: FrameSizes
    ) -> tuple[list[Tensor], Tensor | None]:
        """The maps that boxes are embedded from, and which of them each box takes.

        One head reads every map of a pyramid, so the maps speak one language; the box is read where its anchor lies,
        which is the map that the detector saw it on, in cells that suit its size.
        """
        cells = torch.tensor([feature_map.shape[-2] * feature_map.shape[-1] for feature_map in maps])
        ends = (cells.cumsum(0) * (per_frame // int(cells.sum()))).to(anchor_rows.device, non_blocking=True)
        return maps, torch.bucketize(anchor_rows, ends, right=True)


class RetinaNetAdapter(_SingleStageAdapter):
    """RetinaNet: independent sigmoids, no background column."""

    name = "RetinaNet"
    kind = RetinaNet
    activation = "sigmoid"

    def candidates(self, anchors: _Anchors, detections: Detections) -> Candidates:
        """By logits, which saves a sigmoid of them all."""
        logits = anchors.outputs["cls_logits"]
        floors = torch.logit(detections.lowest_scores(ulps=CLOSE_ULPS).clamp(max=1))
        rows, labels = pairs_above(logits, floors[anchors.frames])
        return Candidates(rows, labels, anchors.frames[rows], logits[rows, labels].sigmoid())

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """sigmoid(class)."""
        return outputs["cls_logits"].sigmoid()


class FCOSAdapter(_SingleStageAdapter):
    """FCOS: independent columns sqrt(sigmoid(class) * sigmoid(centerness)), as the model scores; no background."""

    name = "FCOS"
    kind = FCOS
    activation = "sigmoid"

    def candidates(self, anchors: _Anchors, detections: Detections) -> Candidates:
        """By class logits, beside what the anchor's centerness leaves for them to reach."""
        logits, centerness = anchors.outputs["cls_logits"], anchors.outputs["bbox_ctrness"].squeeze(1)
        squares = detections.lowest_scores(ulps=CLOSE_ULPS).square()[anchors.frames]
        floors = torch.logit((squares / centerness.float().sigmoid()).clamp(max=1))
        rows, labels = pairs_above(logits, floors)
        scores = (logits[rows, labels].sigmoid() * centerness[rows].sigmoid()).sqrt()
        return Candidates(rows, labels, anchors.frames[rows], scores)

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """sqrt(sigmoid(class) * sigmoid(centerness))."""
        return (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()

    def decoded(self, model: Any, codes: Tensor, anchors: Tensor) -> Tensor:
        """By FCOS's linear coder."""
        boxes: Tensor = model.box_coder.decode(codes, anchors)
        return boxes


class SSDAdapter(_SingleStageAdapter):
    """SSD and SSDLite: a softmax with a background column 0."""

    name = "SSD or SSDLite"
    kind = SSD
    activation = "softmax"

    def candidates(self, anchors: _Anchors, detections: Detections) -> Candidates:
        """By the softmax of every anchor: SSD has few."""
        return _softmax_candidates(anchors.outputs["cls_logits"], anchors.frames, detections, ulps=CLOSE_ULPS)

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        """Softmax, background first."""
        return outputs["cls_logits"].softmax(1)

    def pooled_maps(
        self, maps: list[Tensor], anchor_rows: Tensor, per_frame: int, sizes: FrameSizes
    ) -> tuple[list[Tensor], Tensor | None]:
        """One map for all boxes: SSD's have heads, widths and meanings of their own, so vectors would not compare."""
        return [maps[deepest_level(maps, sizes.padded, stride=BOX_STRIDE)]], None


def _run(model: nn.Module, images: Any) -> Any:
    """`model(images)`. Raises an `InvalidInputError` if that fails because images are of integers."""
    try:
        return model(images)
    except TypeError as error:
        kinds = [image.dtype for image in images if isinstance(image, Tensor) and not image.is_floating_point()]
        if not kinds:
            raise
        raise InvalidInputError(
            f"images for torchvision's detectors must be floats in [0, 1]; got {kinds[0]}. Convert them by "
            "`torchvision.transforms.v2.ToDtype(torch.float32, scale=True)`"
        ) from error


def _child(model: Any, name: str) -> nn.Module:
    module: nn.Module = getattr(model, name)
    return module


def _only(recording: Recording, name: str) -> Call:
    calls = recording[name]
    if len(calls) != 1:
        raise HookError(f"`{name}` must run once a forward pass; it ran {len(calls)} times")
    return calls[0]


def _sizes(transform: Call) -> FrameSizes:
    images, batch = transform.args[0], transform.output[0]
    return FrameSizes(
        original=[(int(image.shape[-2]), int(image.shape[-1])) for image in images],
        resized=[(int(height), int(width)) for height, width in batch.image_sizes],
        padded=(int(batch.tensors.shape[-2]), int(batch.tensors.shape[-1])),
    )


def _checked_prediction(output: Any, proposals: int) -> tuple[Tensor, Tensor]:
    """The box predictor's logits (P, C) and deltas (P, 4 * C)."""
    shapes = [tuple(part.shape) for part in output] if isinstance(output, (tuple, list)) else type(output).__name__
    if len(shapes) == 2:
        logits, deltas = output
        if logits.ndim == 2 and len(logits) == proposals and deltas.shape == (proposals, 4 * logits.shape[1]):
            return logits, deltas
    raise HookError(
        f"`box_predictor` must return logits (P, C) and deltas (P, 4 * C) of P={proposals} proposals; got {shapes}"
    )


def _anchors(output: Any, boxes: Sequence[Tensor]) -> _Anchors:
    """Flatten (N, A, ...) outputs and N times (A, 4) anchors to R = N * A rows."""
    needed = {"cls_logits", "bbox_regression"}
    if not isinstance(output, Mapping) or not needed <= output.keys():
        found = sorted(output) if isinstance(output, Mapping) else type(output).__name__
        raise HookError(f"`head` must return a dict with {sorted(needed)}; got {found}")
    count, per_frame = len(boxes), len(boxes[0])
    for name, values in output.items():
        if values.shape[:2] != (count, per_frame):
            raise HookError(
                f"`{name}` must be ({count}, {per_frame}, ...) as the anchors are; got {tuple(values.shape)}"
            )
    rows = torch.cat(list(boxes))
    frames = spread([per_frame] * count, rows.device)
    return _Anchors({name: values.flatten(0, 1) for name, values in output.items()}, rows, frames, per_frame)


def _softmax_candidates(logits: Tensor, frames: Tensor, detections: Detections, *, ulps: int) -> Candidates:
    """Pairs of rows and labels from 1 on, by the softmax in the dtype that the model took it in."""
    scores = logits.softmax(1, dtype=detections.scores.dtype)
    rows, columns = pairs_above(scores[:, 1:], detections.lowest_scores(ulps=ulps)[frames])
    labels = columns + 1
    return Candidates(rows, labels, frames[rows], scores[rows, labels])


def _in_original(boxes: Tensor, frames: Tensor, sizes: FrameSizes) -> tuple[Tensor, Tensor]:
    """Decoded boxes (K, 4) as the detector returns them, and (K,) the largest number that went into each, in pixels."""
    largest = boxes.float().abs().amax(1).clamp(min=max(sizes.padded))
    extents = largest * sizes.ratios(boxes.device).amax(1)[frames]
    return sizes.in_original(sizes.clipped(boxes, frames), frames), extents


def _frame_embeddings(maps: list[Tensor], sizes: FrameSizes) -> Tensor:
    return frame_means(maps[deepest_level(maps, sizes.padded, stride=FRAME_STRIDE)], sizes)


def _frame_batch(
    detections: Detections,
    *,
    probabilities: Callable[[], Tensor],
    activation: Activation,
    box_embeddings: Callable[[Tensor | slice], Tensor],
    frame_embeddings: Callable[[], Tensor],
) -> FrameBatch:
    """The columns, as they were found, and those that are computed only if they are kept."""
    return FrameBatch(
        counts=torch.tensor(detections.counts, dtype=torch.int64),
        boxes=detections.boxes.float(),
        labels=detections.labels,
        scores=detections.scores.float(),
        probabilities=Later(probabilities).column,
        activation=activation,
        box_embeddings=LaterRows(box_embeddings).column,
        frame_embeddings=Later(frame_embeddings).column,
    )
