"""A detector that no adapter knows, and the adapter that makes it one that `select` takes.

    python examples/extend/detector.py

`GridDetector` below stands for a model of your own: a convolutional net that classifies each cell of a 12 x 12 grid
and gives a box for it. `GridAdapter` says four things of it: whether a model is one, which modules to listen to, how to
run it, and how what was heard becomes rows of a `Pool`. The model itself is not changed, and returns boxes, labels and
scores only, as detectors do; the class vector and the embedding of each box come from the recorded modules.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import SelectedFrames, select
from cval_torch.errors import HookError
from cval_torch.hooks.base import FrameBatch, Recording
from cval_torch.report.gallery import contact_sheet
from digits_on_photos import DIGIT_CLASSES, PoolSettings, pool_frames
from small_detector import collate, train

STRIDE = 8  # pixels from one cell to the next
MAX_DETECTIONS = 10


class GridDetector(nn.Module):
    """One box a cell, with a softmax over the classes and a background column 0: labels are 1 to `num_classes`.

    In training it takes images and targets and returns losses; in eval mode it takes a batch (N, 1, H, W) and returns
    N dicts of `boxes` (n, 4) xyxy in pixels, `labels` (n,) and `scores` (n,), the surest first.
    """

    def __init__(self, num_classes: int, *, score_threshold: float = 0.1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in ((1, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 64, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(64, 1 + num_classes + 4, 1)  # class logits, then the box: centre in the cell, log size
        self.score_threshold = score_threshold

    def forward(self, images: Any, targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """Losses with `targets`, detections without."""
        cells = self.head(self.body(torch.stack(list(images)))).float()
        return detections_of(cells, self.score_threshold) if targets is None else losses_of(cells, targets)


def boxes_of(cells: Tensor) -> Tensor:
    """(N, 4, h, w) xyxy in pixels, from the last four channels of `cells`."""
    rows, columns = torch.meshgrid(torch.arange(cells.shape[2]), torch.arange(cells.shape[3]), indexing="ij")
    centres = (torch.stack([columns, rows]).to(cells) + cells[:, -4:-2].sigmoid()) * STRIDE
    halves = cells[:, -2:].clamp(max=4).exp() * STRIDE / 2
    return torch.cat([centres - halves, centres + halves], dim=1)


def detections_of(cells: Tensor, threshold: float) -> list[dict[str, Tensor]]:
    """Cells whose best class scores at least `threshold`, and no less than in the eight cells around."""
    scores, labels = cells[:, :-4].softmax(1)[:, 1:].max(1)
    peaks = scores == functional.max_pool2d(scores[:, None], 3, 1, 1)[:, 0]
    scores = torch.where(peaks & (scores >= threshold), scores, 0)
    found = []
    for score, label, box in zip(scores.flatten(1), labels.flatten(1), boxes_of(cells).flatten(2), strict=True):
        best = score.argsort(descending=True, stable=True)[:MAX_DETECTIONS]
        best = best[score[best] > 0]
        found.append({"boxes": box[:, best].T, "labels": label[best] + 1, "scores": score[best]})
    return found


def losses_of(cells: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Cross-entropy in all cells, the empty ones at a tenth of the weight, and an L1 of the boxes in the others."""
    wanted = cells.new_zeros(len(cells), *cells.shape[2:], dtype=torch.int64)
    frames = torch.repeat_interleave(torch.tensor([len(target["boxes"]) for target in targets]))
    corners, labels = (torch.cat([target[name] for target in targets]) for name in ("boxes", "labels"))
    columns, rows = ((corners[:, :2] + corners[:, 2:]) / 2 / STRIDE).long().unbind(1)
    wanted[frames, rows, columns] = labels + 1
    weight = cells.new_ones(cells.shape[1] - 4)
    weight[0] = 0.1
    classes = functional.cross_entropy(cells[:, :-4], wanted, weight)
    places = boxes_of(cells)[frames, :, rows, columns]
    return {"classes": classes, "boxes": functional.l1_loss(places, corners) / STRIDE if len(frames) else places.sum()}


class GridAdapter:
    """What `extract` and `select` ask about a `GridDetector`; see `cval_torch.hooks.base.DetectorAdapter`."""

    name = "GridDetector"

    def matches(self, model: nn.Module) -> bool:
        """Whether this adapter knows `model`."""
        return isinstance(model, GridDetector)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The modules to listen to, under names for `read`."""
        assert isinstance(model, GridDetector)
        return {"body": model.body, "head": model.head}

    def forward(self, model: nn.Module, images: list[Tensor]) -> Any:
        """Run the model as in ordinary inference; `images` are on its device."""
        return model(images)

    def read(self, model: nn.Module, recording: Recording, output: list[dict[str, Tensor]]) -> FrameBatch:
        """Rows of a `Pool`: what the model returned, and beside each box what its cell said."""
        features: Tensor = recording["body"][-1].output  # (N, 64, h, w)
        cells: Tensor = recording["head"][-1].output.float()
        probabilities, places = cells[:, :-4].softmax(1), boxes_of(cells)
        rows = [_cells_of(found, probabilities[frame], places[frame]) for frame, found in enumerate(output)]

        def at_cells(maps: Tensor) -> Tensor:
            """(B, K): of maps (N, K, h, w), the vectors at the cells of the B detections."""
            return torch.cat([maps[frame].flatten(1).T[picked] for frame, picked in enumerate(rows)])

        return FrameBatch(
            counts=torch.tensor([len(found["scores"]) for found in output]),
            boxes=torch.cat([found["boxes"] for found in output]),
            labels=torch.cat([found["labels"] for found in output]),
            scores=torch.cat([found["scores"] for found in output]),
            probabilities=at_cells(probabilities),
            activation="softmax",  # rows sum to 1; column 0 is the background
            box_embeddings=at_cells(features),
            frame_embeddings=features.mean((2, 3)),
        )


def _cells_of(found: dict[str, Tensor], probabilities: Tensor, places: Tensor) -> Tensor:
    """(n,) which of the frame's h * w cells each detection came from: its score and its box tell it to the bit."""
    same_score = probabilities.flatten(1)[found["labels"]] == found["scores"][:, None]
    same_box = (places.flatten(1).T[None] == found["boxes"][:, None]).all(2)
    matches = same_score & same_box
    if not bool(matches.any(1).all()):
        raise HookError("a detection came from no cell: were the model's outputs changed after its head?")
    return matches.int().argmax(1)


def main(arguments: list[str] | None = None) -> SelectedFrames:
    """Train a grid detector a little, and choose frames with it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--frames", type=int, default=12, help="frames to choose (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="training steps (%(default)s)")
    parser.add_argument("--pool", type=int, default=600, help="frames in the pool, 120 of them annotated (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/detector"), help="folder (%(default)s)")
    options = parser.parse_args(arguments)

    pool = pool_frames(PoolSettings(frames=options.pool), seed=0)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0)).tolist()
    torch.manual_seed(0)
    detector = GridDetector(len(DIGIT_CLASSES))
    train(detector, Subset(pool, order[:120]), steps=options.steps, progress="training")

    loader = DataLoader(Subset(pool, order[120:]), batch_size=32, collate_fn=collate)
    chosen = select(
        detector,
        loader,
        num_of_samples=options.frames,
        selection_strategy="entropy",
        bbox_selection_policy="max",
        null_policy="last",
        adapter=GridAdapter(),  # the only line that differs from a detector that is known
    )
    for rank, (frame_id, score) in enumerate(zip(chosen.frame_ids, chosen.scores.tolist(), strict=True), start=1):
        print(f"{rank:3d}. {frame_id}  {score:.3f}")
    names = dict(enumerate(DIGIT_CLASSES, start=1))  # label 0 is the background
    print(
        "drawn in",
        contact_sheet(chosen, options.out / "selected.png", title="By a detector of one's own", classes=names),
    )
    return chosen


if __name__ == "__main__":
    main()
