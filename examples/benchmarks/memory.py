"""How much memory `select` takes a frame, with a real detector.

    python examples/benchmarks/memory.py                          # about two hours on one core
    python examples/benchmarks/memory.py --stages entropy auto     # only these

For each kind of first stage `select` runs in a process of its own over two pools of different size. A frame's share is
the difference of the two peaks over the difference of the sizes: what grows with the pool, and nothing else. A peak is
the most anonymous memory (`RssAnon`, looked at every two milliseconds) above what the process had after a first pass
over a few frames. Pages of files that are mapped are not counted, since the system lets go of them when it needs room.

Both pools are larger than the blocks that stages work in, some 1,024 frames, which would count as growth otherwise.

The detector is Faster R-CNN with MobileNet v3 and random weights. It finds 100 objects in every frame. Its images are
small, and its regions are pooled to one cell, which makes it fast. What it gives of a frame is as wide as ever: 1,024
numbers a box, 256 a frame, 91 classes.

`extract` stands below for what a pool with all columns takes. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FasterRCNN, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from cval_torch import DetectionSampling, Pool, extract, select
from cval_torch.strategies import needs

ROOT = Path(__file__).resolve().parents[2]
DETECTIONS, CLASSES, SIDE = 100, 91, 64


@needs("scores")
def least_sure(pool: Pool) -> Tensor:
    """A callable that declares what it reads."""
    return torch.stack([1 - part.max() if len(part) else torch.tensor(0.5) for part in torch.split(*_parts(pool))])


def _parts(pool: Pool) -> tuple[Tensor, list[int]]:
    scores = torch.empty(0) if pool.scores is None else pool.scores
    return scores, pool.counts.tolist()


def stage(strategy: str | Callable[..., Any], n: int = 10, **options: Any) -> DetectionSampling:
    """A stage."""
    return DetectionSampling.model_validate({"selection_strategy": strategy, "num_of_samples": n, **options})


STAGES: dict[str, Sequence[DetectionSampling]] = {
    "entropy": [stage("entropy")],
    "entropy, with quotas and a budget": [stage("entropy", num_of_boxes=90.0, class_quotas={1: 3, 2: 3})],
    "entropy to 50, then k_center": [stage("entropy", 50), stage("k_center")],
    "entropy, with a min_distance": [stage("entropy", min_distance=0.2)],
    "k_center": [stage("k_center")],
    "weighted_kmeans": [stage("weighted_kmeans")],
    "auto": [stage("auto")],
    "random": [stage("random")],
    "a callable that declares its needs": [stage(least_sure)],
}


class Frames(Dataset[Tensor]):
    """Noise, each frame its own."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Tensor:
        return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(row))


def make_model() -> FasterRCNN:
    """Finds `DETECTIONS` objects of many classes in every frame."""
    torch.manual_seed(0)
    model: FasterRCNN = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=SIDE,
        max_size=SIDE,
        box_score_thresh=0.0,
        box_nms_thresh=0.9,
        box_detections_per_img=DETECTIONS,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=150,
        rpn_score_thresh=0.0,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "pool"], output_size=1, sampling_ratio=1),
        box_head=TwoMLPHead(256, 1024),
    )
    model.eval()
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.3)  # doubtful, and of several classes
    return model


def anonymous() -> int:
    """Bytes of anonymous memory that the process holds now."""
    found = re.search(r"^RssAnon:\s+(\d+)", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    return 1024 * int(found.group(1)) if found else 0


def most_held(run: Callable[[], object]) -> int:
    """The most anonymous memory while something runs."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[0] = max(most[0], anonymous())
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        run()
    finally:
        done.set()
        watching.join()
    return most[0]


def work(order: dict[str, Any]) -> None:
    """In a process of its own: run once, and print how much memory that took at most."""
    torch.set_num_threads(1)
    model = make_model()

    def run(count: int, folder: str | None) -> None:
        loader = DataLoader(Frames(count), batch_size=8, collate_fn=list)
        if order["kind"] == "extract":
            extract(model, loader, progress=False, cache_dir=folder)
        else:
            select(model, loader, stages=STAGES[order["kind"]], progress=False, cache_dir=folder)

    with tempfile.TemporaryDirectory() as place:
        run(order["warm_up"], f"{place}/few" if order["on_disk"] else None)
        before = anonymous()
        most = most_held(lambda: run(order["frames"], f"{place}/all" if order["on_disk"] else None))
    print(json.dumps(most - before))


def peak(kind: str, frames: int, *, on_disk: bool, warm_up: int) -> int:
    """Bytes at most, in a process of its own."""
    order = json.dumps({"kind": kind, "frames": frames, "on_disk": on_disk, "warm_up": warm_up})
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", __file__, "--work", order],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(json.loads(said.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs=2, default=[3000, 9000], help="two sizes of pools")
    parser.add_argument("--stages", nargs="+", choices=[*STAGES, "extract"], default=[*STAGES, "extract"])
    parser.add_argument("--warm-up", type=int, default=192, help="frames of the first pass, which is not counted")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        work(options.work)
        return
    few, many = options.frames
    print(f"{few:,} and {many:,} frames of {DETECTIONS} detections, {CLASSES} classes\n")
    print("| stages | KB a frame | with the columns on disk |\n|---|---|---|", flush=True)
    for kind in options.stages:
        each = []
        for on_disk in (False, True):
            least, most = (peak(kind, n, on_disk=on_disk, warm_up=options.warm_up) for n in (few, many))
            each.append((most - least) / (many - few) / 1024)
        print(f"| {kind} | {each[0]:.2f} | {each[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
