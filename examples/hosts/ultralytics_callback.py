"""Rounds of an Ultralytics YOLO: each training stops after choosing its frames, and the next list of files is longer.

    pip install -e ".[examples,ultralytics]" && python examples/hosts/ultralytics_callback.py

The network is built from its yaml: nothing is downloaded, and nothing much is learned in so short a time. Ultralytics
is under the AGPL-3.0; nothing of it is imported unless you do.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

os.environ.setdefault("YOLO_OFFLINE", "true")
from ultralytics import YOLO  # type: ignore[attr-defined]

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, PassOptions
from cval_torch.training import AtEpochs, SamplerCallback
from cval_torch.training.labels import LabelPool
from cval_torch.training.ultralytics import UltralyticsSampler
from digits_on_photos import DIGIT_CLASSES, FRAME_SIZE, DigitFrames, PoolSettings, pool_frames, unseen_frames


class ImageFiles(Dataset[Tensor]):
    """Images on the disk, as RGB (3, H, W) in [0, 1]; their names are their ids."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        pixels: Tensor = pil_to_tensor(Image.open(self.paths[row]).convert("RGB"))
        return pixels.float() / 255


def main() -> None:
    """Train in rounds, and say what each began and ended with."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a round")
    parser.add_argument("--frames", type=int, default=300, help="size of the pool")
    options = parser.parse_args()
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    """The rounds, all of them in one folder."""
    pool = ImageFiles(write_frames(pool_frames(PoolSettings(frames=options.frames)), folder / "pool"))
    test = write_frames(unseen_frames(30), folder / "test")
    (folder / "test.txt").write_text("\n".join(map(str, test)))
    (folder / "data.yaml").write_text(
        f"path: {folder}\ntrain: train.txt\nval: test.txt\nnames: {dict(enumerate(DIGIT_CLASSES))}\n"
    )
    labels = LabelPool(pool)
    labels.label([labels.frame_ids[row] for row in torch.randperm(len(pool))[:40]])
    sampler = SamplerCallback(
        labels,
        make_loader,
        # So early the network sees no objects: frames without any are alike to `entropy`, but not to `clustering`.
        DetectionSampling(selection_strategy="clustering", num_of_samples=20),
        schedule=AtEpochs(options.epochs - 1),  # at the end of a round
        annotate=lambda chosen: chosen.frame_ids,  # the label files are all there
        save_to=folder / "labels.json",
        options=PassOptions(progress=False),
    )
    yolo = YOLO("yolov8n.yaml", verbose=False)
    callback = UltralyticsSampler(sampler).attach(yolo)
    for number in range(options.rounds):
        (folder / "train.txt").write_text("\n".join(str(pool.paths[row]) for row in labels.labeled_indices))
        frames = len(labels.labeled)
        yolo.train(
            data=str(folder / "data.yaml"),
            epochs=options.epochs,
            imgsz=FRAME_SIZE,
            batch=8,
            nbs=8,
            workers=0,
            device="cpu",
            amp=False,
            plots=False,
            verbose=False,
            project=str(folder / "runs"),
        )
        chosen = () if callback.chosen is None else callback.chosen.frame_ids
        print(f"round {number}: {frames} frames; labelled {len(chosen)} more: {', '.join(chosen[:2])}", flush=True)
    print(labels)


def write_frames(frames: DigitFrames, folder: Path) -> list[Path]:
    """Each frame as the host reads it: an image, and beside `images` a text file of boxes in `labels`."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    paths = []
    for row, frame_id in enumerate(frames.frame_ids):
        name = frame_id.replace("/", "-")
        paths.append(folder / "images" / f"{name}.png")
        Image.fromarray(frames.images[row, 0].numpy()).save(paths[-1])
        x1, y1, x2, y2 = (frames.boxes[row] / FRAME_SIZE).unbind(1)
        columns = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1).tolist()
        lines = [
            " ".join(map(str, [label, *box])) for label, box in zip(frames.labels[row].tolist(), columns, strict=True)
        ]
        (folder / "labels" / f"{name}.txt").write_text("\n".join(lines))
    return paths


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at; it letterboxes the images itself."""
    return DataLoader(unlabeled, batch_size=50)


if __name__ == "__main__":
    main()
