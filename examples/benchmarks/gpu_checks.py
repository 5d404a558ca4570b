"""What there is to check on a machine with a GPU, in one command and about two minutes.

    python examples/benchmarks/gpu_checks.py                        # needs a GPU; prints Markdown
    python examples/benchmarks/gpu_checks.py --parts waits          # only this; also: overhead, strategies
    python examples/benchmarks/gpu_checks.py --tiny --device cpu    # the flow, on any machine

Three tables:

- `overhead`: seconds of `cval_torch.extract` over those of plain inference, by the wall clock, with the GPU waited for
  at both ends. Plain inference is the loop that a user would write: images to the GPU, `model(images)`, predictions to
  the CPU. In `bare` they stay on the GPU. The passes take turns, and a ratio is one pass over the mean of the two plain
  ones around it. Models have random weights and small images, which leaves the most weight to what is not the model's.
- `waits`: how often a batch makes the processor wait for the GPU, as `torch.cuda.set_sync_debug_mode` counts it, but
  for waits within torchvision's own kernels, which both have; and calls of the runtime and of single operations, from
  `torch.profiler`. All are differences between a long and a short pass, divided by the batches between, so that what a
  call takes once is not counted.
- `strategies`: seconds of a choice with the pool on the GPU and on the CPU of the machine, at the same size, and the
  share of the places at which both choose the same frame; for k-means, of the frames that have the same cluster. What
  would take the CPU too long is run on the GPU alone.

A check that fails is named in its table, and the script then ends with an error.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torchvision.models import detection

import extraction
from cval_torch import DetectionSampling, LocalBackend, Pool, extract
from cval_torch.strategies.k_center import k_center
from cval_torch.strategies.kmeans import kmeans

MODES = {mode: extraction.MODES[mode] for mode in ("scores only", "with embeddings")}
SMALL = {"min_size": 320, "max_size": 512}
# How class logits are spread, so that some thousand scores pass the threshold: see extraction.py.
SUBJECTS: dict[str, extraction.Subject] = {
    "fcos-resnet50": extraction.Subject(
        functools.partial(detection.fcos_resnet50_fpn, **SMALL), -3.0, 1.5, -8.0, batches=8
    ),
    "retinanet-resnet50": extraction.Subject(
        functools.partial(detection.retinanet_resnet50_fpn, **SMALL), -8.0, 1.5, -8.0, batches=8
    ),
    "fasterrcnn-mobilenet-320": extraction.MODELS["fasterrcnn-mobilenet-320"],
}
# What says in a profile that the processor waited, or what usually makes it wait.
WATCHED = {
    "cudaStreamSynchronize": "stream waits",
    "Memcpy DtoH": "copies to the CPU",
    "aten::_local_scalar_dense": "`item`",
    "aten::nonzero": "`nonzero`",
}
FAILED: list[str] = []


@dataclass(frozen=True)
class Machine:
    """Where it runs, and how much of it."""

    device: torch.device
    tiny: bool
    seconds: float

    def wait(self) -> None:
        """Wait until the device has nothing to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def autocast(self) -> Any:
        """The device's own: half precision on a GPU."""
        return torch.autocast(self.device.type, torch.float16 if self.device.type == "cuda" else torch.bfloat16)

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds, and what came of it."""
        self.wait()
        began = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - began, result


class Frames(Dataset[Tensor]):
    """The same few images again and again."""

    def __init__(self, images: list[Tensor], count: int) -> None:
        self.images, self.count = images, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Tensor:
        if row >= self.count:
            raise IndexError(row)
        return self.images[row % len(self.images)]


class Subject:
    """A detector on the device, and the passes that are compared."""

    def __init__(self, name: str, machine: Machine, *, batch_size: int) -> None:
        extraction.MODELS[name] = SUBJECTS[name]
        self.model: nn.Module = extraction.build(name).to(machine.device)
        self.images = extraction.clouds(batch_size, torch.Generator().manual_seed(1))
        self.machine, self.batch_size = machine, batch_size

    def loader(self, batches: int, workers: int) -> DataLoader[Tensor]:
        """So many batches of the same images."""
        frames = Frames(self.images, batches * self.batch_size)
        pinned = self.machine.device.type == "cuda"
        return DataLoader(
            frames, batch_size=self.batch_size, num_workers=workers, collate_fn=list, pin_memory=pinned and workers > 0
        )

    def passes(self, batches: int, workers: int = 0) -> dict[str, Callable[[], Any]]:
        """What there is to compare, by name."""
        ways: dict[str, Callable[[], Any]] = {
            "plain": lambda: self.plain(batches, workers, fetch=True),
            "bare": lambda: self.plain(batches, workers, fetch=False),
        }
        for mode, columns in MODES.items():
            ways[mode] = functools.partial(self.extracted, batches, workers, columns)
        return ways

    @torch.no_grad()
    def plain(self, batches: int, workers: int, *, fetch: bool) -> list[Any]:
        """The loop without the package."""
        found = []
        for images in self.loader(batches, workers):
            outputs = self.model([image.to(self.machine.device, non_blocking=True) for image in images])
            if fetch:
                outputs = [{name: column.cpu() for name, column in output.items()} for output in outputs]
            found.append(outputs)
        return found

    def extracted(self, batches: int, workers: int, columns: dict[str, Any]) -> Pool:
        """The pass of the package."""
        return extract(self.model, self.loader(batches, workers), progress=False, **columns)


def table(*titles: str) -> None:
    """The head of a table."""
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)


def row(*cells: object) -> None:
    """A row of it."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def guarded(name: str, work: Callable[[], None]) -> None:
    """Do it; a failure is a row of the table, and the rest goes on."""
    try:
        work()
    except Exception as error:
        FAILED.append(name)
        row(name, f"FAILED: {type(error).__name__}: {str(error)[:300]}".replace("|", "/").replace("\n", " "))
        traceback.print_exc()


def ratios(times: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    """Of each way, its time over the mean of the plain ones before and after it; `plain` is one over the one before."""
    places = [place for place, (way, _) in enumerate(times) if way == "plain"]
    found: dict[str, list[float]] = {}
    for before, after in itertools.pairwise(places):
        around = (times[before][1] + times[after][1]) / 2
        found.setdefault("plain", []).append(times[after][1] / times[before][1])
        for way, seconds in times[before + 1 : after]:
            found.setdefault(way, []).append(seconds / around)
    return found


def overhead_of(subject: Subject, name: str, setting: str) -> None:
    """A row of the first table."""
    machine, workers = subject.machine, 2 if "workers" in setting else 0
    context = machine.autocast() if "autocast" in setting else nullcontext()
    batches = 2 if machine.tiny else 16
    ways = subject.passes(batches, workers)
    with context:
        boxes = ways["scores only"]().num_boxes / (batches * subject.batch_size)  # which also warms up
        once = machine.timed(ways["plain"])[0]
        times: list[tuple[str, float]] = []
        end, turn = time.perf_counter() + machine.seconds, 0
        while turn < (1 if machine.tiny else 3) or (time.perf_counter() < end and not machine.tiny):
            others = ["bare", *MODES]
            for way in others[turn % 3 :] + others[: turn % 3]:
                times += [(each, machine.timed(ways[each])[0]) for each in ("plain", way)]
            turn += 1
        times.append(("plain", machine.timed(ways["plain"])[0]))
    cells = []
    found = ratios(times)
    for way in ("plain", "bare", *MODES):
        cells.append("{:.3f} [{:.3f}, {:.3f}]".format(*extraction.median_interval(found[way])))
    row(name, setting, f"{boxes:.0f}", f"{1000 * once / batches:.1f}", len(found["bare"]), *cells)


def overhead(subjects: dict[str, Subject]) -> None:
    """The first table."""
    table("detector", "setting", "boxes a frame", "ms a batch", "pairs", "plain/plain", "bare/plain", *MODES)
    for name, subject in subjects.items():
        for setting in ("plain loader", "autocast", "2 workers"):
            guarded(f"{name}, {setting}", functools.partial(overhead_of, subject, name, setting))


def waits_of(work: Callable[[], Any], machine: Machine) -> tuple[Counter[str], Counter[str]]:
    """How often one pass waits and where, and how often it calls what is watched."""
    places: Counter[str] = Counter()
    if machine.device.type == "cuda":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        for warning in caught:
            if "called a synchronizing" in str(warning.message):
                places["/".join(warning.filename.split("/")[-3:]) + f":{warning.lineno}"] += 1
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (machine.device.type == "cuda")
    with profile(activities=activities) as seen:
        work()
        machine.wait()
    calls: Counter[str] = Counter()
    results = getattr(seen.profiler, "kineto_results", None)  # as they are: to make events of all takes many seconds
    for event in [] if results is None else results.events():
        for begin, title in WATCHED.items():
            calls[title] += event.name().startswith(begin)
    return places, calls


def waits(subjects: dict[str, Subject]) -> None:
    """The second table, and below it the places that wait."""
    table("detector, a batch", "pass", "waits", *WATCHED.values())
    few, many = (1, 2) if next(iter(subjects.values())).machine.tiny else (1, 3)
    lines: list[str] = []

    def look(name: str, subject: Subject) -> None:
        short, long = subject.passes(few), subject.passes(many)
        own: Counter[str] = Counter()
        for way in ("bare", "plain", *MODES):
            long[way]()
            less, more = waits_of(short[way], subject.machine), waits_of(long[way], subject.machine)
            places = {place: (count - less[0][place]) / (many - few) for place, count in more[0].items()}
            calls = [(more[1][title] - less[1][title]) / (many - few) for title in WATCHED.values()]
            row(name, way, f"{sum(places.values()):.1f}", *(f"{count:.1f}" for count in calls))
            if way == "plain":
                own = Counter(places)
            elif way in MODES:
                mine = {place: count - own[place] for place, count in places.items() if count - own[place] > 0.01}
                lines.append(f"- {name}, {way}: " + ", ".join(f"{k} {v:.1f}" for k, v in sorted(mine.items())))

    for name, subject in subjects.items():
        guarded(name, functools.partial(look, name, subject))
    print("\nPlaces that wait more often than in plain inference, and how often in a batch:\n")
    print("\n".join(lines), flush=True)


def some_vectors(frames: int, width: int, device: torch.device) -> Tensor:
    """(F, D) float16, in scenes of 200."""
    generator = torch.Generator(device).manual_seed(0)
    scenes = torch.randn(max(frames // 200, 2), width, generator=generator, device=device)
    scene = torch.randint(0, len(scenes), (frames,), generator=generator, device=device)
    vectors = torch.empty(frames, width, dtype=torch.float16, device=device)
    for rows in torch.split(torch.arange(frames, device=device), 2**17):
        noise = torch.randn(len(rows), width, generator=generator, device=device)
        vectors[rows] = (scenes[scene[rows]] + 0.5 * noise).half()
    return vectors


def some_pool(frames: int, boxes: int, device: torch.device, *, width: int | None) -> Pool:
    """F frames of so many boxes with 20 classes; with embeddings if there is a width."""
    generator = torch.Generator(device).manual_seed(0)
    total = frames * boxes
    probabilities = torch.randn(total, 20, generator=generator, device=device).mul_(2).softmax(1)
    scores, labels = probabilities.max(1)
    return Pool(
        [f"{frame:08d}" for frame in range(frames)],
        torch.arange(0, total + 1, boxes, device=device),
        scores=scores,
        labels=labels,
        probabilities=probabilities,
        activation="softmax",
        box_embeddings=None if width is None else some_vectors(total, width, device),
        indices=torch.arange(frames, device=device),
    )


def choices(strategy: str, n: int, pool: Pool) -> Tensor:
    """Its rows."""
    stage = DetectionSampling.model_validate({"selection_strategy": strategy, "num_of_samples": n})
    return LocalBackend().select(pool, stage).rows


Work = Callable[[Any], Tensor]


def tasks(tiny: bool) -> Iterator[tuple[str, Callable[[int, torch.device], Any], Work, int, int, int]]:
    """Name; what makes the data; the work; frames to time on both, on the GPU alone, and to compare the choice of."""
    scale, n = (1000, 20) if tiny else (1, 2000)

    def vectors(frames: int, device: torch.device) -> Tensor:
        return some_vectors(frames, 256, device)

    yield (
        f"k_center to {n}, 256 wide", vectors, lambda data: k_center(data, n, seed=0),
        100_000 // scale, 1_000_000 // scale, 20_000 // scale,
    )  # fmt: skip
    yield (
        f"k-means to {n}, 5 iterations, 256 wide", vectors,
        lambda data: kmeans(data, n, seed=0, iterations=5, tolerance=0.0).labels,
        20_000 // scale, 1_000_000 // scale, 20_000 // scale,
    )  # fmt: skip
    yield (
        f"`auto` to {n}, 6 boxes a frame, 256 wide", lambda frames, device: some_pool(frames, 6, device, width=256),
        functools.partial(choices, "auto", n), 20_000 // scale, 200_000 // scale, 20_000 // scale,
    )  # fmt: skip
    yield (
        f"entropy to {n}, 6 boxes a frame, 20 classes", lambda frames, device: some_pool(frames, 6, device, width=None),
        functools.partial(choices, "entropy", n), 1_000_000 // scale, 0, 20_000 // scale,
    )  # fmt: skip


def strategies(machine: Machine) -> None:
    """The third table."""
    table("task", "frames", "GPU, s", "CPU, s", "times", "same choice")
    cpu = torch.device("cpu")

    def both(name: str, make: Any, work: Work, frames: int) -> None:
        data = make(frames, machine.device)
        seconds, mine = machine.timed(lambda: work(data))
        data = data.to(cpu)
        other, theirs = machine.timed(lambda: work(data))
        same = (mine.cpu() == theirs).double().mean()
        row(name, f"{frames:,}", f"{seconds:.2f}", f"{other:.2f}", f"{other / seconds:.1f}", f"{100 * same:.1f} %")

    def alone(name: str, make: Any, work: Work, frames: int) -> None:
        data = make(frames, machine.device)
        seconds, _ = machine.timed(lambda: work(data))
        row(name, f"{frames:,}", f"{seconds:.2f}", "", "", "")

    for name, make, work, timed, large, small in tasks(machine.tiny):
        for frames in sorted({small, timed}):  # the first also warms up
            guarded(name, functools.partial(both, name, make, work, max(frames, 60)))
        if large:
            guarded(name, functools.partial(alone, name, make, work, large))
        if machine.device.type == "cuda":
            torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--parts", nargs="+", choices=["overhead", "waits", "strategies"])
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of the CPU; by default one for each core")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row of the first table, at least")
    parser.add_argument("--tiny", action="store_true", help="as little as shows that it runs")
    options = parser.parse_args(arguments)
    FAILED.clear()
    if options.threads or not options.tiny:
        torch.set_num_threads(options.threads or os.cpu_count() or 1)
    began = time.perf_counter()
    parts = options.parts or ["overhead", "waits", "strategies"]
    machine = Machine(options.device, options.tiny, options.seconds)
    cuda = options.device.type == "cuda"
    name = torch.cuda.get_device_name(options.device) if cuda else "CPU only"
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, batches of {options.batch_size}")
    if {"overhead", "waits"} & set(parts):
        subjects = {each: Subject(each, machine, batch_size=options.batch_size) for each in options.models}
        if "waits" in parts:
            waits(subjects)
        if "overhead" in parts:
            overhead(subjects)
    if "strategies" in parts:
        strategies(machine)
    print(f"\n{math.ceil(time.perf_counter() - began)} seconds in all")
    if FAILED:
        sys.exit(f"failed: {'; '.join(FAILED)}")


if __name__ == "__main__":
    main()
