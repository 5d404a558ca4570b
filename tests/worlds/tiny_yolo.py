"""Small Ultralytics models with scores that are worth comparing, and one pass of the adapter over them."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

ultralytics = pytest.importorskip("ultralytics")

from ultralytics.cfg import DEFAULT_CFG_DICT  # noqa: E402

from cval_torch.hooks.base import FrameBatch  # noqa: E402
from cval_torch.hooks.recorder import Recorder, evaluating  # noqa: E402
from cval_torch.hooks.ultralytics import UltralyticsAdapter  # noqa: E402

MODELS = [
    ("yolov8n", False),
    ("yolov9t", False),
    ("yolov10n", True),
    ("yolo11n", False),
    ("yolo12n", False),
    ("yolo26n", False),
    ("yolo26n", True),
]
SIZES = [(96, 128), (128, 96), (128, 128)]  # the longer side is `imgsz`, so nothing is resized


@functools.cache
def built(name: str, end2end: bool) -> Any:
    """A `YOLO` from its yaml, with scores spread over classes and anchors; never changed by a test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            yolo = ultralytics.YOLO(f"{name}.yaml")
        except FileNotFoundError:
            pytest.skip(f"this version of ultralytics has no {name}")
        network = yolo.model
        head = network.model[-1]
        if head.end2end != end2end:
            if getattr(type(head), "end2end", None).__class__ is not property or type(head).end2end.fset is None:
                pytest.skip(f"this version of ultralytics cannot run {name} with end2end={end2end}")
            head.end2end = end2end
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        spread_scores(network, head.one2one_cv3 if end2end else head.cv3)
    return yolo


def spread_scores(network: nn.Module, branches: Any) -> None:
    """Scale the last layer of each class branch, so that over a noise image its logits have mean -4 and sd 2."""
    inputs: dict[int, Tensor] = {}
    hooks = [
        branch[-1].register_forward_pre_hook(lambda _, args, level=level: inputs.__setitem__(level, args[0]))
        for level, branch in enumerate(branches)
    ]
    with evaluating(network), torch.no_grad():
        network(torch.rand(1, 3, 128, 128))
        for level, branch in enumerate(branches):
            last = branch[-1]
            last.weight.normal_(0, 1)
            last.bias.zero_()
            logits = last(inputs[level])
            mean, sd = logits.mean((0, 2, 3)), logits.std((0, 2, 3)) + 1e-3
            last.weight.mul_((2 / sd)[:, None, None, None])
            last.bias.copy_(-4 - 2 * mean / sd)
    for hook in hooks:
        hook.remove()


def noise(sizes: list[tuple[int, int]], seed: int = 0) -> list[np.ndarray]:
    """RGB uint8 images (H, W, 3)."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def run(adapter: UltralyticsAdapter, model: nn.Module, images: Any) -> FrameBatch:
    with evaluating(model), torch.no_grad(), Recorder(adapter.modules(model)) as recorder:
        output = adapter.forward(model, images)
        recorder.check()
        return adapter.read(model, recorder.recording, output).settle()


def frames_of(batch: FrameBatch) -> list[dict[str, Tensor]]:
    """The columns of a batch, frame by frame."""
    names = ("boxes", "labels", "scores", "probabilities", "box_embeddings")
    parts = {name: torch.split(getattr(batch, name), batch.counts.tolist()) for name in names}
    return [{name: parts[name][row] for name in names} for row in range(len(batch.counts))]


def predicted(yolo: Any, image: np.ndarray, **options: Any) -> Any:
    """What the host reports for one image; on a copy, because some versions fuse the model in place."""
    known = {key: value for key, value in options.items() if key in DEFAULT_CFG_DICT}
    if "channels_last" in DEFAULT_CFG_DICT:
        known["channels_last"] = False  # another memory format rounds the last bit elsewhere
    bgr = np.ascontiguousarray(image[..., ::-1])
    results = copy.deepcopy(yolo).predict(bgr, device="cpu", verbose=False, save=False, **known)
    return results[0].boxes


def fresh(name: str) -> Any:
    """A `YOLO` as it is built from its yaml, the same at every call and never used."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return ultralytics.YOLO(f"{name}.yaml")
        except FileNotFoundError:
            pytest.skip(f"this version of ultralytics has no {name}")
