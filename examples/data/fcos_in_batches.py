"""`small_fcos` trained and read in large batches: what torchvision computes image by image, for frames of one size.

Benchmarks train hundreds of detectors. torchvision assigns the same targets in every step, and filters the detections
of one image after another; here targets are worked out once, and one pass over a batch finds the detections of all its
frames. The loss is torchvision's own, and so are the detections and what `cval_torch.extract` takes of them: tests
compare them. On a GPU a training step is one CUDA graph, which makes it some thirty times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, nms, sigmoid_focal_loss

from cval_torch import Pool
from cval_torch.hooks.regions import box_means

_WEIGHT_DECAY, _LARGEST_NORM = 1e-4, 5.0


class FramesWithTargets:
    """Frames of one size on a device, with what FCOS is to say at each anchor.

    Args:
        model: gives the anchors, and torchvision's way to assign them; its weights do not matter.
        images: (N, 1, H, W) uint8.
        boxes: N of (n, 4), xyxy in pixels.
        labels: N of (n,) int64.
        device: where the frames are kept, and trained on.
    """

    def __init__(
        self, model: FCOS, images: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], device: str = "cpu"
    ) -> None:
        anchors = _anchors(model.cpu(), images[:1])
        matched = torch.full((len(images), len(anchors)), -1, dtype=torch.int64)
        found: list[Tensor] = []
        head: Any = model.head
        head.compute_loss = lambda _targets, _outputs, _anchors, rows: found.extend(rows)
        try:
            for row in range(len(images)):
                if len(boxes[row]):
                    target = {"boxes": boxes[row].float(), "labels": labels[row]}
                    model.compute_loss([target], {}, [anchors], [len(anchors)])
                    matched[row] = found.pop()
        finally:
            del head.compute_loss
        self.labels = torch.full_like(matched, -1)
        self.boxes = anchors.repeat(len(images), 1, 1)
        for row in matched.amax(1).ge(0).nonzero().squeeze(1).tolist():
            taken = matched[row] >= 0
            self.labels[row, taken] = labels[row][matched[row, taken]]
            self.boxes[row, taken] = boxes[row].float()[matched[row, taken]]
        self.images, self.anchors = images.to(device), anchors.to(device)
        self.labels, self.boxes = self.labels.to(device), self.boxes.to(device)

    @property
    def device(self) -> torch.device:
        """Where the frames are."""
        return self.images.device

    def loss(self, model: FCOS, rows: Tensor) -> Tensor:
        """The loss of the frames at (n,) rows, as torchvision has it, added up."""
        head: Any = model.head
        said = head([model.backbone(_normalised(model, self.images[rows]))])
        labels, boxes, anchors = self.labels[rows], self.boxes[rows], self.anchors
        there = labels >= 0
        classes = torch.arange(said["cls_logits"].shape[-1], device=labels.device)
        which = (labels[..., None] == classes).float()  # -1 is none of them
        loss = sigmoid_focal_loss(said["cls_logits"], which, reduction="sum")
        middles, sizes = (anchors[:, :2] + anchors[:, 2:]) / 2, (anchors[:, 2:] - anchors[:, :2]).repeat(1, 2)
        sides = said["bbox_regression"] * sizes
        predicted = torch.cat([middles - sides[..., :2], middles + sides[..., 2:]], -1)
        loss = loss + ((1 - _generalized_iou(predicted, boxes)) * there).sum()
        reached = torch.cat([middles - boxes[..., :2], boxes[..., 2:] - middles], -1) / sizes
        across, down = reached[..., 0::2], reached[..., 1::2]
        central = (across.amin(-1) / across.amax(-1)) * (down.amin(-1) / down.amax(-1))
        target = torch.where(there, central.clamp_min(0), 0).sqrt()
        centerness = said["bbox_ctrness"].squeeze(-1)
        missed = functional.binary_cross_entropy_with_logits(centerness, target, reduction="none")
        total: Tensor = (loss + (missed * there).sum()) / there.sum().clamp_min(1)
        return total


def train_in_batches(
    model: FCOS,
    frames: FramesWithTargets,
    rows: Sequence[int],
    *,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> None:
    """Train in place on some of the frames, as `small_detector.train` does but for Adam's momentum, which stays."""
    rng = torch.Generator().manual_seed(seed)
    passes = steps * batch_size // len(rows) + 1
    order = torch.cat([torch.randperm(len(rows), generator=rng) for _ in range(passes)])[: steps * batch_size]
    batches = torch.as_tensor(rows)[order].view(steps, batch_size).to(frames.device)
    model.to(frames.device).train()
    rates = _one_cycle(learning_rate, steps)
    on_gpu = frames.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=torch.tensor(0.0, device=frames.device) if on_gpu else 0.0,
        weight_decay=_WEIGHT_DECAY,
        capturable=on_gpu,
    )

    def step(batch: Tensor) -> None:
        optimizer.zero_grad(set_to_none=not on_gpu)
        frames.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_NORM)
        optimizer.step()

    if on_gpu:
        _replay(model, optimizer, step, batches, torch.tensor(rates, device=frames.device))
    else:
        for batch, rate in zip(batches, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            step(batch)
    model.eval()


def _replay(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[Tensor], None],
    batches: Tensor,
    rates: Tensor,
) -> None:
    """Record a step as a CUDA graph, and run it on every batch."""
    batch, rate = batches[0].clone(), optimizer.param_groups[0]["lr"]
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    warm = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        for _ in range(3):
            step(batch)
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(batch)
    model.load_state_dict(begun)
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()
    for rows, number in zip(batches, rates, strict=True):
        batch.copy_(rows)
        rate.copy_(number)
        graph.replay()
    torch.cuda.synchronize()


def _one_cycle(learning_rate: float, steps: int) -> list[float]:
    """The learning rate of each step, by torch's own schedule."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


@torch.no_grad()
def said_in_batches(
    model: FCOS, images: Tensor, frame_ids: Sequence[str], *, batch_size: int = 32, embeddings: bool = True
) -> Pool:
    """What `cval_torch.extract` takes of the frames, on the device where the model is.

    Args:
        model: a `small_fcos`.
        images: (N, 1, H, W) uint8.
        frame_ids: N of them.
        batch_size: frames at a time.
        embeddings: whether to read those of boxes and frames.
    """
    device = next(model.parameters()).device
    settings: Any = model
    head, size = settings.head, images.shape[-2:]
    limits = torch.tensor([size[1], size[0]] * 2, device=device)
    anchors = _anchors(model, images[:1].to(device))
    found: dict[str, list[Tensor]] = {}
    for begin in range(0, len(images), batch_size):
        maps = model.backbone(_normalised(model, images[begin : begin + batch_size].to(device)))
        said = head([maps])
        scores = (said["cls_logits"].sigmoid() * said["bbox_ctrness"].sigmoid()).sqrt()
        frames, rows, labels = (scores > settings.score_thresh).nonzero(as_tuple=True)
        boxes = settings.box_coder.decode(said["bbox_regression"][frames, rows], anchors[rows])
        boxes = boxes.clamp(min=0).minimum(limits)
        best = scores[frames, rows, labels]
        # one call for all frames and classes: each has a place of its own, in numbers that lose nothing by it
        places = (frames * scores.shape[-1] + labels)[:, None] * (2.0 * max(size))
        kept = nms(boxes.double() + places.double(), best.double(), settings.nms_thresh)
        kept = kept[frames[kept].argsort(stable=True)]
        counts = torch.bincount(frames[kept], minlength=len(maps))
        rank = torch.arange(len(kept), device=device) - (counts.cumsum(0) - counts)[frames[kept]]
        kept = kept[rank < settings.detections_per_img]
        frames, rows = frames[kept], rows[kept]
        columns = {
            "counts": torch.bincount(frames, minlength=len(maps)),
            "boxes": boxes[kept],
            "scores": best[kept],
            "labels": labels[kept],
            "probabilities": scores[frames, rows],
        }
        if embeddings:
            columns["box_embeddings"] = box_means([maps], None, frames, boxes[kept], (size[0], size[1]))
            columns["frame_embeddings"] = maps.mean((2, 3))
        for name, values in columns.items():
            found.setdefault(name, []).append(values)
    joined = {name: torch.cat(parts) for name, parts in found.items()}
    offsets = functional.pad(joined.pop("counts").cumsum(0), (1, 0))
    rows = torch.arange(len(images), device=device)
    return Pool(frame_ids, offsets, indices=rows, activation="sigmoid", **joined)  # type: ignore[arg-type]


def _anchors(model: FCOS, images: Tensor) -> Tensor:
    """(A, 4), the anchors of an image of that size."""
    generator: Any = model.anchor_generator
    was_training = model.training
    with torch.no_grad():
        maps = model.eval().backbone(_normalised(model, images))
    model.train(was_training)
    anchors: Tensor = generator(ImageList(images, [(images.shape[-2], images.shape[-1])]), [maps])[0]
    return anchors


def _normalised(model: Any, images: Tensor) -> Tensor:
    """What the detector's transform makes of uint8 images of its own size."""
    normalised: Tensor = (images.float() / 255 - model.transform.image_mean[0]) / model.transform.image_std[0]
    return normalised


def _generalized_iou(boxes: Tensor, others: Tensor, *, least: float = 1e-7) -> Tensor:
    """(...) of boxes (..., 4) in pairs; as torchvision's loss has it, without a wait for the device."""
    inner = (torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])).unbind(-1)
    both = torch.where((inner[0] > 0) & (inner[1] > 0), inner[0] * inner[1], 0.0)
    union = _area(boxes) + _area(others) - both
    around = torch.cat(
        [torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])], -1
    )
    return both / (union + least) - (_area(around) - union) / (_area(around) + least)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def average_precision(pool: Pool, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
    """Mean over classes of the average precision at an IoU of 0.5, in [0, 1], as COCO interpolates it at 101 points.

    Args:
        pool: what was said of N frames.
        boxes: N of (n, 4), the true boxes.
        labels: N of (n,) int64.

    Raises:
        ValueError: there is no true box.
    """
    if not any(map(len, labels)):
        raise ValueError("the frames to measure on show no object: take more of them")
    assert pool.boxes is not None
    assert pool.scores is not None
    assert pool.labels is not None
    said, scores, kinds = pool.boxes.cpu(), pool.scores.cpu(), pool.labels.cpu()
    owners = pool.frame_rows.cpu()
    recalls = torch.from_numpy(np.linspace(0, 1, 101))  # torch's own differ in the last place
    found = []
    for label in torch.unique(torch.cat(list(labels))).tolist():
        true = [each[kind == label].float() for each, kind in zip(boxes, labels, strict=True)]
        free = [torch.ones(len(each), dtype=torch.bool) for each in true]
        rows = (kinds == label).nonzero().squeeze(1)
        rows = rows[scores[rows].argsort(descending=True, stable=True)]
        frames, hits = owners[rows], torch.zeros(len(rows))
        shown = torch.tensor([len(each) > 0 for each in true])
        for place in shown[frames].nonzero().squeeze(1).tolist():
            frame = int(frames[place])
            overlaps = torch.where(free[frame], box_iou(said[rows[place]][None], true[frame])[0], -1)
            best = int(overlaps.argmax())
            if overlaps[best] >= 0.5:
                free[frame][best] = False
                hits[place] = 1
        right = hits.cumsum(0)
        precision = (right / torch.arange(1, len(hits) + 1)).flip(0).cummax(0).values.flip(0) if len(hits) else right
        recall = right.double() / sum(map(len, true))
        at = torch.searchsorted(recall, recalls)
        found.append(float(functional.pad(precision, (0, 1))[at].mean()))
    return sum(found) / len(found)
