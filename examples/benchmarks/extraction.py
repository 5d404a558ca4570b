"""What extraction costs beside the inference that it rides on.

    python examples/benchmarks/extraction.py                       # all four detectors; an hour on one thread
    python examples/benchmarks/extraction.py --models ssd300-vgg16 --passes 8
    python examples/benchmarks/extraction.py --clock cpu           # on a machine that others use, too

`cval_torch.extract(model, loader, ...)` is measured in three modes, on models with random weights:

- `scores only`: boxes, labels and scores, the least that a pass keeps;
- `entropy`: class probabilities too, which is what `select(..., selection_strategy="entropy")` reads;
- `with embeddings`: all columns, with embeddings of boxes and frames.

A machine is now faster and now slower, by far more than extraction costs. So the pass is compared batch by batch: when
it asks for the next batch, a copy of the model infers the batch by itself (`model(images)`, with nothing else), and
what the pass takes for it stands between two such plain runs. A ratio is the time of the pass for one batch (forward,
rows, checks, loading) over the mean of the two plain runs around it. `plain/plain` is one of these over the other,
which would be 1 on a quiet machine. The table has the medians of these pairs and, in brackets, their 95 % intervals by
order statistics.

`beside` is measured within the pass alone: its time outside the model's forward, in percent of the time within. Noise
between two runs does not reach it. It has what a call takes once, too (hooks, flags, joining), but not what hooks take
within the forward.

Weights are arranged so that postprocessing has about the work that trained ones give it: a few thousand scores above
the threshold, and 100 detections a frame after suppression.
"""

from __future__ import annotations

import argparse
import copy
import itertools
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
    """A detector to measure: what builds it, how its class logits are spread, and how many batches a pass takes."""

    builder: Callable[..., nn.Module]
    mean: float
    deviation: float
    background: float
    batches: int


MODELS = {
    "fasterrcnn-mobilenet-320": Subject(detection.fasterrcnn_mobilenet_v3_large_320_fpn, 0.0, 2.0, 6.0, batches=32),
    "fasterrcnn-resnet50": Subject(detection.fasterrcnn_resnet50_fpn, 0.0, 2.0, 6.0, batches=8),
    "retinanet-resnet50": Subject(detection.retinanet_resnet50_fpn, -8.0, 1.5, -8.0, batches=8),
    "ssd300-vgg16": Subject(detection.ssd300_vgg16, 0.0, 2.0, 10.0, batches=12),
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


class PlainBetween:
    """A `collate_fn`: before it gives a batch away, a model infers that batch by itself.

    Attributes:
        plain: when each of these runs began and ended.
    """

    def __init__(self, model: nn.Module, clock: Clock) -> None:
        self._model, self._clock = model, clock
        self.plain: list[tuple[float, float]] = []

    def __call__(self, samples: list[Tensor]) -> list[Tensor]:
        """The samples, once the model has inferred them."""
        begin = self._clock()
        with torch.no_grad():
            self._model(samples)
        self.plain.append((begin, self._clock()))
        return samples


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the order statistics that hold it with about 95 %, whatever the distribution."""
    ordered = sorted(values)
    count = len(ordered)
    reach = math.ceil(0.98 * math.sqrt(count))
    low, high = max(count // 2 - reach, 0), min((count - 1) // 2 + reach, count - 1)
    return statistics.median(ordered), ordered[low], ordered[high]


class Pairs:
    """What was measured of one mode.

    Attributes:
        ratios: of each batch, the pass over plain inference.
        noise: of each batch, the plain run after it over the one before it.
        beside: of each pass, percent outside the forward.
    """

    def __init__(self) -> None:
        self.ratios: list[float] = []
        self.noise: list[float] = []
        self.beside: list[float] = []

    def add(self, begin: float, plain: Sequence[tuple[float, float]], end: float, forward: float) -> None:
        """Take in one pass: when it began, the plain runs within it, when it ended, and the time of its forwards."""
        own = [after - before for (_, before), (after, _) in itertools.pairwise(plain)]
        around = [(end - begin, after - before) for (begin, end), (before, after) in itertools.pairwise(plain)]
        self.ratios += [2 * mine / sum(pair) for mine, pair in zip(own, around, strict=True)]
        self.noise += [after / before for before, after in around]
        head, tail = plain[0][0] - begin, end - plain[-1][1]
        self.beside.append(100 * ((sum(own) + head + tail) / forward - 1))


def run_pass(model: nn.Module, frames: list[Tensor], mode: str, *, batch_size: int, clock: Clock, pairs: Pairs) -> None:
    """Make one pass, with plain inference between its batches."""
    between = PlainBetween(copy.deepcopy(model), clock)
    loader: DataLoader[Any] = DataLoader(frames, batch_size=batch_size, collate_fn=between)  # type: ignore[arg-type]
    adapter = TimedForward(find_adapter(model), clock)
    begin = clock()
    extract(model, loader, adapter=adapter, progress=False, **MODES[mode])
    pairs.add(begin, between.plain, clock(), adapter.seconds)


def report(name: str, modes: Sequence[str], *, passes: int, batches: int | None, batch_size: int, clock: Clock) -> None:
    """The rows of the table for one detector."""
    model = build(name)
    frames = clouds(batch_size, torch.Generator().manual_seed(1))
    found = extract(model, [frames], progress=False).counts.float().mean()
    frames *= batches or MODELS[name].batches
    pairs = {mode: Pairs() for mode in modes}
    begin = clock()
    with torch.no_grad():
        model(frames[:batch_size])
    milliseconds = 1000 * (clock() - begin) / batch_size
    for turn in range(passes):
        first = turn % len(modes)
        for mode in (*modes[first:], *modes[:first]):
            run_pass(model, frames, mode, batch_size=batch_size, clock=clock, pairs=pairs[mode])
    for mode, seen in pairs.items():
        columns = ((seen.ratios, 3), (seen.noise, 3), (seen.beside, 2))
        cells = ["{:.{n}f} [{:.{n}f}, {:.{n}f}]".format(*median_interval(values), n=n) for values, n in columns]
        row = [f"{name:24}", f"{mode:15}", f"{found:10.0f}", f"{milliseconds:8.1f}", f"{len(seen.ratios):5}"]
        row += [*(f"{cell:20}" for cell in cells)]
        print(f"| {' | '.join(row)} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--passes", type=int, default=4, help="of each mode, in turns")
    parser.add_argument("--batches", type=int, help="of one pass; by default as many as suit the detector")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: time of this process only")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), batches of {options.batch_size}, "
        f"{options.passes} passes, {options.clock} clock"
    )
    numbers = " | ".join(f"{title:20}" for title in ("pass/plain", "plain/plain", "beside, %"))
    print(f"\n| {'detector':24} | {'mode':15} | detections | ms/frame | pairs | {numbers} |")
    print(f"|{'-' * 26}|{'-' * 17}|{'-' * 12}|{'-' * 10}|{'-' * 7}|{'|'.join(['-' * 22] * 3)}|")
    for name in options.models:
        report(
            name,
            options.modes,
            passes=options.passes,
            batches=options.batches,
            batch_size=options.batch_size,
            clock=clock,
        )


if __name__ == "__main__":
    main()
