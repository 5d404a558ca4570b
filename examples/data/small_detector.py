"""A small FCOS that trains in seconds on a CPU, its training loop, and its mAP@50: the detector of the examples.

Nothing in it knows of `cval_torch`; it stands for a user's own model and training script.

`letters.pt`, beside this file, holds the detector's weights after 800 training steps on pasted letters, in half
precision. This command makes the file anew, in about two minutes on two cores:

    python examples/data/small_detector.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from tqdm import tqdm

from digits_on_photos import FRAME_SIZE, Item, letter_frames

_CHANNELS = (16, 32, 64, 64)
_SCORE_THRESHOLD = 0.05

LETTERS = Path(__file__).with_name("letters.pt")
"""The shipped weights of `small_fcos(26)`, trained on letters."""


def small_fcos(num_classes: int, *, seed: int = 0, frame_size: int = FRAME_SIZE) -> FCOS:
    """Build torchvision's FCOS on four small stages: one feature map of stride 8, one anchor size, no resizing.

    Frames are squares of `frame_size` pixels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FCOS(
            _Backbone(),
            num_classes,
            min_size=frame_size,
            max_size=frame_size,
            image_mean=[0.45],  # frames are grey: one channel
            image_std=[0.25],
            anchor_generator=AnchorGenerator(sizes=((24,),), aspect_ratios=((1.0,),)),
            head=FCOSHead(_CHANNELS[-1], num_anchors=1, num_classes=num_classes, num_convs=1),
            score_thresh=_SCORE_THRESHOLD,
            nms_thresh=0.5,
            detections_per_img=20,
        )


class _Backbone(nn.Module):
    out_channels = _CHANNELS[-1]

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for stage, (before, width) in enumerate(zip((1, *_CHANNELS[:-1]), _CHANNELS, strict=True)):
            stride = 2 if stage < 3 else 1
            stages += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if stage > 0:  # at full width only where frames are small: this is what costs time on a CPU
                stages += [nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.stages = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.stages(images)
        return features


def train(
    model: nn.Module,
    frames: Dataset[Item],
    *,
    steps: int = 350,
    batch_size: int = 16,
    learning_rate: float = 3e-3,
    seed: int = 0,
    progress: str | None = None,
) -> float:
    """Train in place with AdamW and a one-cycle schedule; returns the mean loss of the last tenth of the steps.

    `progress` is what a bar is labelled with; None shows none.
    """
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    items = [frames[index] for index in range(len(frames))]  # type: ignore[arg-type]  # a map-style dataset
    passes = steps * batch_size // len(items) + 1
    order = torch.cat([torch.randperm(len(items), generator=rng) for _ in range(passes)]).tolist()
    last: list[float] = []
    model.train()
    for step in tqdm(range(steps), desc=progress, disable=progress is None, unit="step", mininterval=1.0):
        batch = order[step * batch_size : (step + 1) * batch_size]
        images, targets = zip(*(items[row] for row in batch), strict=True)
        loss = sum(model(list(images), list(targets)).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step >= steps * 9 // 10:
            last.append(loss.item())
    model.eval()
    return sum(last) / len(last)


def pretrained_on_letters(
    path: Path | None = None, *, steps: int = 800, frames: int = 2000, seed: int = 0, progress: bool = False
) -> FCOS:
    """A detector of the 26 capitals, to start others from; read from `path` if it is there, else trained and saved."""
    model = small_fcos(26, seed=seed)
    if path is not None and path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    train(
        model,
        letter_frames(min(frames, 16 * steps), seed=seed),  # no more than are seen
        steps=steps,
        seed=seed,
        progress="pre-training on letters" if progress else None,
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    return model


def letters_as_shipped(path: Path = LETTERS) -> FCOS:
    """The detector of the 26 capitals with the weights that ship beside this file: no training.

    Raises:
        RuntimeError: the file is missing, or its weights do not fit `small_fcos(26)`. The message says what to do.
    """
    model = small_fcos(26)
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"the weights in {path} cannot be used; `python examples/data/small_detector.py` makes them anew, and "
            f"`--from-scratch` of the quickstart trains without them: {error}"
        ) from error
    return model.eval()


def ship_letters(path: Path = LETTERS, *, steps: int = 800) -> None:
    """Train on letters, and write the weights in half precision: what `letters_as_shipped` reads."""
    weights = pretrained_on_letters(steps=steps, progress=True).state_dict()
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    torch.save(halves, path)


def detector_of_digits(letters: FCOS, *, seed: int = 0) -> FCOS:
    """A detector of ten classes that starts from the one of letters; only its last classifying layer is new."""
    return detector_from(letters, 10, seed=seed)


def detector_from(letters: FCOS, num_classes: int, *, seed: int = 0, frame_size: int = FRAME_SIZE) -> FCOS:
    """A detector of `num_classes` that starts from the one of letters; only its last classifying layer is new."""
    model = small_fcos(num_classes, seed=seed, frame_size=frame_size)
    kept = {name: value for name, value in letters.state_dict().items() if "cls_logits" not in name}
    model.load_state_dict(kept, strict=False)
    return model


@torch.no_grad()
def evaluate_map50(model: nn.Module, frames: Dataset[Item]) -> float:
    """Mean average precision at an IoU of 0.5, in [0, 1], higher = better; of all classes that `frames` have."""
    # its import takes two seconds, which a script that only chooses saves
    from torchmetrics.detection import MeanAveragePrecision  # noqa: PLC0415

    metric = MeanAveragePrecision(iou_thresholds=[0.5], backend="faster_coco_eval")
    metric.warn_on_many_detections = False
    model.eval()
    for images, targets in DataLoader(frames, batch_size=100, collate_fn=collate):
        predictions = model(images)
        metric.update(predictions, [{name: target[name] for name in ("boxes", "labels")} for target in targets])
    return float(metric.compute()["map_50"])


def collate(batch: list[Item]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """What torchvision's detectors take: a list of images, and a list of targets."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


if __name__ == "__main__":
    ship_letters()
    print(f"{LETTERS}: {LETTERS.stat().st_size / 1000:.0f} kB")
