"""What extraction costs beside the inference that it rides on.

    python examples/benchmarks/extraction.py                       # all four detectors; half an hour on one thread
    python examples/benchmarks/extraction.py --models ssd300-vgg16 --pairs 30
    python examples/benchmarks/extraction.py --clock cpu           # on a machine that others use, too

Timed in turns, on the same loader and the same model with random weights, are `model(images)` for every batch
(`plain`), and `cval_torch.extract(model, loader, ...)` in three modes:

- `scores only`: boxes, labels and scores, the least that a pass keeps;
- `entropy`: class probabilities too, which is what `select(..., selection_strategy="entropy")` reads;
- `with embeddings`: all columns, with embeddings of boxes and frames.

A round is one run of each mode between two plain runs. The ratio of a mode is its time over the mean of the two; its
place changes from round to round. `plain/plain` is one plain run over the other, which would be 1 on a quiet machine.
The table has the medians of these paired ratios and, in brackets, their 95 % intervals by order statistics. Weights are
arranged so that postprocessing has about the work that trained ones give it: a few thousand scores above the
threshold, and 100 detections a frame after suppression.

Where a machine is too noisy for that, `beside` says what can be measured within one run: the time of `extract` outside
the model's forward (loading, reading the rows, checks, hooks added and removed), in percent of the time within.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import detection

from cval_torch import extract
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.hooks.finding import find_adapter

DETECTIONS = 100
CLASSES = 91
Clock = Callable[[], float]


@dataclass(frozen=True)
class Subject:
    """A detector to measure: what builds it, how its class logits are spread, and how long one timed run is.

    A call of `extract` has some work of its own before the first batch (hooks, flags, a look at the weights), the same
    for three frames or a million, so a run of a fast detector takes more batches than one of a slow detector.
    """

    builder: Callable[..., nn.Module]
    mean: float
    deviation: float
    background: float
    batches: int


MODELS = {
    "fasterrcnn-mobilenet-320": Subject(detection.fasterrcnn_mobilenet_v3_large_320_fpn, 0.0, 2.0, 6.0, batches=32),
    "fasterrcnn-resnet50": Subject(detection.fasterrcnn_resnet50_fpn, 0.0, 2.0, 6.0, batches=2),
    "retinanet-resnet50": Subject(detection.retinanet_resnet50_fpn, -8.0, 1.5, -8.0, batches=2),
    "ssd300-vgg16": Subject(detection.ssd300_vgg16, 0.0, 2.0, 10.0, batches=4),
}
HEIGHT, WIDTH = 480, 640
MODES: dict[str, dict[str, Any]] = {
    "scores only": {"probabilities": False, "box_embeddings": False, "frame_embeddings": False},
    "entropy": {"box_embeddings": False, "frame_embeddings": False},
    "with embeddings": {},
}


def class_layers(model: Any) -> list[Any]:
    """The layers whose outputs are class logits."""
    if hasattr(model, "roi_heads"):
        return [model.roi_heads.box_predictor.cls_score]
    head = model.head.classification_head
    return [head.cls_logits] if hasattr(head, "cls_logits") else list(head.module_list)


def clouds(count: int, generator: torch.Generator) -> list[Tensor]:
    """Frames that differ from place to place at every scale, as photographs do and plain noise does not."""
    frames = torch.zeros(count, 3, HEIGHT, WIDTH)
    for size in (6, 24, 96):
        coarse = torch.rand(count, 3, size, size, generator=generator)
        frames += nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear") / 3
    return list(frames)


def settle_norms(model: Any) -> None:
    """Give BatchNorm the statistics of some frames: without any, the features of random weights fade out or blow up."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    if norms:
        model.backbone(4 * torch.stack(clouds(2, torch.Generator().manual_seed(2))) - 2)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


def arrange_logits(model: nn.Module, subject: Subject) -> None:
    """Centre and scale the class logits, so that they differ from place to place, on every map of a pyramid."""
    seen: dict[int, list[Tensor]] = {}

    def measure(layer: nn.Module, _: Any, output: Tensor) -> None:
        seen.setdefault(id(layer), []).append(output.transpose(0, 1).flatten(1))

    layers = class_layers(model)
    handles = [layer.register_forward_hook(measure) for layer in layers]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    model(clouds(1, torch.Generator().manual_seed(0)))
    for handle in handles:
        handle.remove()
    for layer in layers:
        maps = seen[id(layer)]
        centres = torch.stack([columns.mean(1) for columns in maps]).mean(0)
        spread = max(float((columns - centres[:, None]).square().mean().sqrt()) for columns in maps)
        scale = subject.deviation / max(spread, 1e-6)
        layer.weight *= scale
        layer.bias.copy_(subject.mean - scale * centres)
        layer.bias.view(-1, CLASSES)[:, 0] += subject.background - subject.mean


def build(name: str, seed: int = 0) -> nn.Module:
    """A detector with random weights that finds 100 boxes in a frame of clouds."""
    torch.manual_seed(seed)
    limit = "box_detections_per_img" if name.startswith("faster") else "detections_per_img"
    model = MODELS[name].builder(weights=None, weights_backbone=None, **{limit: DETECTIONS}).eval()
    with torch.no_grad():
        settle_norms(model)
        arrange_logits(model, MODELS[name])
    return model


class TimedForward:
    """An adapter that leaves everything to another, and adds up the time of the model's forward."""

    def __init__(self, adapter: DetectorAdapter, clock: Clock) -> None:
        self.name, self.matches, self.modules, self.read = adapter.name, adapter.matches, adapter.modules, adapter.read
        self._forward, self._clock = adapter.forward, clock
        self.seconds = 0.0

    def forward(self, model: nn.Module, images: Any) -> Any:
        """Run the model, and look at the clock before and after."""
        begin = self._clock()
        output = self._forward(model, images)
        self.seconds += self._clock() - begin
        return output


def plain(model: nn.Module, loader: DataLoader[Any]) -> None:
    """The inference that a user has anyway."""
    with torch.no_grad():
        for images in loader:
            model(images)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the order statistics that hold it with about 95 %, whatever the distribution."""
    ordered = sorted(values)
    count = len(ordered)
    reach = math.ceil(0.98 * math.sqrt(count))
    low, high = max(count // 2 - reach, 0), min((count - 1) // 2 + reach, count - 1)
    return statistics.median(ordered), ordered[low], ordered[high]


@dataclass(frozen=True)
class Ratios:
    """One number a round: by mode, extract over plain and percent of extract outside the forward; plain over plain."""

    extract: dict[str, list[float]]
    beside: dict[str, list[float]]
    noise: list[float]


def measure(model: nn.Module, loader: DataLoader[Any], modes: Sequence[str], *, pairs: int, clock: Clock) -> Ratios:
    """Run plain inference and all modes in turns."""
    ratios = Ratios({mode: [] for mode in modes}, {mode: [] for mode in modes}, [])

    def without() -> float:
        begin = clock()
        plain(model, loader)
        return clock() - begin

    def with_extraction(mode: str) -> float:
        adapter = TimedForward(find_adapter(model), clock)
        begin = clock()
        extract(model, loader, adapter=adapter, progress=False, **MODES[mode])
        seconds = clock() - begin
        ratios.beside[mode].append(100 * (seconds - adapter.seconds) / adapter.seconds)
        return seconds

    for mode in modes:  # the first runs are not counted
        with_extraction(mode)
        ratios.beside[mode].clear()
    without()
    for turn in range(pairs):
        first = turn % len(modes)
        before = without()
        seconds = {mode: with_extraction(mode) for mode in (*modes[first:], *modes[:first])}
        after = without()
        ratios.noise.append(after / before)
        for mode in modes:
            ratios.extract[mode].append(2 * seconds[mode] / (before + after))
    return ratios


def report(name: str, modes: Sequence[str], *, pairs: int, batches: int | None, batch_size: int, clock: Clock) -> None:
    """The rows of the table for one detector."""
    model = build(name)
    frames = clouds(batch_size, torch.Generator().manual_seed(1))
    frames *= batches or MODELS[name].batches
    loader: DataLoader[Any] = DataLoader(frames, batch_size=batch_size, collate_fn=list)  # type: ignore[arg-type]
    found = extract(model, loader, progress=False).counts.float().mean()
    begin = clock()
    plain(model, loader)
    milliseconds = 1000 * (clock() - begin) / len(frames)
    ratios = measure(model, loader, modes, pairs=pairs, clock=clock)
    for mode in modes:
        columns = ((ratios.extract[mode], 3), (ratios.noise, 3), (ratios.beside[mode], 2))
        cells = ["{:.{n}f} [{:.{n}f}, {:.{n}f}]".format(*median_interval(values), n=n) for values, n in columns]
        row = [f"{name:24}", f"{mode:15}", f"{found:10.0f}", f"{milliseconds:8.1f}", *(f"{cell:20}" for cell in cells)]
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Read the options, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--pairs", type=int, default=15, help="rounds of plain, each mode, plain")
    parser.add_argument("--batches", type=int, help="batches of one timed run; by default as many as suit the detector")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: time of this process only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    print(
        f"{options.threads} thread(s), batches of {options.batch_size}, {options.pairs} rounds, {options.clock} clock"
    )
    numbers = " | ".join(f"{title:20}" for title in ("extract/plain", "plain/plain", "beside, %"))
    print(f"\n| {'detector':24} | {'mode':15} | detections | ms/frame | {numbers} |")
    print(f"|{'-' * 26}|{'-' * 17}|{'-' * 12}|{'-' * 10}|{'|'.join(['-' * 22] * 3)}|")
    for name in options.models:
        report(
            name,
            options.modes,
            pairs=options.pairs,
            batches=options.batches,
            batch_size=options.batch_size,
            clock=clock,
        )


if __name__ == "__main__":
    main()
