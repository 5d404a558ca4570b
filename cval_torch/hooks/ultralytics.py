"""Ultralytics YOLO detectors: every detection with the class probabilities of the very anchor it came from.

Nothing of Ultralytics is imported here; models are told by their classes' names, and what is read from them is the
same from version 8.3 to 8.4: the head's `cv2`, `cv3`, `stride`, `nc`, `reg_max` and `end2end`, and the output of an
ordinary forward pass. The model is never fused, which the host's own `predict` does in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from cval_torch.errors import InvalidInputError
from cval_torch.hooks.base import BatchParts, Call, FrameBatch, Later, LaterRows, Recording
from cval_torch.hooks.finite import check_rows
from cval_torch.hooks.hosts import classes_of
from cval_torch.hooks.letterbox import Letterbox, letterbox
from cval_torch.hooks.regions import box_means
from cval_torch.hooks.regrouping import calls_of_passes, in_order, unit_range
from cval_torch.hooks.rows import CLOSE_ULPS, Candidates, Detections, pairs_above, recover_rows, spread

DEFAULT_SIZE = 640
CLASS_OFFSET = 7680  # pixels that move boxes of different classes apart for NMS, as in the host


@dataclass
class _Pass:
    """One forward of letterboxed images of one size: their positions in the batch, layouts, size and output."""

    rows: list[int]
    layouts: list[Letterbox]
    size: tuple[int, int]
    prediction: Tensor


@dataclass
class _Detections:
    """What one image holds, in pixels of its letterbox."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    probabilities: Tensor


class UltralyticsAdapter:
    """YOLO v3, 5, 6, 8 to 12 and 26, World and YOLOE with the classes that were set, the NMS-free heads of v10 and 26,
    and the boxes of -seg and -pose models.

    Detections are those of the host's `predict(image, conf=conf, iou=iou, max_det=max_det)` for that image alone.
    `probabilities` are the independent sigmoids of the detection's anchor, one column a class; `box_embeddings` the
    mean of four samples within the box of each of the neck's maps, one after another; `frame_embeddings` the mean of
    the coarsest map over the image without its border. The NMS-free head may report one anchor under several classes.

    Images (C, H, W) are RGB in [0, 1], and letterboxed; images whose letterboxes have one size run together, so that
    no frame's result depends on its neighbours. A batch of the host's own validation dataset (a dict with `img`,
    `ori_shape` and `ratio_pad`) is taken as it is.

    Args:
        conf: keep detections above this score, in [0, 1). Low on purpose: a box that the detector is unsure of is
            what selection looks for (the host's 0.25 hides most of them).
        iou: of two boxes of a class that overlap more than this, in (0, 1], the higher score stays.
        max_det: most detections a frame, highest scores first. The NMS-free head gives at most its own 300.
        imgsz: side, or (height, width), that images are scaled to; None: what the model was trained with, else 640.
        agnostic_nms: whether a box suppresses those of other classes, and an NMS-free head gives an anchor one class.
            None: as in the host's `predict`, which is True for YOLOE alone.
        rect: leave out the border that the stride does not need, as the host does for one image. False: every
            letterbox is `imgsz` whole, which runs more images at once where their shapes are mixed.

    Raises:
        InvalidInputError: an option out of its range.
    """

    name = "Ultralytics YOLO"

    def __init__(
        self,
        *,
        conf: float = 0.05,
        iou: float = 0.7,
        max_det: int = 300,
        imgsz: int | tuple[int, int] | None = None,
        agnostic_nms: bool | None = None,
        rect: bool = True,
    ) -> None:
        if not 0 <= conf < 1:
            raise InvalidInputError(f"`conf` must be in [0, 1); got {conf}")
        if not 0 < iou <= 1:
            raise InvalidInputError(f"`iou` must be in (0, 1]; got {iou}")
        if max_det < 1:
            raise InvalidInputError(f"`max_det` must be at least 1; got {max_det}")
        self.conf, self.iou, self.max_det, self.rect, self.agnostic_nms = conf, iou, max_det, rect, agnostic_nms
        self.imgsz = None if imgsz is None else two_sides(imgsz)

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is one of Ultralytics' networks that ends in a head of upright boxes."""
        if "BaseModel" not in host_classes(model):
            return False
        return "Detect" in host_classes(head_of(model)) and self.refusal(model) is None

    def refusal(self, model: object) -> str | None:
        """Why a network of this host is not read, for errors; None: no reason is known."""
        network = wrapped_network(model) or model
        if "BaseModel" not in host_classes(network):
            return None
        head = head_of(network)
        if "OBB" in host_classes(head):
            return "its boxes are rotated, and those of a Pool are upright"
        if hasattr(head, "lrpc"):
            return "it has no prompts, and leaves anchors out before it says which. Give it classes, by `set_classes`"
        return None

    def open(self, holder: object) -> tuple[nn.Module, UltralyticsAdapter] | None:
        """The network in an `ultralytics.YOLO`, or in the `ModelEMA` of a training."""
        inner = wrapped_network(holder)
        return None if inner is None else (inner, self)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The head's branches, level by level: the box branch is given the neck's map."""
        head = head_of(model)
        branches: dict[str, Sequence[nn.Module]] = {"boxes": head.cv2}
        if head.end2end:
            classes = head.one2one_cv4 if "YOLOEDetect" in host_classes(head) else head.one2one_cv3
            branches = {"boxes": head.one2one_cv2, "classes": classes}
        return {f"{name} {level}": part for name, parts in branches.items() for level, part in enumerate(parts)}

    def split(self, batch: Any) -> BatchParts | None:
        """Read a batch of the host's dataset; None for a batch of another kind.

        Raises:
            InvalidInputError: it does not say how its images lie in their letterboxes.
        """
        if not isinstance(batch, Mapping) or "img" not in batch:
            return None
        images = batch["img"]
        ratio_pad = batch.get("ratio_pad", ())
        nested = [pair for pair in ratio_pad if isinstance(pair, (tuple, list)) and isinstance(pair[0], (tuple, list))]
        if len(nested) != len(images) or len(batch.get("ori_shape", ())) != len(images):
            raise InvalidInputError(
                "a batch with `img` must have `ori_shape` and `ratio_pad` ((gain_y, gain_x), (left, top)) for each of "
                f"its {len(images)} images, as Ultralytics' dataset gives them with `augment=False`; got "
                f"{sorted(map(str, batch))}. Its training batches are augmented: their boxes fit no image on disk"
            )
        layouts = []
        for original, ((gain_y, gain_x), (left, top)) in zip(batch["ori_shape"], nested, strict=True):
            height, width = int(original[0]), int(original[1])
            content = (round(height * float(gain_y)), round(width * float(gain_x)))
            layouts.append(Letterbox((height, width), content, round(float(left)), round(float(top))))
        targets = None
        if "im_file" in batch:
            targets = [{"im_file": path} for path in batch["im_file"]]
        return BatchParts({"img": images, "layouts": layouts}, len(images), targets)

    def forward(self, model: nn.Module, images: Any) -> list[_Pass]:
        """Letterbox the images, and run the model once for each size there is."""
        with _classes_apart(head_of(model), not self._is_agnostic(model)):
            return self._passes(model, images)

    def _is_agnostic(self, model: nn.Module) -> bool:
        if self.agnostic_nms is None:
            return "YOLOEDetect" in host_classes(head_of(model))
        return self.agnostic_nms

    def _passes(self, model: nn.Module, images: Any) -> list[_Pass]:
        if isinstance(images, Mapping):
            return [_run(model, list(range(len(images["img"]))), images["layouts"], unit_range(images["img"]))]
        stride = int(head_of(model).stride.max())
        target = self.imgsz or trained_size(model)
        sizes: dict[tuple[int, ...], list[tuple[int, Tensor, Letterbox]]] = {}
        for row, image in enumerate(images):
            boxed, layout = letterbox(unit_range(image), target, stride=stride, rect=self.rect)
            sizes.setdefault(tuple(boxed.shape), []).append((row, boxed, layout))
        passes = []
        for members in sizes.values():
            rows, boxed_images, layouts = zip(*members, strict=True)
            passes.append(_run(model, list(rows), list(layouts), torch.stack(boxed_images)))
        return passes

    def read(self, model: nn.Module, recording: Recording, output: list[_Pass]) -> FrameBatch:
        """Detections in pixels of the original images, with the rows of the head and the neck they came from."""
        parts = []
        for one, calls in zip(output, calls_of_passes(recording, len(output)), strict=True):
            parts.append((one.rows, self._frames(model, one, calls)))
        return in_order(parts)

    def _frames(self, model: nn.Module, one: _Pass, calls: Mapping[str, Call]) -> FrameBatch:
        maps = [call.args[0] for name, call in calls.items() if name.startswith("boxes")]
        found = self._detections(model, one.prediction, {name: call.output for name, call in calls.items()})
        placed = list(zip(one.layouts, found, strict=True))
        inside = [layout.clip(each.boxes) for layout, each in placed]
        counts = [len(each.scores) for each in found]
        frames, regions = spread(counts, one.prediction.device), torch.cat(inside)
        return FrameBatch(
            counts=torch.tensor(counts),
            boxes=torch.cat([layout.to_original(each.boxes) for layout, each in placed]),
            labels=torch.cat([each.labels for each in found]),
            scores=torch.cat([each.scores for each in found]),
            probabilities=torch.cat([each.probabilities for each in found]),
            activation="sigmoid",
            box_embeddings=LaterRows(
                lambda picked: torch.cat(
                    [box_means([level], None, frames[picked], regions[picked], one.size) for level in maps], dim=1
                )
            ).column,
            frame_embeddings=Later(lambda: _content_means(maps[-1], one.layouts, one.size)).column,
        )

    def _detections(self, model: nn.Module, prediction: Tensor, outputs: Mapping[str, Tensor]) -> list[_Detections]:
        head = head_of(model)
        if not head.end2end:
            apart = 0 if self._is_agnostic(model) else CLASS_OFFSET
            return [self._suppressed(image, head.nc, apart) for image in prediction.float()]
        logits = torch.cat([out.flatten(2) for name, out in outputs.items() if name.startswith("classes")], dim=2)
        boxes = [out for name, out in outputs.items() if name.startswith("boxes")]
        kept = [image[image[:, 4] > self.conf][: self.max_det] for image in prediction]
        probabilities = logits.sigmoid()
        if probabilities.dtype == torch.float64:  # matched in float32, as precise as what is decoded here
            probabilities = probabilities.float()
        return _with_anchors(kept, probabilities.transpose(1, 2), *_decoded(boxes, head))

    def _suppressed(self, prediction: Tensor, classes: int, apart: int) -> _Detections:
        """Non-maximum suppression of one image's (4 + classes + more, A), each anchor under its best class."""
        scores, labels = prediction[4 : 4 + classes].max(0)
        rows = (scores > self.conf).nonzero().flatten()
        centre, half = prediction[:2, rows].T, prediction[2:4, rows].T / 2
        boxes = torch.cat([centre - half, centre + half], dim=1)
        kept = nms(boxes + labels[rows, None] * apart, scores[rows], self.iou)[: self.max_det]
        rows = rows[kept]
        return _Detections(boxes[kept], labels[rows], scores[rows], prediction[4 : 4 + classes, rows].T)


@contextmanager
def _classes_apart(head: Any, apart: bool) -> Iterator[None]:
    """Have an NMS-free head choose by anchor and class, or by anchor, for the time being, where it knows of that."""
    before = vars(head).get("agnostic_nms")
    if hasattr(head, "agnostic_nms"):
        head.agnostic_nms = not apart
    try:
        yield
    finally:
        vars(head).pop("agnostic_nms", None)
        if before is not None:
            head.agnostic_nms = before


def wrapped_network(holder: object) -> nn.Module | None:
    """The network in an `ultralytics.YOLO`, whose `train` and call mean other things than a module's, or a `ModelEMA`.

    None if `holder` is neither, or wraps an exported file (ONNX, TensorRT), which holds no network.
    """
    kinds, held = host_classes(holder), vars(holder) if hasattr(holder, "__dict__") else {}
    inner = held.get("ema") if "ModelEMA" in kinds else None
    if "Model" in kinds and isinstance(holder, nn.Module):
        inner = holder._modules.get("model")
    return inner if isinstance(inner, nn.Module) else None


def host_classes(module: object) -> set[str]:
    """The names of Ultralytics' classes that `module` is an instance of."""
    return set(classes_of(module, "ultralytics"))


def head_of(model: Any) -> Any:
    """The last layer of one of Ultralytics' networks."""
    return model.model[-1]


def two_sides(size: Any) -> tuple[int, int]:
    """(height, width) of an `imgsz`. Raises `InvalidInputError`."""
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InvalidInputError(f"`imgsz` must be a side or (height, width) in pixels; got {size!r}")
    return sides


def trained_size(model: Any) -> tuple[int, int]:
    """(height, width) that a network was trained with, or the host's default."""
    args = getattr(model, "args", None) or {}
    size = args.get("imgsz") if isinstance(args, Mapping) else getattr(args, "imgsz", None)
    return two_sides(size or DEFAULT_SIZE)


def _run(model: nn.Module, rows: list[int], layouts: list[Letterbox], images: Tensor) -> _Pass:
    output = model(images.to(next(model.parameters()).dtype))
    while isinstance(output, (tuple, list)):  # (prediction, what the losses need), and with masks one level deeper
        output = output[0]
    check_rows(output, torch.tensor(rows), "the model's output")
    return _Pass(rows, layouts, (images.shape[-2], images.shape[-1]), output)


def _content_means(level: Tensor, layouts: Sequence[Letterbox], size: tuple[int, int]) -> Tensor:
    """(N, C), the mean of a map (N, C, h, w) over each image without its border, one sample about every cell."""
    areas = torch.tensor([layout.bounds() for layout in layouts], device=level.device)
    scale = level.shape[-1] / size[1]
    means: Tensor = roi_align(level.float(), list(areas[:, None]), 1, spatial_scale=scale, aligned=True)
    return means.flatten(1)


def _decoded(levels: Sequence[Tensor], head: Any) -> tuple[Tensor, Tensor]:
    """What the box branch's outputs (N, 4 * reg_max, h, w) mean, in pixels of the letterbox.

    Returns:
        (N, A, 4) xyxy, and (N, A), the sum of the numbers that went into each box.
    """
    decoded, extents = [], []
    for level, stride in zip(levels, head.stride.tolist(), strict=True):
        count, _, height, width = level.shape
        sides = level.float().reshape(count, 4, head.reg_max, height * width)
        if head.reg_max > 1:  # a distribution over distances; else the distance itself
            bins = torch.arange(head.reg_max, device=level.device, dtype=torch.float32)
            sides = sides.softmax(2) * bins[:, None]
        left, top, right, bottom = sides.sum(2).unbind(1)
        y, x = torch.meshgrid(
            torch.arange(height, device=level.device) + 0.5,
            torch.arange(width, device=level.device) + 0.5,
            indexing="ij",
        )
        x, y = x.flatten(), y.flatten()
        decoded.append(torch.stack([x - left, y - top, x + right, y + bottom], dim=-1) * stride)
        extents.append((x + y + head.reg_max + sides.sum(2).abs().sum(1)) * stride)
    return torch.cat(decoded, dim=1), torch.cat(extents, dim=1)


def _with_anchors(kept: list[Tensor], probabilities: Tensor, boxes: Tensor, extents: Tensor) -> list[_Detections]:
    """What the NMS-free head kept of each image, with the anchors it came from.

    Args:
        kept: (k, 6 or more) of each image: box, score, class.
        probabilities: (N, A, C) of all anchors.
        boxes: (N, A, 4) xyxy of all anchors.
        extents: (N, A), see `_decoded`.

    Raises:
        HookError: a detection is no anchor's.
    """
    count, anchors, _ = probabilities.shape
    counts = [len(each) for each in kept]
    joined = torch.cat(kept)
    frames = spread(counts, joined.device)
    scores = joined[:, 4].to(probabilities.dtype)
    detections = Detections(counts, frames, joined[:, :4], joined[:, 5].long(), scores)
    vectors = probabilities.reshape(count * anchors, -1)
    frame_of_row = spread([anchors] * count, joined.device)
    rows, labels = pairs_above(vectors, detections.lowest_scores(ulps=CLOSE_ULPS)[frame_of_row])
    candidates = Candidates(rows, labels, frame_of_row[rows], vectors[rows, labels])

    def decode(rows: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        # In the dtype of the branches, whose rounding went into the boxes of the output too.
        return boxes.flatten(0, 1)[rows].to(vectors.dtype), extents.flatten()[rows]

    picked = vectors[recover_rows(detections, candidates, decode, ulps=CLOSE_ULPS)].float()
    columns = zip(
        torch.split(joined[:, :4].float(), counts),
        torch.split(detections.labels, counts),
        torch.split(joined[:, 4].float(), counts),
        torch.split(picked, counts),
        strict=True,
    )
    return [_Detections(*parts) for parts in columns]
